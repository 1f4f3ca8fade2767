"""Nouns: 32x32 pixel-art characters, composed from traits of the public domain, to train on."""

from composer_plugins.backends.nouns.data import (
    Nouns,
    compose,
    head_names,
    load_images,
    load_traits,
    random_nouns,
)

__all__ = ["Nouns", "compose", "head_names", "load_images", "load_traits", "random_nouns"]
