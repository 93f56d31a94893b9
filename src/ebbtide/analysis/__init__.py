"""What studies compute of trained models: predictions on fresh prompts, linear read-outs by layer."""
