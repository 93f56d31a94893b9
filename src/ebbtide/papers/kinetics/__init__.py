"""Nguyen & Reddy 2024: learning kinetics of memorising and of in-context learning."""
