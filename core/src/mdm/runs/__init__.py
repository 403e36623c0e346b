"""A run: configuration, variants, examples decoded and graded, and the folder of results."""
