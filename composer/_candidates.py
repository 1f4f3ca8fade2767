"""Several candidates per seed, and the scores that choose one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from composer._once import once
from composer.errors import said, shown
from composer.generators import generator_of
from composer.latents import image_shape_of
from composer.protocols import Backend, State, initial_noise
from composer.requests import Request
from composer.transforms import Transform

Score = Callable[[Tensor], Tensor]
"""(B, C, H, W) in [-1, 1] -> (B,), each image scored alone, higher is better."""


def require_score(score: object, owner: str) -> None:
    """Raise a TypeError unless ``score`` can be called; a view returns images, not scores."""
    if not callable(score) or isinstance(score, type | Transform):
        raise TypeError(
            f"{owner}: score must be a function from images to numbers, got {shown(score)}."
        )


def check_score(score: Score, backend: Backend, owner: str) -> None:
    """Raise a ValueError if a score fails on a grey image of the backend's shape."""
    shape = image_shape_of(backend)

    def examine() -> None:
        grey = torch.zeros(1, *shape, dtype=backend.dtype, device=backend.device)
        try:
            scores = score(grey)
        except Exception as error:  # the caller's function may raise anything
            raise ValueError(
                f"{owner}: score failed on images of {shape} ({said(error)}). It must work on any "
                "number of them."
            ) from error
        checked_scores(scores, 1, owner)

    once(examine, "score", score, shape, backend.dtype, backend.device)


def scored(score: Score, x: Tensor, owner: str) -> Tensor:
    """(B,) finite scores of images (B, C, H, W), clipped to [-1, 1] first."""
    return checked_scores(score(x.clamp(-1, 1)), len(x), owner)


def checked_scores(scores: object, count: int, owner: str) -> Tensor:
    """Return the scores of ``count`` images; raise a ValueError unless they are finite (B,)."""
    if not isinstance(scores, Tensor) or tuple(scores.shape) != (count,):
        what = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(
            f"{owner}: score must return a tensor of one number per image, of shape ({count},), "
            f"got {what}."
        )
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(f"{owner}: score must return finite numbers, got {scores.tolist()}.")
    return scores


_LOG_WEIGHTS = "log weights"


def add_log_weights(request: Request, growth: Tensor) -> None:
    """In ``noise_estimate``: add to the log weights of the images; declare ``weighs``.

    Args:
        growth: (B,), one per image; a number that all candidates of a seed share has no effect.
    """
    before = request.carried.get(_LOG_WEIGHTS)
    request.carried[_LOG_WEIGHTS] = growth if before is None else before + growth


def take_log_weights(state: State) -> Tensor | None:
    """In ``post_step`` or ``finish``: the log weights (B,) added since they were last taken."""
    weights: Tensor | None = state.carried.pop(_LOG_WEIGHTS, None)
    return weights


def follow_several(state: State, count: int) -> None:
    """Make ``count`` images of each seed at the start of a run.

    The first image is the one that the seed gives alone. The generators of the others derive from
    the seed.
    """
    if count == 1:
        return
    derived = [[generator_of(seed, k) for k in range(1, count)] for seed in state.seeds]
    further = initial_noise([g for group in derived for g in group], state.backend)
    further = further.reshape(len(derived), count - 1, *state.x.shape[1:])
    state.x = torch.cat([state.x[:, None], further], 1).flatten(0, 1)
    state.origin = tuple(i for i in state.origin for _ in range(count))
    state.generators = tuple(
        generator
        for first, group in zip(state.generators, derived, strict=True)
        for generator in (first, *group)
    )
