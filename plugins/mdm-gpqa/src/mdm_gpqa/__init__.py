"""GPQA for mdm, with choices shuffled by seed."""
