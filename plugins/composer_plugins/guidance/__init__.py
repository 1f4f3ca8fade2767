"""Guidance: how strongly, and away from what, a condition is followed."""
