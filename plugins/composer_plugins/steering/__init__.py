"""Steering: several images a seed, scored on the way, and walks at one noise level."""
