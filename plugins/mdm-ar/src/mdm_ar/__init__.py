"""Autoregressive baselines for mdm, through transformers' generate."""
