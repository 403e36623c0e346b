"""Benchmarks: what decoding adds to the model (overhead), what a shape reaches (decode), what options cost (sweep)."""
