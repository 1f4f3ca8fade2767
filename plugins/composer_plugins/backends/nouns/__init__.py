"""Nouns: 32x32 pixel-art characters, composed from traits of the public domain, and a UNet trained
on them, its weights shipped with the package."""

from composer_plugins.backends.nouns.backend import load_nouns
from composer_plugins.backends.nouns.data import (
    Nouns,
    compose,
    head_names,
    load_images,
    load_traits,
    random_nouns,
)

__all__ = [
    "Nouns",
    "compose",
    "head_names",
    "load_images",
    "load_nouns",
    "load_traits",
    "random_nouns",
]
