"""Measures of how well a classifier reads an illusion.

A classifier is a function from images (B, C, H, W) in [-1, 1] to logits (B, K). A classifier that
judges must never guide or choose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from composer import Transform, get_transform
from composer.arguments import integer, positive
from composer.errors import shown
from composer.images import all_finite

Classifier = Callable[[Tensor], Tensor]
Readings = Mapping[str, int] | Mapping[Transform, int] | Mapping[str | Transform, int]
"""{view: index of the class intended in it}."""


def log_probabilities(classifier: Classifier, x: Tensor, views: Readings) -> Tensor:
    """S (B, N, N): S[b, i, j] = log P(class intended in view j | view i of image b)."""
    logits, classes = _logits(classifier, x, views), list(views.values())
    return torch.stack([one.log_softmax(1)[:, classes] for one in logits], 1)


def views_correct(classifier: Classifier, x: Tensor, views: Readings) -> Tensor:
    """(B,) bool: the most likely class is the intended one in every view."""
    logits, classes = _logits(classifier, x, views), list(views.values())
    right = [one.argmax(1) == intended for one, intended in zip(logits, classes, strict=True)]
    return torch.stack(right).all(0)


@torch.no_grad()
def _logits(classifier: Classifier, x: Tensor, views: Readings) -> list[Tensor]:
    """Checked logits of each view."""
    if not isinstance(views, Mapping) or not views:
        raise TypeError(f"views must be a dict such as {{'identity': 6}}, got {shown(views)}.")
    if not isinstance(x, Tensor) or x.ndim != 4:
        raise TypeError(f"images must be a tensor (B, C, H, W), got {_kind(x)}.")
    if not callable(classifier):
        raise TypeError(f"classifier must be a function of images, got {shown(classifier)}.")
    classes = [integer(intended, "a class", least=0) for intended in views.values()]
    logits = [classifier(get_transform(view)(x)) for view in views]
    for one in logits:
        if not isinstance(one, Tensor) or one.ndim != 2 or len(one) != len(x):
            raise TypeError(f"classifier must return logits ({len(x)}, K), got {_kind(one)}.")
        if not all_finite(one):
            raise ValueError(
                "classifier must return finite logits, got NaN or Inf. Check the images."
            )
    if max(classes) >= logits[0].shape[1]:
        raise ValueError(f"classes must be from 0 to {logits[0].shape[1] - 1}, got {max(classes)}.")
    return logits


def _kind(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def alignment(classifier: Classifier, x: Tensor, views: Readings) -> Tensor:
    """A (B,) in [0, 1]: the smallest of the probabilities P(intended class | view).

    Geng, Park & Owens 2024, "Visual Anagrams", arXiv 2311.17919, section 5.2, with a classifier
    in place of CLIP.
    """
    diagonal = log_probabilities(classifier, x, views).diagonal(dim1=1, dim2=2)
    return diagonal.min(1).values.exp()


def concealment(classifier: Classifier, x: Tensor, views: Readings, tau: float = 1.0) -> Tensor:
    """C (B,) in [0, 1]: how surely views and intended classes identify each other.

    The mean of the diagonals of softmax(S / tau) over classes and over views; 1 / N by chance.
    """
    scores = log_probabilities(classifier, x, views) / positive(tau, "concealment: tau")
    both = scores.softmax(2) + scores.softmax(1)
    return both.diagonal(dim1=1, dim2=2).mean(1) / 2
