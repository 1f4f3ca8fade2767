"""Measuring samples."""
