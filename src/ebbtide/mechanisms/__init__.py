"""See inside a model, reach inside it, and over training: taps, interventions, measures."""
