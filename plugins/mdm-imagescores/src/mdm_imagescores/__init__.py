"""Scores of sets of pictures: FID, sFID, Inception Score, precision, recall and CLIP score; and the task `prompts`."""
