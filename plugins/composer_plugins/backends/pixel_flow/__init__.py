"""Pixel flows: text to images of 1024 pixels without an autoencoder."""

from composer_plugins.backends.pixel_flow.backend import PixelFlowBackend
from composer_plugins.backends.pixel_flow.prx import load_prx

__all__ = ["PixelFlowBackend", "load_prx"]
