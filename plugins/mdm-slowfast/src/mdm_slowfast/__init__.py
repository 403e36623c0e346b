"""Slow-fast sampling for mdm: explores, then decodes a stable region fast."""
