"""Study `transience`: in-context learning emerges, then fades, while the loss keeps falling."""
