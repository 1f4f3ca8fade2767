"""Pixel-space UNet2DModel pipelines of diffusers, from a folder or the Hugging Face hub."""

from composer_plugins.backends.diffusers_unet.backend import DiffusersBackend
from composer_plugins.backends.diffusers_unet.loading import load_diffusers

__all__ = ["DiffusersBackend", "load_diffusers"]
