"""The stages of a cascade, run one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from composer import Result, Sampler
from composer.arguments import checked_seeds
from composer.authoring import (
    checked_condition,
    checked_plugins,
    finest_of,
    resized,
    sets_conditions,
    short_repr,
    views_of,
)
from composer.errors import owned
from composer_plugins.cascade.choosing import places_of, rows_of
from composer_plugins.cascade.same_view import check_same_view
from composer_plugins.cascade.stage import Shape, Stage


@dataclass(frozen=True, eq=False, repr=False)
class Cascade:
    """Run stages of growing size under the same plugins; each enlarges the result before.

    The cascade scales the plugins to each stage: views and sigmas scale themselves, images and
    masks by the method ``resized`` (see :mod:`composer.authoring`). Give images as large as the
    last stage that uses them. Image k of every stage is a function of ``seeds[k]`` alone: each
    stage draws from a new generator of that seed, as a call of ``Sampler.sample`` does.

    Ho et al. 2022, "Cascaded Diffusion Models", arXiv 2106.15282.

    Args:
        stages: from the smallest to the largest images. Only the last may be plain.
        plugins: the plugins of all stages but a plain one, outermost first.

    Raises:
        ValueError, TypeError: a stack that some stage cannot run, or a view that is not the same
            at two sizes; before any model call.
    """

    stages: Sequence[Stage]
    plugins: Sequence[object] = ()

    __repr__ = short_repr

    def __post_init__(self) -> None:
        _require_stages(self.stages)
        if any(stage.plain for stage in self.stages[:-1]):
            raise ValueError("Cascade: only the last stage may be plain. Reorder the stages.")
        for small, large in pairwise(self.shapes):
            if not small[1] < large[1]:
                raise ValueError(
                    f"Cascade: stages must grow in size, got {small[1]}x{small[2]} before "
                    f"{large[1]}x{large[2]}. List the stages from the smallest to the largest."
                )
        checked_plugins(self.plugins)
        _ = self._samplers  # raises if a stage does not fit
        self._check_views()
        self._check_finest()

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """(C, H, W) of the images of each stage."""
        return tuple(stage.image_shape for stage in self.stages)

    @property
    def first(self) -> Sampler:
        """The first stage alone, to look at its results before choosing seeds to enlarge."""
        return self._samplers[0]

    def sample(
        self, condition: Any = None, seeds: Iterable[int] = (0,), progress: bool = False
    ) -> tuple[Result, ...]:
        """Run all stages.

        Args:
            condition, seeds, progress: as of ``Sampler.sample``.

        Returns:
            One result per stage, the largest images last.
        """
        self._check_condition(condition)
        own = self._condition(0, condition)
        first = self.first.sample(own, seeds, progress)
        return (first, *self._enlarged(0, first.x, condition, first.seeds, progress))

    def enlarge(
        self, result: Result, seeds: Iterable[int] | None = None, progress: bool = False
    ) -> tuple[Result, ...]:
        """Run the stages after the one that made a result, for the same condition.

        Args:
            result: of any stage but the last.
            seeds: seeds of the result to enlarge, in the order wanted; None for all. A plugin of
                the cascade that holds one image per seed needs all of them. Recipes keep the order
                of ``result``.
            progress: show a progress bar.

        Returns:
            One result per further stage.

        Raises:
            TypeError, ValueError: ``result`` is not of a stage before the last, or a seed is not in
                it.
        """
        if not isinstance(result, Result):
            raise TypeError(
                f"enlarge: result must be a stage's Result, got {type(result).__name__}. Use for "
                "example cascade.first.sample(...)."
            )
        if len(self.stages) == 1:
            raise ValueError("enlarge: the cascade must have at least two stages, got one.")
        shape = tuple(result.x.shape[1:])
        if shape not in self.shapes[:-1]:
            raise ValueError(
                f"enlarge: result must be of a stage before the last, with images of "
                f"{self.shapes[:-1]}, got images of {shape}."
            )
        places = places_of(result.seeds, result.seeds if seeds is None else checked_seeds(seeds))
        self._check_condition(result.condition)
        # Run in the result's order, which plugins with one image per seed expect.
        order = sorted(places)
        kept = result[order]
        made = self._enlarged(
            self.shapes.index(shape), kept.x, kept.condition, kept.seeds, progress
        )
        return tuple(rows_of(larger, [order.index(place) for place in places]) for larger in made)

    def _enlarged(
        self, place: int, x: Tensor, condition: Any, seeds: tuple[int, ...], progress: bool
    ) -> tuple[Result, ...]:
        """The results of the stages after the one at ``place``, which made x."""
        results: list[Result] = []
        for later in range(place + 1, len(self.stages)):
            sampler = self._sampler(later, x)
            results.append(sampler.sample(self._condition(later, condition), seeds, progress))
            x = results[-1].x
        return tuple(results)

    @cached_property
    def _shared(self) -> tuple[tuple[object, ...], ...]:
        """The plugins of the cascade at the size of each stage."""
        return tuple(self._resized(place) for place in range(len(self.stages)))

    def _resized(self, place: int) -> tuple[object, ...]:
        stage = self.stages[place]
        with owned(f"stage {place + 1}"):
            size = stage.backend.shape[1:]
            return () if stage.plain else tuple(resized(p, *size) for p in self.plugins)

    @cached_property
    def _samplers(self) -> tuple[Sampler, ...]:
        """The samplers of all stages, with a blank image in place of the one to enlarge."""
        blanks = [torch.zeros(()).expand(1, *shape) for shape in self.shapes]
        return tuple(self._sampler(i, blanks[max(i - 1, 0)]) for i in range(len(blanks)))

    def _sampler(self, place: int, before: Tensor) -> Sampler:
        """The sampler of one stage, counted from 0, that enlarges ``before``."""
        stage = self.stages[place]
        with owned(f"stage {place + 1}"):
            link = [stage.link(before)] if place else []
            return Sampler(
                stage.backend,
                [*self._shared[place], *link, *stage.plugins],
                stage.solver,
                stage.num_inference_steps,
                stage.max_rows,
            )

    def _condition(self, place: int, given: Any) -> Any:
        """The condition of a stage: the call's, unless a plain stage or its plugins decide one."""
        stage = self.stages[place]
        if not stage.plain:
            return given
        if stage.condition is not None:
            return stage.condition
        return finest_of(self.plugins) if given is None else given

    def _check_condition(self, condition: Any) -> None:
        for place, sampler in enumerate(self._samplers):
            with owned(f"stage {place + 1}"):
                checked_condition(sampler.stack, self._condition(place, condition))

    def _check_views(self) -> None:
        shapes = [stage.backend.shape for stage in self.stages if not stage.plain]
        seen = [views_of(plugins) for plugins in self._shared]
        for place, (small, large) in enumerate(pairwise(shapes)):
            for view, larger in zip(seen[place], seen[place + 1], strict=True):
                check_same_view(view, small, larger, large)

    def _check_finest(self) -> None:
        last = self.stages[-1]
        deciders = [type(p).__name__ for p in self.plugins if sets_conditions(p)]
        asks = last.plain and last.condition is None
        if asks and deciders and finest_of(self.plugins) is None:
            raise ValueError(
                f"stage {len(self.stages)} is plain and {deciders[0]} has several conditions for "
                "the finest details. Give the stage one: Stage(..., plain=True, condition=...)."
            )


def _require_stages(stages: Any) -> None:
    listed = isinstance(stages, Sequence)
    found = list(stages) if listed else [stages]
    if not listed or not found or not all(isinstance(stage, Stage) for stage in found):
        # Type names, because the repr of a network lists all of its layers.
        what = " and ".join(type(stage).__name__ for stage in found) or "none"
        raise TypeError(f"Cascade: stages must be a list of Stage(backend, ...), got {what}.")
