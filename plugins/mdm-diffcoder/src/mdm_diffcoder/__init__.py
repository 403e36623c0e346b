"""Stable-DiffCoder checkpoints for mdm, on transformers' own Llama."""
