"""Study `toy-laws`: the toy laws of three papers - plateaus of products, coopetition, nested logits - in seconds."""
