"""Measures what a decode costs on a machine: ``mdm bench``."""
