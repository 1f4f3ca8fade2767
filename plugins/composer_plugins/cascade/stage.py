"""One model of a cascade, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from composer import Backend
from composer.authoring import (
    checked_backend,
    checked_plugins,
    hooks_of,
    image_shape_of,
    short_repr,
)
from composer.solvers import Solver
from composer_plugins.editing.super_resolution import SuperResolution

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False, repr=False)
class Stage:
    """One model of a cascade, and how it is run.

    Args:
        backend: the model.
        plugins: plugins of this stage alone, inside those of the cascade; often ``[CFG(scale)]``.
        solver, num_inference_steps, max_rows: as of a Sampler.
        enlarge: called with the images of the stage before, (B, C, h, w) in [-1, 1], one per seed;
            returns the plugin that shows them to the model, such as ``SuperResolution``, or
            ``partial(SuperResolution, noise_level=100)``. Not used in the first stage.
        plain: run without the plugins of the cascade, as a last stage that only sharpens.
        condition: condition of a plain stage, in place of the call's or of the plugins' finest one.
    """

    backend: Backend
    plugins: Sequence[object] = ()
    solver: Solver | None = None
    num_inference_steps: int = 20
    max_rows: int | Literal["auto"] | None = "auto"
    enlarge: Callable[[Tensor], object] = SuperResolution
    plain: bool = False
    condition: Any = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        checked_backend(self.backend)
        checked_plugins(self.plugins)
        if not callable(self.enlarge):
            raise TypeError(
                f"Stage: enlarge must be a function from images to a plugin, got {self.enlarge!r}. "
                "Use for example SuperResolution."
            )
        if self.condition is not None and not self.plain:
            raise ValueError(
                "Stage: condition must be None unless the stage is plain. Set plain=True, or give "
                "the condition to the call."
            )

    def link(self, before: Tensor) -> object:
        """The plugin that gives the model the images to enlarge."""
        # Clipped as an image file is, because models are trained on images within the range.
        plugin = self.enlarge(before.clamp(-1, 1))
        if not hooks_of(plugin):
            raise TypeError(f"Stage: enlarge must return a plugin, got {type(plugin).__name__}.")
        return plugin

    @property
    def image_shape(self) -> Shape:
        """(C, H, W) of the images it makes; a latent model makes larger images than it denoises."""
        return image_shape_of(self.backend)
