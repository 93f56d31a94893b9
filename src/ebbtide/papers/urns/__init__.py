"""Study `urns`: when does a model of a pool of urns turn from generalising to memorising?"""
