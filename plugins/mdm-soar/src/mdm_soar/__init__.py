"""SOAR for mdm: parallel beams where the model is unsure."""
