"""Study `transient-ridge`: a model of few functions first predicts like ridge, then like its finite pool."""
