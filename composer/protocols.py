"""What the loop speaks to: a backend, a solver, the state of a run, and the stack of a sampler.

They stand in one file because each names the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor

from composer.batch import Batch, Output
from composer.images import to_pil
from composer.predictions import Prediction
from composer.requests import Estimate, Request
from composer.schedules import DiscreteSchedule, Schedule
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
        prediction: what its output means.
        shape: (C, H, W) of its images.
        device, dtype: where and in what the loop keeps x.
        default_solver: the solver to use when none is named.
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
        """The condition as ``evaluate`` wants it, the same object for the same condition.

        Never called with None. Called again on what it returned, it returns that.

        Raises:
            ValueError: the backend cannot express the condition; the sentence says what it can.
            UnknownNameError: a name that the backend does not know; it says the nearest.
        """
        ...

    def evaluate(self, batch: Batch) -> Output:
        """Answer N rows, conditions encoded: one Output (N, C, H, W), in the order of the rows."""
        ...


def models_of(backend: Backend) -> tuple[str, ...]:
    """The names of the further models behind a backend: its optional attribute ``models``."""
    return tuple(getattr(backend, "models", ()))


def image_shape_of(backend: Backend) -> tuple[int, int, int]:
    """(C, H, W) of finished images: its optional attribute ``image_shape``, of a latent model whose
    ``finish`` decodes x; otherwise ``shape``."""
    shape: tuple[int, int, int] = getattr(backend, "image_shape", backend.shape)
    return shape


def noise_scale_of(backend: Backend) -> float:
    """How wide the noise is that a run begins with: its schedule's optional ``noise_scale``, 1 for
    most paths."""
    return float(getattr(backend.schedule, "noise_scale", 1.0))


def low_res_schedule_of(backend: Backend) -> DiscreteSchedule | None:
    """On which an enlarging model's low-resolution image is noised: its optional attribute
    ``low_res_schedule``; None for a model that enlarges nothing."""
    schedule: DiscreteSchedule | None = getattr(backend, "low_res_schedule", None)
    return schedule


class Solver(Protocol):
    """Takes the step that no plugin took; registered as the innermost plugin of the stack."""

    def times(self, schedule: Schedule, num_steps: int) -> list[float]:
        """The times to visit, from noise to the clean image; ``schedule.times`` for most."""
        ...

    def step(self, state: State, estimate: Estimate) -> Tensor | Asking[Tensor]:
        """The image at ``state.t_next``; mark it with ``composer.hookimpl``.

        ``state.estimate`` is the estimate of the step before. May be a generator that yields
        requests, like a plugin's ``noise_estimate``.
        """
        ...


@dataclass(eq=False, repr=False)
class State:
    """Where a run is.

    A stream hands out copies: what is set of ``x`` there, and :meth:`stop`, acts on the run; the
    rest is for reading.

    Attributes:
        x: the current image (B, C, H, W); replace it, never write into it. In ``start`` it is the
            initial noise, as wide as ``noise_scale`` of the schedule.
        times: the whole plan, from noise to clean; ``start`` hooks may change it. A time noisier
            than the one before it is a RePaint jump.
        position: index in ``times`` of the time that x is at.
        step: 0-based number of the current sampling step.
        estimate: the last combined estimate, None before the first and after a jump.
        condition, seeds, backend, num_inference_steps: as given to the sampler and the call; a list
            of one condition a seed is an Each.
        origin: for each image of now, the index in ``seeds`` of the seed it belongs to; one image
            a seed unless a plugin follows several.
        stopped: set by :meth:`stop`.
        beside: tensors that every request carries beside x, see Request: (B, ., H, W) laid out
            like the image, such as a low-resolution conditioning, or (B,), a number an image.
        memory: what plugins keep for the length of this run, by plugin.
        generators: of the images of now, in their order.
        selections: how often images were dropped or copied; who keeps something of each image
            between steps, beyond what :meth:`each` gives, must start anew when it changes.
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
        """The time that the current step goes to; None at the end, which no ``step`` sees."""
        left = self.position + 1 < len(self.times)
        return self.times[self.position + 1] if left else None  # type: ignore[return-value]

    @property
    def images(self) -> list[Image.Image]:
        """``x`` as PIL images, values outside [-1, 1] clipped."""
        return to_pil(self.x)

    @property
    def finished(self) -> bool:
        """Whether no step is left, or a plugin stopped the run."""
        return self.stopped or self.position + 1 >= len(self.times)

    def stop(self) -> None:
        """End the run after this step; ``finish`` still runs, of a stream when it is read on."""
        self.stopped = True

    def each(self, batch: Tensor, owner: str) -> Tensor:
        """What was given for all seeds (1, ...), or for each (len(seeds), ...), for the images of
        now: (1, ...) or (B, ...).

        Raises:
            ValueError: another number of images was given; ``owner`` says by whom.
        """
        if len(batch) not in (1, len(self.seeds)):
            raise ValueError(
                f"{owner}: {len(batch)} images for {len(self.seeds)} seeds; give one image, or "
                "one a seed"
            )
        return batch if len(batch) == 1 else batch[list(self.origin)]

    def select(self, rows: Tensor) -> None:
        """Keep the images ``rows`` (N,) in their order, each with its seed and generator."""
        kept = rows.tolist()
        self.origin = tuple(self.origin[i] for i in kept)
        self.generators = tuple(self.generators[i] for i in kept)
        self._take(rows)

    def copy(self, rows: Tensor) -> None:
        """Image i becomes what image ``rows[i]``, of the same seed, is; its later draws remain its
        own."""
        if [self.origin[i] for i in rows.tolist()] != list(self.origin):
            raise ValueError("copy: give one row an image, and rows of the image's own seed")
        self._take(rows)

    def _take(self, rows: Tensor) -> None:
        self.x = self.x[rows]
        self.beside = {n: b if len(b) == 1 else b[rows] for n, b in self.beside.items()}
        self.estimate = None if self.estimate is None else self.estimate.rows(rows)
        self.selections += 1

    def randn(self, shape: tuple[int, ...] | None = None) -> Tensor:
        """Fresh noise ~ N(0, I) (B, C, H, W), row k from the generator of image k alone.

        Args:
            shape: (C, H, W), in place of the backend's.
        """
        return draw(self.generators, self.backend, shape)

    def request(self, x: Tensor, t: float) -> Request:
        """The question this run asks at (x, t)."""
        schedule = self.backend.schedule
        return Request(
            x, t, self.condition, self.step, self.beside, schedule=schedule, origin=self.origin
        )

    def snapshot(self) -> State:
        """A copy that later steps leave as it is, and that leaves them alone."""
        generators = tuple(torch.Generator().set_state(g.get_state()) for g in self.generators)
        past = self.estimate
        return dataclasses.replace(
            self,
            x=self.x.clone(),
            estimate=past and past.replace(prediction=past.prediction.clone(), x=past.x.clone()),
            times=list(self.times),
            beside=dict(self.beside),
            memory=dict(self.memory),
            generators=generators,
        )


@dataclass(frozen=True, eq=False)
class Stack:
    """What a Sampler is made of; ``check`` hooks receive it.

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

    It is drawn on the generators' device, so that a seed gives the same image everywhere.

    Args:
        shape: (C, H, W), in place of the backend's.
    """
    images, device = shape or backend.shape, backend.device
    first = generators[0].device
    noise = torch.empty((len(generators), *images), dtype=backend.dtype, device=first)
    for row, generator in zip(noise.split(1), generators, strict=True):
        torch.randn(row.shape, generator=generator, out=row)
    if device.type == "cuda" and noise.device.type == "cpu":
        # From pinned memory, or the copy would wait for all that the device has yet to do.
        return noise.pin_memory().to(device, non_blocking=True)
    return noise.to(device)


def initial_noise(generators: Sequence[torch.Generator], backend: Backend) -> Tensor:
    """The noise (B, C, H, W) that runs begin with, one image from each generator: as wide as the
    backend's schedule says."""
    noise, scale = draw(generators, backend), noise_scale_of(backend)
    return noise if scale == 1 else scale * noise
