"""Latent text-to-image models of diffusers: Stable Diffusion, SDXL, SD 3, Flux and Z-Image."""

from composer_plugins.backends.autoencoder import Autoencoder
from composer_plugins.backends.latent.backend import LatentBackend
from composer_plugins.backends.latent.loading import load_latent

__all__ = ["Autoencoder", "LatentBackend", "load_latent"]
