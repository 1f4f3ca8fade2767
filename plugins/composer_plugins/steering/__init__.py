"""Steering: several images per seed, scored during the run, and walks at one noise level."""
