"""Study `context-to-weights`: contexts converted to weights, exactly (Chen et al. 2024, arXiv 2406.02847)."""
