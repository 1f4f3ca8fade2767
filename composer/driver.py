"""The driver: a tree of plugin generators answered by one batched model call a round.

A ``noise_estimate`` is a generator that yields lists of requests and returns an estimate. Each
request is answered by the next plugin further in, the innermost by the model. The generators
nest by ``yield from``, so what arrives at the top of the tree in one round is everything the
whole stack is waiting for; it is evaluated together, identical requests once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from torch import Tensor

from composer.protocols import Asking
from composer.requests import Estimate, Request

T = TypeVar("T")
NoiseEstimate = Callable[[Request], Asking[Estimate]]


class Answer(Protocol):
    """Anything that answers a list of requests in order: the model, or a table in a test."""

    def __call__(self, requests: list[Request], /) -> list[Estimate]: ...


def resolve(request: Request, plugins: Sequence[NoiseEstimate]) -> Asking[Estimate]:
    """Answer one request by the first of ``plugins``, its questions by the rest, then the model."""
    if request.through:
        plugins = (*(plugin.noise_estimate for plugin in request.through), *plugins)
        request = request.replace(through=())
    if not plugins:
        return (yield [request])[0]
    outer, inner = plugins[0], plugins[1:]
    written = version(request.x)
    estimate = yield from converse(outer(request), inner, described(outer))
    if not isinstance(estimate, Estimate):
        raise TypeError(
            f"{described(outer)} returned {type(estimate).__name__}, not an Estimate; combine the "
            "answers with +, -, * and /, and return the result"
        )
    if estimate.prediction.shape != request.x.shape:
        raise ValueError(
            f"{described(outer)} returned a prediction of shape "
            f"{tuple(estimate.prediction.shape)} for x of {tuple(request.x.shape)}"
        )
    if estimate.t != request.t:
        raise ValueError(
            f"{described(outer)} returned an estimate at t = {estimate.t:g} when it was asked at "
            f"t = {request.t:g}; what was kept of another time is replace(x=..., t=...)d first"
        )
    if version(request.x) != written:
        raise ValueError(f"{described(outer)} wrote into request.x; work on a copy")
    return estimate


def converse(asking: Asking[T], plugins: Sequence[NoiseEstimate], who: str) -> Asking[T]:
    """Run one generator to its end, every list it yields answered through ``plugins``."""
    try:
        asked = next(asking)
        while True:
            answers = yield from together([resolve(r, plugins) for r in checked(asked, who)])
            asked = asking.send(answers)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def together(conversations: Sequence[Asking[Estimate]]) -> Asking[list[Estimate]]:
    """Run generators side by side; each round asks at once what all of them are waiting for."""
    results: dict[int, Estimate] = {}
    sends: dict[int, list[Estimate] | None] = dict.fromkeys(range(len(conversations)))
    while sends:
        waiting: dict[int, list[Request]] = {}
        for i, answers in sends.items():
            try:
                waiting[i] = conversations[i].send(answers)  # type: ignore[arg-type]
            except StopIteration as stop:
                results[i] = stop.value
        if not waiting:
            break
        answered = iter((yield [request for asked in waiting.values() for request in asked]))
        sends = {i: [next(answered) for _ in asked] for i, asked in waiting.items()}
    return [results[i] for i in range(len(conversations))]


def drive(asking: Asking[T], answer: Answer) -> T:
    """Run a tree of generators, one call of ``answer`` a round, and return what it returns."""
    try:
        asked = next(asking)
        while True:
            asked = asking.send(answer(asked))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def checked(asked: object, who: str) -> list[Request]:
    """``asked`` if it is a list of requests; otherwise a sentence that names the plugin."""
    if isinstance(asked, list | tuple) and all(isinstance(r, Request) for r in asked):
        return list(asked)
    raise TypeError(
        f"{who} yielded {type(asked).__name__}, not a list of Requests; write "
        "`estimates = yield [request, ...]`, with square brackets around a single request too"
    )


def version(x: Tensor) -> int:
    """How often x was written into; inference tensors do not count."""
    return 0 if x.is_inference() else x._version


def described(function: Callable[..., Any]) -> str:
    """'CFG.noise_estimate' for a bound method, for error messages."""
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__name__", None)  # repr only if need be: it prints whole networks
    if name is None:
        return repr(function)
    return f"{type(owner).__name__}.{name}" if owner is not None else name


def require_generator(function: Callable[..., Any]) -> None:
    """Refuse a ``noise_estimate`` that is no generator function of one request."""
    if not inspect.isgeneratorfunction(function):
        raise TypeError(
            f"{described(function)} is not a generator; it must ask with "
            "`estimates = yield [request]` and return an Estimate"
        )
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        raise TypeError(f"{described(function)} must take one argument, the request") from None
