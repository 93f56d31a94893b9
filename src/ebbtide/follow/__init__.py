"""Sends the evaluations of a run or a sweep to an experiment tracker, from a process of its own that only reads."""
