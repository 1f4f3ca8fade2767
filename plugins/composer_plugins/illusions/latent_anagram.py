"""Visual anagrams by latent models: one trajectory of latents for each view."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self

import torch
from torch import Tensor

from composer import Estimate, Plugin, Request, Stack, State, Transform, get_transform, hookimpl
from composer.arguments import choice
from composer.authoring import (
    check_view,
    declared,
    follow_several,
    in_pixels,
    require_coder,
    resized,
    with_nested,
)
from composer.errors import shown
from composer.predictions import SAMPLE
from composer_plugins.illusions.blends import BLENDS


@dataclass(frozen=True, eq=False)
class LatentAnagram(Plugin):
    """Denoise the latents of several views, and agree on one image at each step.

    A view V_i of pixels does not commute with a decoder D. So each view keeps latents z_i of its
    own, with their own noise. From the estimates z0_i of the clean latents, with the encoder E,

        p_i = D(z0_i),  d_i = z0_i - E(p_i),  p = blend_i V_i^-1 p_i,  z0_i' = E(V_i p) + d_i,

    and z0_i' takes the place of z0_i. The sum d_i keeps what the round trip through pixels loses.
    At the end the latents of the first view are decoded; the others are dropped.

    For N views a step costs N rows an image in one model call (2 N with CFG), N decoded and 2 N
    encoded images. Over a linear, orthogonal coder, and from noises that are views of one another,
    the images with blend="mean" are those of :class:`Anagram`. Over a model of pixels D and E are
    the identity.

    A learned variance is dropped.

    Chang et al. 2025, "LookingGlass", arXiv 2504.08902; Kim et al. 2024, "SyncTweedies", arXiv
    2403.14370.

    Args:
        views: {transform: condition}, as for Anagram; the image is that of the first view, which
            is undone.
        blend: "mean", or "pyramid": on each of five levels of a Laplacian pyramid, half the mean
            and half sum |a_i| a_i / sum |a_i|, which keeps details that one view alone has.
    """

    follows_several = True
    unique = "follow several images a seed"
    obeys_law = False
    predicts = SAMPLE

    views: Mapping[str | Transform, Any] | Mapping[str, Any] | Mapping[Transform, Any]
    blend: Literal["mean", "pyramid"] = "mean"

    def __post_init__(self) -> None:
        # Look the views up now, so that an unknown name raises here, not at the first step.
        if not isinstance(self.views, Mapping) or not self.transforms:
            raise TypeError(
                "LatentAnagram: views must be a dict such as {'identity': 'a cat', 'flip': "
                f"'a dog'}}, got {shown(self.views)}."
            )
        choice(self.blend, "LatentAnagram: blend", BLENDS)

    @property
    def conditions(self) -> tuple[Any, ...]:
        return tuple(self.views.values())

    @cached_property
    def transforms(self) -> tuple[Transform, ...]:
        """The views, names looked up."""
        return tuple(get_transform(view) for view in self.views)

    def resized(self, height: int, width: int) -> Self:
        size = height, width
        views = {resized(v, *size): resized(c, *size) for v, c in self.views.items()}
        return replace(self, views=views)

    @hookimpl
    def check(self, stack: Stack) -> None:
        require_coder(stack.backend, "LatentAnagram")
        for view in self.transforms:
            check_view(view, stack.backend, "LatentAnagram")
        for plugin in with_nested(stack.plugins):
            if declared(plugin, "holds_image"):
                raise ValueError(
                    f"LatentAnagram: {type(plugin).__name__} holds one image, which is another in "
                    "each view. Remove it, or use Anagram with a model of pixels."
                )

    @hookimpl(wrapper=True)  # around all others, so that they prepare one input per view
    def start(self, state: State) -> Generator[None, None, None]:
        follow_several(state, len(self.views))
        yield

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        count = len(self.views)
        if len(request.x) % count:
            raise ValueError(
                f"LatentAnagram: x must have {count} images a seed, one for each view in turn, got "
                f"{len(request.x)} in all."
            )
        rows = torch.arange(len(request.x)).reshape(-1, count).T
        answers = yield [
            request.rows(own).fill(condition)
            for own, condition in zip(rows, self.conditions, strict=True)
        ]
        z0 = torch.cat([answer.x0 for answer in answers])
        agreed = in_pixels(request.backend, self._agreed, z0)
        x0 = agreed.unflatten(0, (count, -1)).transpose(0, 1).flatten(0, 1)
        return request.answer(x0, None, SAMPLE)

    def _agreed(self, images: Tensor) -> Tensor:
        """Views of one image from an image of each view, view by view."""
        views = self.transforms
        aligned = [
            view.inverse(image) for view, image in zip(views, images.chunk(len(views)), strict=True)
        ]
        blended = BLENDS[self.blend](torch.stack(aligned))
        return torch.cat([view(blended) for view in views])

    @hookimpl(wrapper=True)  # to undo the first view after a latent backend has decoded x
    def finish(self, state: State) -> Generator[None, None, None]:
        state.select(torch.arange(0, len(state.x), len(self.views)))
        yield
        state.x = self.transforms[0].inverse(state.x)
