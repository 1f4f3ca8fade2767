"""Illusions: images that read differently through views, from afar, or part by part."""
