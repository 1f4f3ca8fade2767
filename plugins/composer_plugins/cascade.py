"""A cascade: models of growing size, one after the other, under one stack of plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from composer import Backend, Result, Sampler
from composer._checks import checked_plugins
from composer.arguments import checked_seeds
from composer.authoring import (
    checked_backend,
    checked_condition,
    finest_of,
    hooks_of,
    image_shape_of,
    sets_conditions,
    short_repr,
    views_of,
)
from composer.solvers import Solver
from composer_plugins.editing.super_resolution import SuperResolution
from composer_plugins.resizing import check_same_view, resized

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False, repr=False)
class Stage:
    """One model of a cascade, and how it is run.

    Args:
        backend: the model.
        plugins: of this stage alone, inside those of the cascade: often ``[CFG(scale)]``.
        solver, num_inference_steps, max_rows: as of a Sampler.
        enlarge: called with the images of the stage before, (B, C, h, w) in [-1, 1], one a seed;
            returns the plugin that shows them to the model, such as ``SuperResolution``, or
            ``partial(SuperResolution, noise_level=100)``. Of no use in the first stage.
        plain: run without the plugins of the cascade, as a last stage that only sharpens.
        condition: of a plain stage, in place of the call's, or of the finest of the plugins'.
    """

    backend: Backend
    plugins: Sequence[object] = ()
    solver: Solver | None = None
    num_inference_steps: int = 20
    max_rows: int | None = None
    enlarge: Callable[[Tensor], object] = SuperResolution
    plain: bool = False
    condition: Any = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        checked_backend(self.backend)
        checked_plugins(self.plugins)
        if not callable(self.enlarge):
            raise TypeError(
                f"Stage: enlarge must make a plugin of an image, as SuperResolution does, got "
                f"{self.enlarge!r}"
            )
        if self.condition is not None and not self.plain:
            raise ValueError(
                "Stage: condition is of a plain stage; set plain=True, or give it to the call"
            )

    def link(self, before: Tensor) -> object:
        """The plugin that shows the model what to enlarge."""
        # Clipped as an image file would be: an overshoot is none that a model was trained on.
        plugin = self.enlarge(before.clamp(-1, 1))
        if not hooks_of(plugin):
            raise TypeError(f"Stage: enlarge returned {type(plugin).__name__}, which is no plugin")
        return plugin

    @property
    def image_shape(self) -> Shape:
        """(C, H, W) of what it makes; a latent model makes larger images than it denoises."""
        return image_shape_of(self.backend)


@dataclass(frozen=True, eq=False, repr=False)
class Cascade:
    """Each stage enlarges what the one before it made, and all follow the same plugins.

    The plugins are scaled to each stage: views and sigmas by themselves, images and masks by their
    method ``resized`` (see :mod:`composer_plugins.resizing`); give images as large as the last
    stage that uses them. Image k of every stage is a function of ``seeds[k]`` alone: each stage
    draws from a new generator of that seed, as ``Sampler.sample`` by hand would.

    Ho et al. 2022, "Cascaded Diffusion Models", arXiv 2106.15282.

    Args:
        stages: from the smallest to the largest images. Only the last may be plain.
        plugins: of all stages but a plain one, outermost first.

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
            raise ValueError("Cascade: only the last stage may be plain; reorder the stages")
        for small, large in pairwise(self.shapes):
            if not small[1] < large[1]:
                raise ValueError(
                    f"Cascade: a stage makes {large[1]}x{large[2]} of {small[1]}x{small[2]}; list "
                    "the stages from the smallest to the largest images"
                )
        checked_plugins(self.plugins)
        _ = self._samplers  # building them refuses what does not fit
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
            A result a stage, the largest images last.
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
            seeds: those of the result's to go on with, in the order wanted; None for all. A plugin
                of the cascade that holds an image a seed needs all of them. Recipes are in the
                order of ``result``, in which they were made.
            progress: show a progress bar.

        Returns:
            A result for each further stage.

        Raises:
            TypeError, ValueError: no such result, or a seed that is not in it.
        """
        if not isinstance(result, Result):
            raise TypeError(
                f"enlarge: give the result of a stage, as cascade.first.sample returns, got "
                f"{type(result).__name__}"
            )
        if len(self.stages) == 1:
            raise ValueError("enlarge: the cascade has one stage, which nothing follows; add one")
        shape = tuple(result.x.shape[1:])
        if shape not in self.shapes[:-1]:
            raise ValueError(
                f"enlarge: the result's images are {shape}; give one of a stage before the last, "
                f"whose images are {self.shapes[:-1]}"
            )
        places = _places(result.seeds, result.seeds if seeds is None else checked_seeds(seeds))
        self._check_condition(result.condition)
        # Run in the result's order, which is that of plugins that hold an image a seed.
        order = sorted(places)
        kept = result[order]
        made = self._enlarged(
            self.shapes.index(shape), kept.x, kept.condition, kept.seeds, progress
        )
        return tuple(_rows(larger, [order.index(place) for place in places]) for larger in made)

    def _enlarged(
        self, stage: int, x: Tensor, condition: Any, seeds: tuple[int, ...], progress: bool
    ) -> tuple[Result, ...]:
        """The results of the stages after ``stage``, which made x."""
        results: list[Result] = []
        for later in range(stage + 1, len(self.stages)):
            sampler = self._sampler(later, x)
            results.append(sampler.sample(self._condition(later, condition), seeds, progress))
            x = results[-1].x
        return tuple(results)

    @cached_property
    def _samplers(self) -> tuple[Sampler, ...]:
        """Of all stages, a blank image standing for what will be enlarged."""
        blanks = [torch.zeros(1, *shape) for shape in self.shapes]
        return tuple(self._sampler(i, blanks[max(i - 1, 0)]) for i in range(len(blanks)))

    def _sampler(self, stage: int, before: Tensor) -> Sampler:
        """The sampler of one stage, counted from 0, that enlarges what the one before made."""
        chosen = self.stages[stage]
        _, height, width = chosen.backend.shape
        try:
            shared = () if chosen.plain else self._resized(height, width)
            link = [chosen.link(before)] if stage else []
            return Sampler(
                chosen.backend,
                [*shared, *link, *chosen.plugins],
                chosen.solver,
                chosen.num_inference_steps,
                chosen.max_rows,
            )
        except (TypeError, ValueError) as error:
            raise type(error)(f"stage {stage + 1}: {error}") from error

    def _resized(self, height: int, width: int) -> list[object]:
        return [resized(plugin, height, width) for plugin in self.plugins]

    def _condition(self, stage: int, given: Any) -> Any:
        """What a stage is asked for: the call's condition, unless it is plain and others say."""
        chosen = self.stages[stage]
        if not chosen.plain:
            return given
        if chosen.condition is not None:
            return chosen.condition
        return finest_of(self.plugins) if given is None else given

    def _check_condition(self, condition: Any) -> None:
        for stage, sampler in enumerate(self._samplers):
            try:
                checked_condition(sampler.stack, self._condition(stage, condition))
            except (TypeError, ValueError) as error:
                raise type(error)(f"stage {stage + 1}: {error}") from error

    def _check_views(self) -> None:
        shapes = [stage.backend.shape for stage in self.stages if not stage.plain]
        seen = [views_of(self._resized(*shape[1:])) for shape in shapes]
        for place, (small, large) in enumerate(pairwise(shapes)):
            for view, larger in zip(seen[place], seen[place + 1], strict=True):
                check_same_view(view, small, larger, large)

    def _check_finest(self) -> None:
        last = self.stages[-1]
        deciders = [type(p).__name__ for p in self.plugins if sets_conditions(p)]
        asks = last.plain and last.condition is None
        if asks and deciders and finest_of(self.plugins) is None:
            raise ValueError(
                f"stage {len(self.stages)} is plain, and {deciders[0]} has no one condition for "
                "the finest details; give it one, as Stage(..., plain=True, condition=...)"
            )


def _require_stages(stages: Any) -> None:
    listed = isinstance(stages, Sequence)
    found = list(stages) if listed else [stages]
    if not listed or not found or not all(isinstance(stage, Stage) for stage in found):
        # Not by repr: that of a network has all of its layers.
        what = " and ".join(type(stage).__name__ for stage in found) or "none"
        raise TypeError(f"Cascade: stages must be a list of Stage(backend, ...), got {what}")


def _places(made: tuple[int, ...], chosen: tuple[int, ...]) -> list[int]:
    """Where each chosen seed is among those of a result; one that is there twice may be twice."""
    places: list[int] = []
    for seed in chosen:
        left = (i for i, other in enumerate(made) if other == seed and i not in places)
        place = next(left, None)
        if place is None:
            often = "is not" if seed not in chosen[: len(places)] else "is not so often"
            raise ValueError(f"enlarge: seed {seed} {often} in the result, which has {made}")
        places.append(place)
    return places


def _rows(result: Result, rows: list[int]) -> Result:
    """Some images of a result, in an order."""
    return replace(result, x=result.x[rows], seeds=tuple(result.seeds[row] for row in rows))
