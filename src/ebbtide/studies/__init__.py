"""Studies: claims that are written beforehand, the work that gives their evidence, and a verdict."""
