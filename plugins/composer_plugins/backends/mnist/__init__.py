"""MNIST: a UNet trained by flow matching and as DDPM, its weights shipped with the package."""

from typing import TYPE_CHECKING, Any

from composer_plugins.backends.mnist.backend import (
    MnistBackend,
    load_mnist_ddpm,
    load_mnist_few_step,
    load_mnist_flow,
)
from composer_plugins.backends.mnist.data import DataError, load_mnist, sample_digits
from composer_plugins.backends.mnist.latent import MnistLatentBackend, load_mnist_latent

if TYPE_CHECKING:
    from composer_plugins.backends.mnist.unet import MnistUNet

__all__ = [
    "DataError",
    "MnistBackend",
    "MnistLatentBackend",
    "MnistUNet",
    "load_mnist",
    "load_mnist_ddpm",
    "load_mnist_few_step",
    "load_mnist_flow",
    "load_mnist_latent",
    "sample_digits",
]


def __getattr__(name: str) -> Any:
    if name == "MnistUNet":  # a network of diffusers, which takes a second to import
        from composer_plugins.backends.mnist.unet import MnistUNet  # noqa: PLC0415

        return MnistUNet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
