"""Study `bayesian-averaging`: does a trained model predict the average of its concepts, weighted by the context?"""
