"""A backend that holds a second, weaker model."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from torch import nn

from composer import Backend, Batch, Output, load_backend
from composer.authoring import (
    BackendWrapper,
    checked_backend,
    differentiable_of,
    grouped,
    hooks_of,
    networks_of,
)
from composer.reparametrised import Reparametrised


@dataclass(frozen=True)
class Encoded:
    """One condition in the terms of both models."""

    main: Hashable
    weak: Hashable


@dataclass(frozen=True, eq=False, repr=False)
class WithWeak(BackendWrapper):
    """``main``, and beside it a model that requests reach by ``request.replace(model="weak")``.

    In all else it equals ``main``. A weak model on another path, or of another prediction type, is
    converted exactly to main's (:class:`~composer.reparametrised.Reparametrised`). Requests to both
    are one call of this backend; a row of the weak model counts as a row.

    Args:
        main: the model to sample; it must not answer hooks.
        weak: a model of the same images, on the same device.
    """

    main: Backend
    weak: Backend

    models = ("weak",)

    def __post_init__(self) -> None:
        for name in ("main", "weak"):
            object.__setattr__(self, name, checked_backend(getattr(self, name)))
        for name in ("shape", "device", "dtype"):
            ours, theirs = getattr(self.main, name), getattr(self.weak, name)
            if ours != theirs:
                raise ValueError(
                    f"WithWeak: main and weak must be of one {name}, got {ours} and {theirs}."
                )
        for backend in (self.main, self.weak):
            if hooks_of(backend):
                raise ValueError(
                    f"WithWeak: main and weak must not answer hooks, got {type(backend).__name__}. "
                    "Use it as the backend of Sampler."
                )

    @property
    def inner(self) -> Backend:
        return self.main

    @property
    def differentiable(self) -> bool:
        return differentiable_of(self.main) and differentiable_of(self.weak)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Of both models."""
        models = {"main": self.main, "weak": self.weak}
        return {
            f"{owner}.{name}": network
            for owner, model in models.items()
            for name, network in networks_of(model).items()
        }

    @cached_property
    def shown(self) -> Backend:
        """The weak model on main's path."""
        path = self.main.schedule, self.main.prediction
        if (self.weak.schedule, self.weak.prediction) == path:
            return self.weak
        return Reparametrised(self.weak, *path, self.main.default_solver)

    def encode(self, condition: Any) -> Encoded:
        if isinstance(condition, Encoded):
            return condition
        return Encoded(self.main.encode(condition), self.weak.encode(condition))

    def evaluate(self, batch: Batch) -> Output:
        groups = grouped(batch.models)
        outputs = [self._answer(batch.take(rows)) for rows in groups]
        return Output.gathered(outputs, groups)

    def _answer(self, batch: Batch) -> Output:
        """The output of rows that ask one model."""
        own = batch.models[0] is None
        asked = [c.main if own else c.weak for c in cast("tuple[Encoded, ...]", batch.conditions)]
        return (self.main if own else self.shown).evaluate(batch.replace(conditions=asked))


def load_with_weak(
    main: str = "mnist", weak: str = "mnist", weak_weights: str | None = None
) -> Backend:
    """Load a backend for autoguidance: a model with a weaker one beside it.

    Args:
        main, weak: names of backends.
        weak_weights: ``weights`` of the weak model, such as the folder of an early checkpoint; None
            for its default.
    """
    options = {} if weak_weights is None else {"weights": weak_weights}
    return WithWeak(load_backend(main), load_backend(weak, **options))
