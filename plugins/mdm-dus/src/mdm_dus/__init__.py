"""Dilated unmasking schedules for mdm."""
