"""Study `nonlinear-generalisation`: how one layer of softmax attention with an MLP learns in context, or memorises."""
