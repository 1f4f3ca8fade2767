"""Images larger than the model's: overlapping crops, and prompts by region."""

from composer_plugins.canvas.backend import Canvas, load_canvas
from composer_plugins.canvas.regions import Regions

__all__ = ["Canvas", "Regions", "load_canvas"]
