"""The law of composition, for a stack of plugins: with f(x) = x the estimate at x is x.

Plugins send views V_i x and combine the answers with linear maps A_i. If sum_i A_i V_i = I, the
sample is the same for all prediction types of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from unittest import SkipTest

from composer.model import Model
from composer.predictions import FLOW, PREDICTIONS, Prediction
from composer.stats import Stats
from composer.testing.checks import TOLERANCE, first, off
from composer.testing.identity import IdentityBackend
from composer.testing.stack_probe import SCHEDULES, Stack, mixture

ADVICE = (
    "the stack leaves the law: sum_i A_i V_i is not the identity, so that its sample depends on "
    "the model's prediction type; let the coefficients sum to one and carry each view back, or, if "
    "this is intended, declare obeys_law = False and work on .noise or .x0"
)


def laws(stack: Stack) -> dict[str, Callable[[], str]]:
    """The laws by name, for both kinds of schedule, all four predictions, and other channels."""
    found: dict[str, Callable[[], str]] = {}
    for clock in SCHEDULES:
        for name, prediction in PREDICTIONS.items():
            found[f"returns_x_{clock}_{name}"] = partial(_returns_x, stack, clock, prediction)
        found[f"same_sample_{clock}"] = partial(_same_sample, stack, clock)
    found["other_channels"] = partial(_other_channels, stack)
    return found


def _returns_x(stack: Stack, clock: str, prediction: Prediction) -> str:
    """With f(x) = x the estimate is x, at three noise levels and at every step of a run.

    To 1e-8 of max|x|, in float64.
    """
    backend = IdentityBackend(stack.shape, SCHEDULES[clock](), prediction)
    sampler = stack.sampler(backend)

    def troubles() -> Iterator[str]:
        for request in stack.requests(backend.schedule):
            seen = stack.estimate(request, Model(backend, None, Stats())).prediction
            what = f"the estimate at noise level {request.noise_level:.2g}, step {request.step},"
            yield off(seen, request.x, TOLERANCE * request.x.abs().max().item(), what)
        for state in sampler.stream(stack.condition, seeds=[0, 1]):
            if state.estimate is not None:
                x = state.estimate.x
                tolerance = TOLERANCE * max(1.0, x.abs().max().item())
                what = f"the estimate at step {state.step}"
                yield off(state.estimate.prediction, x, tolerance, what)

    return first(troubles())


def _same_sample(stack: Stack, clock: str) -> str:
    """With the exact model of a mixture, the sample is the same for all four predictions.

    To 1e-6 of max|x|, in float64, after six steps.
    """
    samples = {}
    for name, prediction in PREDICTIONS.items():
        backend = replace(mixture(stack.shape), schedule=SCHEDULES[clock](), prediction=prediction)
        sampler = stack.sampler(backend)
        samples[name] = sampler.sample(stack.condition, seeds=[0, 1]).x
    reference = samples["v"]
    tolerance = 1e-6 * max(1.0, reference.abs().max().item())
    return first(
        off(x, reference, tolerance, f"the sample with {name}, compared with v,")
        for name, x in samples.items()
    )


def _other_channels(stack: Stack) -> str:
    """The law holds for one channel, or else three; skipped if the stack does not accept them."""
    channels, height, width = stack.shape
    other = replace(stack, shape=(3 if channels == 1 else 1, height, width))
    try:
        other.sampler(mixture(other.shape))
    except (TypeError, ValueError) as error:
        raise SkipTest(f"the stack does not accept images {other.shape}: {error}") from error
    return _returns_x(other, "flow", FLOW)
