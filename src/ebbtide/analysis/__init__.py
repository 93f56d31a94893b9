"""Computations on trained models that several studies share: predictions on fresh prompts, linear probes by layer."""
