"""Study `induction-heads`: what has to go right for an induction head, by clamping its parts through training."""
