"""DeepFloyd IF: text to 64 pixels, to 256, to 1024, through the networks that diffusers loads."""

from composer_plugins.backends.deepfloyd.backend import DeepFloydBackend
from composer_plugins.backends.deepfloyd.embeddings import Embeddings
from composer_plugins.backends.deepfloyd.loading import load_deepfloyd
from composer_plugins.backends.deepfloyd.upscaler import UpscalerBackend

__all__ = ["DeepFloydBackend", "Embeddings", "UpscalerBackend", "load_deepfloyd"]
