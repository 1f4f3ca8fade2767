"""Composer without Python: recipes in files, pictures that remember, sweeps, choosing."""
