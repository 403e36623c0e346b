"""Saber for mdm: adaptive speed with backtracking."""
