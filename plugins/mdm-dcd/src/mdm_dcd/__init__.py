"""Deferred commitment decoding for mdm: a sliding window of masks."""
