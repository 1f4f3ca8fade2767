"""Thousands of seeds, here or on a Ray cluster, that a kill does not lose."""
