"""DeepFloyd IF: text to 64 pixels, and 64 to 256, through the networks that diffusers loads."""

from composer_plugins.backends.deepfloyd.backend import DeepFloydBackend
from composer_plugins.backends.deepfloyd.embeddings import Embeddings
from composer_plugins.backends.deepfloyd.loading import load_deepfloyd

__all__ = ["DeepFloydBackend", "Embeddings", "load_deepfloyd"]
