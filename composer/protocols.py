"""The protocols of the loop: backend and solver, the state of a run, and the stack of a sampler.

They are in one file because each refers to the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor

from composer.backend_attributes import noise_scale_of
from composer.batch import Batch, Output
from composer.generators import noise_of
from composer.images import to_pil
from composer.latents import to_images
from composer.predictions import Prediction
from composer.requests import Estimate, Request
from composer.schedules import Schedule
from composer.words import short

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
Asking = Generator[list[Request], list[Estimate], T]
"""A generator that yields lists of requests, receives their estimates, and returns a T."""


class Backend(Protocol):
    """A model behind the loop.

    Attributes:
        schedule: its path and clock.
        prediction: the type of its output.
        shape: (C, H, W) of its images.
        device, dtype: those of x in the loop.
        default_solver: the solver of a Sampler without one.
    """

    @property
    def schedule(self) -> Schedule: ...
    @property
    def prediction(self) -> Prediction: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def default_solver(self) -> Solver: ...

    def encode(self, condition: Any) -> Hashable:
        """Encode a condition for ``evaluate``; equal conditions give the same object.

        It is never called with None, and returns an encoded condition unchanged.

        Raises:
            ValueError: the backend does not know the condition; the message lists what it knows.
            UnknownNameError: the backend does not know the name; the message says the nearest.
        """
        ...

    def evaluate(self, batch: Batch) -> Output:
        """Evaluate N rows with encoded conditions: one Output (N, C, H, W), in their order."""
        ...


Join = Callable[[Output], Output]
"""The output of rows that a backend spread -> the output of the rows before."""


def spread(backend: Backend, batch: Batch) -> tuple[Backend, Batch, Join]:
    """The backend that computes a batch, the rows that it gets, and how to join their output.

    Most backends compute their own batches. A backend that shows parts of its images to another one
    has a method ``spread(batch) -> (other, rows, join)`` beside ``evaluate``. The loop then counts
    and bounds the rows of the other backend.
    """
    joins: list[Join] = []
    while (own := getattr(backend, "spread", None)) is not None:
        backend, batch, join = own(batch)
        joins.append(join)
    return backend, batch, lambda output: reduce(lambda o, join: join(o), reversed(joins), output)


class Solver(Protocol):
    """Takes the step that no plugin took; registered as the innermost plugin of the stack.

    A class need not inherit it; one that does visits the schedule's own times by default.
    """

    def times(self, schedule: Schedule, num_steps: int) -> list[float]:
        """The times to visit, from noise to the clean image."""
        return schedule.times(num_steps)

    def step(self, state: State, estimate: Estimate) -> Tensor | Asking[Tensor]:
        """The image at ``state.t_next``; mark it with ``composer.hookimpl``.

        ``state.estimate`` is the estimate of the step before. It may be a generator that yields
        requests, like a plugin's ``noise_estimate``.
        """
        ...


@dataclass(eq=False, repr=False)
class State:
    """The state of a run.

    A stream yields copies. A change of ``x`` there, and :meth:`stop`, act on the run; other changes
    do not.

    Attributes:
        x: the current image (B, C, H, W); replace it, never write into it. In ``start`` it is the
            initial noise, with the schedule's ``noise_scale`` as its standard deviation.
        times: the whole plan, from noise to clean; ``start`` hooks may change it. A time noisier
            than the one before it is a RePaint jump.
        position: index in ``times`` of the time that x is at.
        step: 0-based number of the current sampling step.
        estimate: the last combined estimate, None before the first and after a jump.
        condition, seeds, backend, num_inference_steps: as given to the sampler and the call; a list
            of one condition per seed is an Each.
        origin: for each current image, the index of its seed in ``seeds``; one image per seed
            unless a plugin follows several.
        stopped: set by :meth:`stop`.
        beside: further tensors of every request, see Request: (B, ., H, W) with the image's layout,
            such as a low-resolution image, or (B,), one number per image.
        memory: data of plugins for the length of this run, by plugin.
        carried: like ``memory``, with a row per current image: tensors (B, ...), or objects with a
            method ``rows(rows)`` such as an Estimate. :meth:`select` and :meth:`copy` act on them
            as on ``x``. ``noise_estimate`` finds them in ``request.carried``.
        generators: those of the current images, in their order.
        selections: how often images were dropped or copied. A plugin that keeps per-image data
            elsewhere must reset it when this number changes; :meth:`each` needs no reset.
    """

    x: Tensor
    times: list[float]
    condition: Any
    seeds: tuple[int, ...]
    backend: Backend
    num_inference_steps: int
    position: int = 0
    step: int = 0
    estimate: Estimate | None = None
    stopped: bool = False
    beside: dict[str, Tensor] = field(default_factory=dict)
    memory: dict[Any, Any] = field(default_factory=dict)
    carried: dict[Any, Any] = field(default_factory=dict)
    generators: tuple[torch.Generator, ...] = ()
    origin: tuple[int, ...] = ()
    selections: int = 0

    def __post_init__(self) -> None:
        self.origin = self.origin or tuple(range(len(self.seeds)))

    def __repr__(self) -> str:
        times = "at its end" if self.t_next is None else f"to t={self.t_next:g}"
        shown = f"step={self.step}, t={self.t:g} {times}, x={short(self.x)}"
        return f"State({shown}, condition={short(self.condition)}, seeds={short(self.seeds)})"

    @property
    def t(self) -> float:
        """The time that x is at."""
        return self.times[self.position]

    @property
    def t_next(self) -> float:
        """The time after the current step; None at the end of the run, after the last ``step``."""
        left = self.position + 1 < len(self.times)
        return self.times[self.position + 1] if left else None  # type: ignore[return-value]

    @property
    def images(self) -> list[Image.Image]:
        """``x`` as PIL images, that of a latent model decoded; values outside [-1, 1] clipped."""
        return to_pil(to_images(self.backend, self.x))

    @property
    def finished(self) -> bool:
        """Whether no step is left, or a plugin stopped the run."""
        return self.stopped or self.position + 1 >= len(self.times)

    def stop(self) -> None:
        """End the run after this step; ``finish`` still runs, in a stream at its next state."""
        self.stopped = True

    def each(self, batch: Tensor, owner: str) -> Tensor:
        """Images for the current rows, from one for all seeds or one per seed.

        Args:
            batch: (1, ...) or (len(seeds), ...).
            owner: the plugin that messages name.

        Returns:
            (1, ...) or (B, ...).

        Raises:
            ValueError: batch has another number of images.
        """
        if len(batch) not in (1, len(self.seeds)):
            raise ValueError(
                f"{owner}: {len(batch)} images for {len(self.seeds)} seeds. Give one image, or one "
                "per seed."
            )
        return batch if len(batch) == 1 else batch[list(self.origin)]

    def select(self, rows: Tensor) -> None:
        """Keep the images ``rows`` (N,) in their order, each with its seed and generator."""
        kept = rows.tolist()
        self.origin = tuple(self.origin[i] for i in kept)
        self.generators = tuple(self.generators[i] for i in kept)
        self._take(rows)

    def copy(self, rows: Tensor) -> None:
        """Replace image i with image ``rows[i]`` of the same seed; image i keeps its generator."""
        if [self.origin[i] for i in rows.tolist()] != list(self.origin):
            raise ValueError("copy: rows must be one per image, and rows of the image's own seed.")
        self._take(rows)

    def _take(self, rows: Tensor) -> None:
        self.x = self.x[rows]
        self.beside = {n: b if len(b) == 1 else b[rows] for n, b in self.beside.items()}
        self.carried = {
            key: value[rows] if isinstance(value, Tensor) else value.rows(rows)
            for key, value in self.carried.items()
        }
        self.estimate = None if self.estimate is None else self.estimate.rows(rows)
        self.selections += 1

    def randn(self, shape: tuple[int, ...] | None = None) -> Tensor:
        """Fresh noise ~ N(0, I) (B, C, H, W), row k from the generator of image k alone.

        Args:
            shape: (C, H, W), in place of the backend's.
        """
        return draw(self.generators, self.backend, shape)

    def request(self, x: Tensor, t: float) -> Request:
        """The request of this run at (x, t)."""
        return Request(
            x,
            t,
            self.condition,
            self.step,
            self.beside,
            schedule=self.backend.schedule,
            origin=self.origin,
            backend=self.backend,
            t_next=self.t_next,
            carried=self.carried,
            generators=self.generators,
        )

    def snapshot(self) -> State:
        """A copy that is independent of later steps."""
        generators = tuple(torch.Generator().set_state(g.get_state()) for g in self.generators)
        past = self.estimate
        return dataclasses.replace(
            self,
            x=self.x.clone(),
            estimate=past and past.replace(prediction=past.prediction.clone(), x=past.x.clone()),
            times=list(self.times),
            beside=dict(self.beside),
            memory=dict(self.memory),
            carried=dict(self.carried),
            generators=generators,
        )


@dataclass(frozen=True, eq=False)
class Stack:
    """The parts of a Sampler; ``check`` hooks receive it.

    Attributes:
        backend: the model.
        plugins: outermost first.
        solver: takes the steps that no plugin takes.
        times: the plan, from noise to the clean image, before any ``start`` hook changes it.
        num_inference_steps: as given to the Sampler.
    """

    backend: Backend
    plugins: tuple[object, ...]
    solver: Solver
    times: tuple[float, ...]
    num_inference_steps: int


def draw(
    generators: Sequence[torch.Generator],
    backend: Backend,
    shape: tuple[int, ...] | None = None,
) -> Tensor:
    """Noise ~ N(0, I) (B, C, H, W) on the backend's device, one image from each generator.

    The draw is on the generators' device, so that a seed gives the same image on every device.

    Args:
        shape: (C, H, W), in place of the backend's.
    """
    return noise_of(generators, shape or backend.shape, backend.dtype, backend.device)


def initial_noise(generators: Sequence[torch.Generator], backend: Backend) -> Tensor:
    """The initial noise (B, C, H, W) of a run, one image from each generator, scaled by the
    schedule's ``noise_scale``."""
    noise, scale = draw(generators, backend), noise_scale_of(backend)
    return noise if scale == 1 else scale * noise
