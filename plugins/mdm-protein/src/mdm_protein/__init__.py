"""Protein sequences for mdm: generation, infilling, scaffolds around motifs, and their measures."""
