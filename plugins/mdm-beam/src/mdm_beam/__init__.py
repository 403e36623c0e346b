"""Beam search over decoding trajectories with Info-Gain candidates, for mdm."""
