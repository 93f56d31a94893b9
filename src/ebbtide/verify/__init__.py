"""Exact checks without training."""
