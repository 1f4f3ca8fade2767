"""Editing: samples that start from, keep, or measure like a given image."""
