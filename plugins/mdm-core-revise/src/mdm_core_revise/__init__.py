"""CORE for mdm: revises brittle tokens while it decodes."""
