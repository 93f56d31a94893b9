"""Study `chains`: which algorithms does a model of Markov chains go through, and which of them last?"""
