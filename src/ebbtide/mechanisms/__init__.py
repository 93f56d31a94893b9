"""Mechanistic interpretability: named activations (taps), interventions, measures of heads, also over training."""
