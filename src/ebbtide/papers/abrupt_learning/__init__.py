"""Study `abrupt-learning`: which data make a network learn in context, and why it does so all at once."""
