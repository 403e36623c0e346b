"""Protein sequences for mdm: generation, infilling and their measures."""
