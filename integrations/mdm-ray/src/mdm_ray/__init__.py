"""Runs and servers of masked diffusion models on a Ray cluster."""
