"""Where these once were; they are in :mod:`composer.authoring`."""

from composer.authoring import Resizable, resized, resized_image, resized_mask

__all__ = ["Resizable", "resized", "resized_image", "resized_mask"]
