"""Study `gmm-convergence`: does attention learn to classify Gaussian mixtures in context, at a linear rate?"""
