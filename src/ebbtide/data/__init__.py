"""Downloading and making the data files that sources read."""
