"""A backend of images larger than its model's: MultiDiffusion."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from composer import Backend, Batch, Output, load_backend
from composer.arguments import choice, finite, integer
from composer.authoring import (
    BackendWrapper,
    checked_backend,
    grouped,
    image_shape_of,
    to_device,
)
from composer.errors import shown
from composer.limits import MAX_PIXELS
from composer_plugins.canvas.crops import WINDOWS, Crop, Window, crops, starts
from composer_plugins.canvas.regions import Layout

Wrap = Literal["none", "horizontal", "both"]
WRAPS = {"none": (False, False), "horizontal": (False, True), "both": (True, True)}
"""{wrap: whether rows, and columns, continue at the other side}."""
DEFAULT_MODEL = "mnist"
MAX_CROPS = 10_000
PLANS = 16
"""Layouts that a canvas keeps the plans of."""


class Term(NamedTuple):
    """One row of the model for each image: a crop, its number, its condition, and the weight (h, w)
    of its answer."""

    crop: Crop
    number: int
    condition: Hashable
    weight: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Canvas(BackendWrapper):
    """``inner`` over larger images, by overlapping crops whose answers are averaged.

    With crops V_i of the model's own size and windows w_i that sum to one at each place,

        f(x, c) = sum_i V_i^T w_i f_inner(V_i x, c).

    sum_i V_i^T w_i V_i = I, so the law of composition holds: every plugin that works over the model
    works over the canvas, and sees one large image. Guidance, inpainting, anagrams and hybrids
    need nothing else. Each crop is one row of the model. :class:`~.regions.Regions` gives regions
    of the canvas conditions of their own.

    Over a latent model the crops are of latents, so they lie on the autoencoder's grid, which is
    what encoding and decoding commute with; x is decoded whole.

    Bar-Tal et al. 2023, "MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation",
    arXiv 2302.08113. There the windows are flat.

    Args:
        inner: the model.
        size: (height, width) of the finished images, at least the model's own; over latents,
            multiples of the autoencoder's factor.
        overlap: least share of a crop's side that it has in common with the next one, in [0, 1).
            More makes a smoother canvas, of more rows.
        wrap: "horizontal" for a panorama whose left side continues at its right, "both" for a tile
            of a pattern.
        window: "smooth" weighs each answer less towards the border of its crop, as sin^2; "flat"
            weighs it the same everywhere.
    """

    inner: Backend
    size: Sequence[int]
    overlap: float = 0.5
    wrap: Wrap = "none"
    window: Window = "smooth"
    _kept: dict[Layout, list[Term]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inner", checked_backend(self.inner))
        if not 0 <= finite(self.overlap, "Canvas: overlap") < 1:
            raise ValueError(f"Canvas: overlap must be in [0, 1), got {shown(self.overlap)}.")
        choice(self.wrap, "Canvas: wrap", WRAPS)
        choice(self.window, "Canvas: window", WINDOWS)
        if not isinstance(self.size, list | tuple) or len(self.size) != 2:
            raise ValueError(f"Canvas: size must be (height, width), got {shown(self.size)}.")
        given = zip(self.size, image_shape_of(self.inner)[1:], self._factors, strict=True)
        for side, own, factor in given:
            if integer(side, "Canvas: size", least=1) < own or side % factor:
                raise ValueError(
                    f"Canvas: size must be multiples of {factor} and at least the model's "
                    f"{own} on each side, got {side}."
                )
        if self.size[0] * self.size[1] > MAX_PIXELS:
            raise ValueError(
                f"Canvas: size must be at most {MAX_PIXELS:,} pixels, got {self.size[0]}x"
                f"{self.size[1]}."
            )
        if self._count > MAX_CROPS:
            raise ValueError(
                f"Canvas: size and overlap must make at most {MAX_CROPS:,} crops, got "
                f"{self._count:,}. Choose less overlap."
            )
        if loaded := getattr(self.inner, "loaded_as", None):  # else a recipe would name the model
            object.__setattr__(self, "loaded_as", self._loaded_as(**loaded))

    def _loaded_as(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """How ``load_backend`` makes this canvas, from how it loaded the model."""
        own = {"overlap": self.overlap, "wrap": self.wrap, "window": self.window}
        model = {} if name == DEFAULT_MODEL and not options else {"model": name}
        given = {"options": options} if options else {}
        return {"name": "canvas", "options": {**model, **given, "size": list(self.size), **own}}

    @property
    def _factors(self) -> tuple[int, int]:
        """Pixels of the finished image to one place of x, down and across."""
        (_, height, width), (_, h, w) = image_shape_of(self.inner), self.inner.shape
        return height // h, width // w

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of x in the loop."""
        height, width = (s // f for s, f in zip(self.size, self._factors, strict=True))
        return self.inner.shape[0], height, width

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the finished images."""
        return image_shape_of(self.inner)[0], self.size[0], self.size[1]

    @property
    def _count(self) -> int:
        """The number of crops."""
        axes = zip(self.shape[1:], self.inner.shape[1:], WRAPS[self.wrap], strict=True)
        return math.prod(len(starts(*axis, overlap=self.overlap)) for axis in axes)

    @cached_property
    def crops(self) -> list[Crop]:
        """The crops of x, from the top left on; on the CPU, in float64."""
        own, whole = self.inner.shape[1:], self.shape[1:]
        return crops(whole, own, self.overlap, WRAPS[self.wrap], self.window)

    @cached_property
    def _placed(self) -> list[Crop]:
        """The crops on the model's device."""
        return [crop.to(self.device, self.dtype) for crop in self.crops]

    def encode(self, condition: Any) -> Hashable:
        if isinstance(condition, Layout):
            return condition.encoded(self.inner, wraps=WRAPS[self.wrap][1])
        return self.inner.encode(condition)

    def evaluate(self, batch: Batch) -> Output:
        inner, rows, join = self.spread(batch)
        return join(inner.evaluate(rows))

    def spread(self, batch: Batch) -> tuple[Backend, Batch, Callable[[Output], Output]]:
        """The model, the crops of a batch, and what puts their answers together."""
        groups = grouped(batch.conditions)
        plans = [self._terms(batch.conditions[rows[0]]) for rows in groups]
        parts = [
            self._shown(batch.take(rows), term)
            for rows, terms in zip(groups, plans, strict=True)
            for term in terms
        ]
        counts = [len(part) for part in parts]

        def join(output: Output) -> Output:
            # The prediction, and the learned variance if there is one.
            pieces = [iter(part.split(counts)) for part in output if part is not None]
            made = [Output(*(_pasted(terms, p, self.shape) for p in pieces)) for terms in plans]
            return Output.gathered(made, groups)

        return self.inner, _together(parts), join

    def _terms(self, condition: Hashable) -> list[Term]:
        """The rows of one image with an encoded condition."""
        if not isinstance(condition, Layout):
            return [Term(crop, k, condition, crop.window) for k, crop in enumerate(self._placed)]
        if condition not in self._kept:
            if len(self._kept) >= PLANS:
                self._kept.clear()
            self._kept[condition] = [*self._planned(condition)]
        return self._kept[condition]

    def _planned(self, layout: Layout) -> Iterator[Term]:
        """The crops of each region; a condition is not asked where its mask is zero."""
        masks = layout.masks(self.shape[1:])
        for k, (crop, placed) in enumerate(zip(self.crops, self._placed, strict=True)):
            for condition, mask in zip(layout.conditions, masks, strict=True):
                if (part := crop(mask)).any():  # on the CPU, so that no device is waited for
                    weight = (crop.window * part).to(self.dtype)
                    yield Term(placed, k, condition, to_device(weight, self.device))

    def _shown(self, batch: Batch, term: Term) -> Batch:
        """The rows of a batch as one crop shows them."""
        return Batch(
            term.crop(batch.x),
            batch.times,
            (term.condition,) * len(batch),
            tuple(image * len(self._placed) + term.number for image in batch.images),
            batch.models,
            {n: b if b.ndim == 1 else term.crop(b) for n, b in batch.beside.items()},
        )

    def encode_image(self, x: Tensor) -> Tensor:
        """Latents (B, *shape) of images x (B, *image_shape)."""
        return self._coded(x, self.inner.encode_image, self._factors, (1, 1))  # type: ignore[attr-defined]

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, *image_shape) of latents z (B, *shape)."""
        return self._coded(z, self.inner.decode, (1, 1), self._factors)  # type: ignore[attr-defined]

    def _coded(
        self,
        x: Tensor,
        coder: Callable[[Tensor], Tensor],
        before: tuple[int, int],
        after: tuple[int, int],
    ) -> Tensor:
        """What a coder makes of x, which it sees continued by half a crop where the canvas wraps.

        Args:
            before, after: the sides of one latent in x, and in what the coder makes.
        """
        margins = [
            around * length // 2
            for around, length in zip(WRAPS[self.wrap], self.inner.shape[1:], strict=True)
        ]
        for axis, margin, unit in zip((-2, -1), margins, before, strict=True):
            if margin:
                side = x.shape[axis]
                places = torch.arange(-margin * unit, side + margin * unit, device=x.device) % side
                x = x.index_select(axis, places)
        made = coder(x)
        for axis, margin, unit in zip((-2, -1), margins, after, strict=True):
            made = made.narrow(axis, margin * unit, made.shape[axis] - 2 * margin * unit)
        return made


def _together(parts: Sequence[Batch]) -> Batch:
    """Batches as one."""
    return Batch(
        torch.cat([part.x for part in parts]),
        tuple(t for part in parts for t in part.times),
        tuple(c for part in parts for c in part.conditions),
        tuple(i for part in parts for i in part.images),
        tuple(m for part in parts for m in part.models),
        {name: torch.cat([part.beside[name] for part in parts]) for name in parts[0].beside},
    )


def _pasted(terms: Sequence[Term], answers: Iterator[Tensor], shape: tuple[int, ...]) -> Tensor:
    """sum_i V_i^T w_i answer_i: images (N, C, H, W) of the next answers (N, C, h, w)."""
    weighted = [term.weight * next(answers) for term in terms]
    canvas = weighted[0].new_zeros(len(weighted[0]), *shape)
    for term, answer in zip(terms, weighted, strict=True):
        term.crop.add_to(canvas, answer)
    return canvas


def load_canvas(
    model: str = DEFAULT_MODEL,
    size: Sequence[int] = (28, 112),
    overlap: float = 0.5,
    wrap: Wrap = "none",
    window: Window = "smooth",
    options: Mapping[str, Any] | None = None,
) -> Backend:
    """Load a model for images larger than its own; see :class:`Canvas`.

    Args:
        model: the name of a backend.
        size, overlap, wrap, window: as for :class:`Canvas`.
        options: of ``load_backend(model, ...)``, such as {"model": folder} of "latent".
    """
    return Canvas(load_backend(model, **(options or {})), size, overlap, wrap, window)
