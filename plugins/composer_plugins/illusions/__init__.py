"""Illusions: images that show different things through views, from afar, or in their parts."""
