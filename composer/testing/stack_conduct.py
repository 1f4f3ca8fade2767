"""Checks of a stack with batches, with a learned variance, and with conditions already set."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from composer.markers import answers
from composer.model import Model
from composer.plugin import conditions_of, is_nested, kind_of
from composer.requests import UNCONDITIONAL, Estimate, Request
from composer.stats import Stats
from composer.testing.checks import TOLERANCE, Contract, first, off
from composer.testing.identity import IdentityBackend
from composer.testing.stack_probe import COMPONENTS, SCHEDULES, Stack, mixture

SEEDS = (0, 1)


def by_image(stack: Stack) -> str:
    """Two images have the same estimates in a batch as alone, and two seeds the same samples.

    To 1e-6 of max|x|, in float64, with the exact model of a mixture. The images belong to two of
    its components, so that their guidance differs.
    """
    backend = mixture(stack.shape)
    model = Model(backend, None, Stats())
    sampler = stack.sampler(backend)

    def pairs() -> Iterator[tuple[str, Tensor, list[Tensor]]]:
        for request in stack.requests(backend.schedule):
            x = backend.schedule.add_noise(backend.means[2:4], request.x, request.t)
            seen, *alone = (
                stack.estimate(request.replace(x=part), model).prediction
                for part in (x, x[:1], x[1:])
            )
            yield f"the estimate at noise level {request.noise_level:.2g}", seen, alone
        seen, *alone = (sampler.sample(stack.condition, s).x for s in (SEEDS, SEEDS[:1], SEEDS[1:]))
        yield "the sample", seen, alone

    def trouble(what: str, together: Tensor, alone: list[Tensor]) -> str:
        expected = torch.cat(alone)
        tolerance = 1e-6 * max(1.0, expected.abs().max().item())
        return off(together, expected, tolerance, what + " of a batch, against those alone,")

    return first(trouble(*pair) for pair in pairs())


def variance(stack: Stack) -> str:
    """The stack keeps the learned variance, carries it back from views, and never extrapolates it.

    If the model's variance is one number per condition, the stack's lies between these numbers. If
    the model adds the square of its input, the stack's lies x^2 higher; this is checked where the
    inputs are x with moved pixels and changed signs only.
    """
    requests = [*stack.requests(SCHEDULES["flow"]())]
    return first(_extrapolated(stack, request) for request in requests) or first(
        _left_in_a_view(stack, request) for request in requests
    )


def leaves_decided_conditions(stack: Stack) -> str:
    """If the request has a condition, each plugin keeps it and does not fill in its own."""
    estimating = [plugin for plugin in stack.plugins if answers(plugin, "noise_estimate")]
    return first(_overruled(replace(stack, plugins=(plugin,))) for plugin in estimating)


def predicts(stack: Stack) -> str:
    """A plugin's estimates have the kind that it declares.

    A Sampler uses the declaration where the plugin stands in place of a condition.
    """

    def trouble(plugin: object) -> str:
        alone = replace(stack, plugins=(plugin,))
        [request, *_] = stack.requests(SCHEDULES["flow"]())
        model = _WithVariance(stack)
        made, said = alone.estimate(request, model).kind, kind_of(plugin, model.prediction)
        who = type(plugin).__name__
        return "" if made == said else f"{who} declares {said.name!r} and returns {made.name!r}"

    return first(trouble(p) for p in stack.plugins if answers(p, "noise_estimate"))


CONDUCT: Contract[Stack] = {
    by_image: "let an image depend on its seed alone: compute means over the last three dimensions "
    "only, and draw with state.randn()",
    variance: "take the variance of one answer, in guidance the conditional one, or their mean, "
    "with .replace(variance=...), and carry answers back from a view with .seen_back(view)",
    leaves_decided_conditions: "set the condition with request.fill(condition), which keeps one "
    "that is set; otherwise guidance outside does nothing",
    predicts: "declare predicts = SAMPLE, or the kind=... of the estimates that it returns",
}
"""The laws of a stack's conduct, and what to do where one is broken."""


class _WithVariance:
    """The model f(x) = x, whose variance is one number per condition, plus share * x^2."""

    def __init__(self, stack: Stack, share: float = 0.0) -> None:
        backend = IdentityBackend(stack.shape, SCHEDULES["flow"]())
        self.model, self.prediction = Model(backend, None, Stats()), backend.prediction
        self.share = share
        self.asked: list[Request] = []
        self.levels: dict[Hashable, float] = {}

    def __call__(self, requests: list[Request]) -> list[Estimate]:
        self.asked += requests
        answers = zip(requests, self.model(requests), strict=True)
        return [answer.replace(variance=self._variance(request)) for request, answer in answers]

    def _variance(self, request: Request) -> Tensor:
        level = self.levels.setdefault(request.condition, float(len(self.levels)))
        return level + self.share * request.x.square()

    def holds(self, variance: Tensor) -> bool:
        """Whether a variance lies between those of the requested conditions."""
        highest = max(self.levels.values(), default=0.0)
        return bool(((variance >= -TOLERANCE) & (variance <= highest + TOLERANCE)).all())


def _extrapolated(stack: Stack, request: Request) -> str:
    model = _WithVariance(stack)
    seen = stack.estimate(request, model).variance
    if seen is None:
        return "the variance that the model learned is dropped"
    if seen.shape != request.x.shape:
        return f"the variance has the shape {tuple(seen.shape)}, not {tuple(request.x.shape)}"
    if model.holds(seen):
        return ""
    given = ", ".join(f"{level:g}" for level in model.levels.values())
    return f"from the model's variances {given} it makes {seen.min():.3g} to {seen.max():.3g}"


def _left_in_a_view(stack: Stack, request: Request) -> str:
    model = _WithVariance(stack, share=1.0)
    seen = stack.estimate(request, model).variance
    if seen is None or not all(_rearranged(r.x, request.x) for r in model.asked):
        return ""
    holds = model.holds(seen - request.x.square())
    return "" if holds else "the variance is not carried back from a view"


def _rearranged(x: Tensor, image: Tensor) -> bool:
    """Whether x is the image with pixels moved and signs changed."""
    one, other = (y.abs().flatten(1).sort().values for y in (x, image))
    return one.shape == other.shape and torch.allclose(one, other)


def _overruled(stack: Stack) -> str:
    [plugin] = stack.plugins
    own = set(_filled_in(plugin)) - {UNCONDITIONAL}
    free = [k for k in range(COMPONENTS) if k not in own]
    asked = {d: _asked(stack, d) for d in (UNCONDITIONAL, *free[:1])}
    who = type(plugin).__name__
    # Guidance of scale 0 requests UNCONDITIONAL only, and must do so.
    if not any(decided in answered for decided, answered in asked.items()):
        decided, answered = [*asked.items()][-1]
        return f"for a request with condition {decided!r}, {who} requests {[*answered]} only"
    return first(
        f"for a request with condition {decided!r}, {who} fills in {condition!r}"
        for decided, answered in asked.items()
        for condition in answered
        if condition in own
    )


def _asked(stack: Stack, condition: Any) -> dict[Hashable, None]:
    """The conditions that reach the model if the request has one."""
    model = _WithVariance(stack)
    for request in stack.requests(SCHEDULES["flow"]()):
        stack.estimate(request.replace(condition=condition), model)
    return dict.fromkeys(request.condition for request in model.asked)


def _filled_in(plugin: object) -> Iterator[Hashable]:
    for condition in conditions_of(plugin):
        yield from _filled_in(condition) if is_nested(condition) else (condition,)
