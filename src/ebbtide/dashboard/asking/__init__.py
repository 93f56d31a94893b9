"""The view of single prompts: a process with the models in it, and the questions that the page asks it."""
