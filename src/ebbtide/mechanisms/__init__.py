"""What happens inside: mechanisms, and laws small enough to be followed exactly."""
