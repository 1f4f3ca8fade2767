"""Requests that plugins send to a model, or to each other."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from composer._changed import changed
from composer._views import Views
from composer.errors import shown
from composer.estimates import KEEP, Estimate, Keep, combine
from composer.generators import generator_of, noise_of
from composer.markers import answers
from composer.perturbations import Perturbation
from composer.predictions import Prediction
from composer.schedules import Schedule
from composer.transforms import Transform
from composer.words import short_repr

__all__ = ["UNCONDITIONAL", "Each", "Estimate", "Request", "combine"]


class _Unconditional:
    """The type of :data:`UNCONDITIONAL`; a singleton, also after copying and pickling."""

    def __repr__(self) -> str:
        return "UNCONDITIONAL"

    def __reduce__(self) -> str:
        return "UNCONDITIONAL"


UNCONDITIONAL: Final = _Unconditional()
"""The condition "no condition"; None means "not yet set"."""


@dataclass(frozen=True, init=False)
class Each:
    """One condition per seed: each image follows the condition of its own seed.

    ``sampler.sample(condition=["a cat", "a dog"], seeds=[0, 1])`` turns its list into an Each. A
    plugin takes an Each in place of any condition: ``Anagram({"identity": Each([6, 7]), ...})``.

    Args:
        conditions: one per seed of the call.

    Raises:
        TypeError: conditions is not a list, or is empty.
    """

    conditions: tuple[Any, ...]

    def __init__(self, conditions: Iterable[Any]) -> None:
        chosen = tuple(conditions) if isinstance(conditions, list | tuple | range) else ()
        if not chosen:
            raise TypeError(
                f"Each: conditions must be a list of one per seed, got {shown(conditions)}."
            )
        object.__setattr__(self, "conditions", chosen)

    def __len__(self) -> int:
        return len(self.conditions)

    def __repr__(self) -> str:
        return f"Each({[*self.conditions]!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Request:
    """A request to the model, or to the plugins between here and the model.

    Args:
        x: the noised image (B, C, H, W).
        t: its time on the backend's schedule.
        condition: a hashable condition, UNCONDITIONAL, an Each, or None for unspecified.
        step: 0-based number of the sampling step.
        beside: further tensors for the model: (B, ., H, W) with the image's layout, such as a
            low-resolution image, on which views act too; or (B,), one number per image, which
            views leave unchanged.
        through: plugins that answer this request before the next ones of the stack.
        schedule: the backend's schedule; the loop fills it in.
        model: the name of one of the backend's ``models``; None for the backend's own model; or a
            :class:`~composer.perturbations.Perturbation` of it.
        origin: for each image the index of its seed, as ``State.origin``; () if image k belongs to
            seed k.
        backend: the backend of the run, whose coder turns latents to images; the loop fills it in.
        t_next: the time that the step goes to; None outside of a run.
        carried: ``State.carried`` of the run, data that a plugin keeps from step to step. A plugin
            may set its own key, to tensors without a gradient.
        views: the views that x is seen through, the first applied first.
        generators: those of the images, from which :meth:`randn` draws; () outside of a run.
    """

    x: Tensor
    t: float
    condition: Any = None
    step: int = 0
    beside: Mapping[str, Tensor] = field(default_factory=dict)
    through: tuple[Any, ...] = ()
    schedule: Schedule | None = None
    model: str | Perturbation | None = None
    origin: tuple[int, ...] = ()
    backend: Any = None
    t_next: float | None = None
    carried: dict[Any, Any] = field(default_factory=dict)
    _views: Views = field(default_factory=Views, repr=False)
    views: tuple[Transform, ...] = ()
    generators: tuple[torch.Generator, ...] = field(default=(), repr=False)

    __repr__ = short_repr

    @property
    def place(self) -> Hashable:
        """The views, condition and model of this request, by which a plugin tells its requests of
        one step apart: ``request.carried[self, request.place]``."""
        return self.views, self.condition, self.model

    @property
    def noise_level(self) -> float:
        """sigma / (alpha + sigma) at t, from 1 (noise) to 0 (image) on every schedule."""
        if self.schedule is None:
            raise ValueError("this Request has no schedule. Pass schedule=backend.schedule.")
        return self.schedule.noise_level(self.t)

    def replace(
        self,
        *,
        x: Tensor | None = None,
        t: float | None = None,
        condition: Hashable = KEEP,
        through: tuple[Any, ...] | None = None,
        model: str | Perturbation | Keep | None = KEEP,
    ) -> Request:
        """A copy with the given fields changed; condition None makes it unspecified, and model
        None means the backend's own. The request for another x carries nothing between steps."""
        return changed(
            self,
            x=self.x if x is None else x,
            t=self.t if t is None else t,
            condition=self.condition if condition is KEEP else condition,
            through=self.through if through is None else through,
            model=self.model if model is KEEP else model,
            carried=self.carried if x is None else {},
        )

    def rows(self, rows: Tensor) -> Request:
        """The same request for the images ``rows``, integers (N,) on the CPU, in their order, each
        with its further tensors and its seed. It carries nothing between steps."""
        origin, kept = self.origin or range(len(self.x)), rows.tolist()
        beside = {n: b if len(b) == 1 else b[rows] for n, b in self.beside.items()}
        return changed(
            self,
            x=self.x[rows],
            beside=beside,
            origin=tuple(origin[k] for k in kept),
            carried={},
            generators=tuple(self.generators[k] for k in kept) if self.generators else (),
        )

    def tracked(self) -> Request:
        """The same request with an x that requires a gradient, through all that answers it; see
        :func:`~composer.authoring.loss_gradient`. Unlike another x, it carries what this carries.
        """
        return changed(self, x=self.x.detach().requires_grad_())

    def randn(self) -> Tensor:
        """Fresh noise ~ N(0, I) of the shape of x, row k from the generator of image k alone.

        Outside of a run it is the same each time, by the numbers of the images' seeds.
        """
        numbers = self.origin or range(len(self.x))
        generators = self.generators or [generator_of(0, number) for number in numbers]
        return noise_of(generators, self.x.shape[1:], self.x.dtype, self.x.device)

    def each(self, value: float | Sequence[float] | Tensor) -> float | Tensor:
        """Numbers for the images of this request (B, 1, 1, 1), from one number per seed (S,).

        A single number is returned unchanged.

        Raises:
            ValueError: there are fewer numbers than seeds.
        """
        if isinstance(value, int | float) or not getattr(value, "ndim", 1):
            return value  # type: ignore[return-value]
        numbers = torch.as_tensor(value).to(self.x.device, self.x.dtype)[:, None, None, None]
        origin = [*(self.origin or range(len(self.x)))]
        if len(numbers) == 1 or origin == [*range(len(numbers))]:
            return numbers
        if len(numbers) <= max(origin):
            raise ValueError(
                f"values must be one for all seeds, or one per seed, got {len(numbers)} for seed "
                f"number {max(origin)}, counted from 0."
            )
        return numbers[origin]

    @property
    def conditions(self) -> tuple[Any, ...]:
        """The condition of each image (B,)."""
        if not isinstance(self.condition, Each):
            return (self.condition,) * self.x.shape[0]
        return tuple(self.condition.conditions[k] for k in self.origin or range(len(self.x)))

    def answer(self, prediction: Tensor, variance: Tensor | None, kind: Prediction) -> Estimate:
        """Make the estimate that answers this request, in a model or a replacement for one.

        Args:
            prediction: (B, C, H, W), of the type ``kind``.
            variance: the learned variance channels (B, C, H, W) in [-1, 1], or None.
        """
        if self.schedule is None:
            raise ValueError("this Request has no schedule. Pass schedule=backend.schedule.")
        views = self._views
        return Estimate(prediction, variance, self.x, self.t, self.schedule, kind, (), views)

    @property
    def identity(self) -> Hashable:
        """A key that is equal for equal requests; tensors are equal only as one object."""
        beside = tuple((n, id(v)) for n, v in self.beside.items()) if self.beside else ()
        asked = self.t, type(self.condition), self.condition, self.step, self.model
        return id(self.x), self.origin, *asked, beside, id(self.schedule), id(self._views)

    def fill(self, condition: Any) -> Request:
        """Set the condition, unless this request already has one.

        A plugin may stand in place of a condition. It then answers this request, even if the
        request has a condition, and sets the conditions of its own requests.
        """
        if answers(condition, "noise_estimate"):
            return self.replace(through=(condition, *self.through))
        return self if self.condition is not None else self.replace(condition=condition)

    def seen_through(self, view: Transform) -> Request:
        """The same request for the image seen through a view."""
        beside = {
            name: self._views.seen(value, view) if value.ndim == 4 else value
            for name, value in self.beside.items()
        }
        x, views = self._views.seen(self.x, view), (*self.views, view)
        return changed(self, x=x, beside=beside, views=views)

    def forget_views(self) -> None:
        """Release the cached views of this request and of all requests derived from it."""
        self._views.clear()
