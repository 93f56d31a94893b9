"""The contest: theories of when in-context learning emerges and goes, scored on training that they have not seen."""
