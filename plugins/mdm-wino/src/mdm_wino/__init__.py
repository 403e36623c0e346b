"""WINO for mdm: commits widely, and takes back what the rest of the canvas does not support."""
