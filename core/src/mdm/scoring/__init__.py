"""Scoring: from canvases to the token, confidence, entropy and margin of each position that is read."""
