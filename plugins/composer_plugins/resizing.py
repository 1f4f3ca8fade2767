"""Old import path of names that are now in :mod:`composer.authoring`."""

from composer.authoring import Resizable, resized, resized_image, resized_mask

__all__ = ["Resizable", "resized", "resized_image", "resized_mask"]
