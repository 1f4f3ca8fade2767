"""The law of composition, for a stack of plugins: over f(x) = x the estimate at x is x.

Plugins ask about views V_i x and combine the answers with linear maps A_i. If sum_i A_i V_i = I,
the sample is the same whichever prediction type the model speaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from composer.predictions import PREDICTIONS, Prediction
from composer.sampler import Sampler
from composer.schedules import DiscreteSchedule, FlowSchedule, Schedule
from composer.stack import check_encodable, checked_plugins, hooked, sets_conditions
from composer.testing.checks import Check, first, off, run_all
from composer.testing.gaussian_mixture import GaussianMixtureBackend
from composer.testing.identity import IdentityBackend
from composer.testing.probe import Shape, checked_shape, noise
from composer.transforms import TOLERANCE

COMPONENTS = 10
STEPS = 6
LEVELS = (0.9, 0.5, 0.1)
MEND = (
    "the stack leaves the law: sum_i A_i V_i is not the identity, so that its sample depends on "
    "how the model expresses its prediction; let the coefficients sum to one and each view be "
    "undone, or, if it is meant, say so in its docstring and work on .noise or .x0"
)


class _FlowInside(FlowSchedule):
    """Flow times from 0.02: at pure noise a prediction of the noise says nothing of the image."""

    def times(self, num_steps: int) -> list[float]:
        return [0.02 + 0.98 * t for t in super().times(num_steps)]


SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "flow": _FlowInside,
    "discrete": DiscreteSchedule.linear,
}


@dataclass(frozen=True)
class Stack:
    """Plugins, the condition of the call, and the shape (C, H, W) of the images."""

    plugins: tuple[object, ...]
    condition: Any
    shape: Shape


def stack_checks(
    plugins: Sequence[object], *, condition: Any = None, shape: Shape = (3, 32, 32)
) -> list[Check]:
    """The named checks of a stack: the law for both kinds of schedule and all four predictions.

    Args:
        plugins: [outer, ..., inner], as for :class:`~composer.Sampler`; conditions are the
            components 0 to 9 of a mixture of Gaussians.
        condition: of the call; None for component 1, unless the plugins set conditions.
        shape: (C, H, W) of the images.

    Raises:
        TypeError, ValueError: no plugins, no such condition, or no shape.
    """
    plugins = checked_plugins(plugins)
    hooked(plugins)
    if condition is None and not any(sets_conditions(plugin) for plugin in plugins):
        condition = 1
    if condition is not None:
        check_encodable(_mixture((1, 1, 1)), condition, "condition")
    stack = Stack(plugins, condition, checked_shape(shape))
    subject = f"[{', '.join(type(plugin).__name__ for plugin in plugins)}]"
    laws: dict[str, Callable[[], str]] = {}
    for clock in SCHEDULES:
        for name, prediction in PREDICTIONS.items():
            laws[f"returns_x_{clock}_{name}"] = partial(_returns_x, stack, clock, prediction)
        laws[f"same_sample_{clock}"] = partial(_same_sample, stack, clock)
    return [Check(subject, name, law, MEND) for name, law in laws.items()]


def check_stack(
    plugins: Sequence[object], *, condition: Any = None, shape: Shape = (3, 32, 32)
) -> None:
    """Run all :func:`stack_checks`; plugins that leave the law on purpose fail them too.

    Raises:
        CheckFailed: every check that failed, why, and what to mend.
    """
    run_all(stack_checks(plugins, condition=condition, shape=shape))


def _returns_x(stack: Stack, clock: str, prediction: Prediction) -> str:
    """Over f(x) = x the estimate is x: at three noise levels, and at every step of a run.

    To 1e-8 of max|x|, in float64.
    """
    schedule = SCHEDULES[clock]()
    backend = IdentityBackend(stack.shape, schedule, prediction)
    sampler = Sampler(backend, stack.plugins, num_inference_steps=STEPS)

    def troubles() -> Iterator[str]:
        x = noise(stack.shape, 2)
        tolerance = TOLERANCE * x.abs().max().item()
        for level in LEVELS:
            seen = sampler.denoise(x, schedule.time_at(level), stack.condition).prediction
            yield off(seen, x, tolerance, f"the estimate at noise level {level}")
        for state in sampler.stream(stack.condition, seeds=[0, 1]):
            if state.estimate is not None:
                x = state.estimate.x
                tolerance = TOLERANCE * max(1.0, x.abs().max().item())
                what = f"the estimate at step {state.step}"
                yield off(state.estimate.prediction, x, tolerance, what)

    return first(troubles())


def _same_sample(stack: Stack, clock: str) -> str:
    """Over the exact model of a mixture, the sample is the same for all four predictions.

    To 1e-6 of max|x|, in float64, after six steps.
    """
    samples = {}
    for name, prediction in PREDICTIONS.items():
        backend = replace(_mixture(stack.shape), schedule=SCHEDULES[clock](), prediction=prediction)
        sampler = Sampler(backend, stack.plugins, num_inference_steps=STEPS)
        samples[name] = sampler.sample(stack.condition, seeds=[0, 1]).x
    reference = samples["v"]
    tolerance = 1e-6 * max(1.0, reference.abs().max().item())
    return first(
        off(x, reference, tolerance, f"the sample by {name} against that by v")
        for name, x in samples.items()
    )


def _mixture(shape: Shape) -> GaussianMixtureBackend:
    """Ten random images (C, H, W), each a component."""
    generator = torch.Generator().manual_seed(7)
    means = torch.rand((COMPONENTS, *shape), generator=generator, dtype=torch.float64) * 2 - 1
    return GaussianMixtureBackend(means, [0.1 + 0.02 * k for k in range(COMPONENTS)])
