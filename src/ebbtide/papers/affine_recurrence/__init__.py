"""Study `affine-recurrence`: how does a transformer continue a sequence of which each term is affine in the last?"""
