"""Particle decoding for mdm: rows of one prompt, resampled by their entropy."""
