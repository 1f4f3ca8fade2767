"""The driver: a tree of plugin generators answered by one batched model call a round.

A ``noise_estimate`` is a generator that yields lists of requests and returns an estimate. Each
request is answered by the next plugin further in, the innermost by the model. The generators
nest by ``yield from``, so what arrives at the top of the tree in one round is everything the
whole stack is waiting for; it is evaluated together, identical requests once.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from composer.arguments import finite
from composer.backends import Backend, Output, checked_outputs, models_of
from composer.errors import NonFiniteError
from composer.images import all_finite
from composer.requests import UNCONDITIONAL, Estimate, Request
from composer.result import Stats

T = TypeVar("T")
Asking = Generator[list[Request], list[Estimate], T]
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


class Model:
    """Answers requests by a backend: deduplicated, in one call, chunked to a memory bound.

    Args:
        max_rows: most images that the network sees at a time; None for no bound.
        stats: counted into; rows are per image.
    """

    def __init__(self, backend: Backend, max_rows: int | None, stats: Stats) -> None:
        self.backend = backend
        self.max_rows = max_rows
        self.stats = stats

    def __call__(self, requests: list[Request]) -> list[Estimate]:
        encoded = [self._encoded(request) for request in requests]
        unique: dict[Hashable, Request] = {}
        for request in encoded:
            unique.setdefault(_identity(request), request)
        began = time.perf_counter()
        outputs = dict(zip(unique, self._evaluate([*unique.values()]), strict=True))
        self.stats.model_seconds += time.perf_counter() - began
        self.stats.requested += len(requests)
        self.stats.evaluated += len(unique)
        self.stats.rows += sum(len(request.x) for request in unique.values())
        for key, output in outputs.items():
            _require_finite(output, unique[key])
        return [self._estimate(request, outputs[_identity(request)]) for request in encoded]

    def _encoded(self, request: Request) -> Request:
        if request.model is not None and request.model not in models_of(self.backend):
            raise ValueError(
                f"a plugin asks for the model {request.model!r} and {type(self.backend).__name__} "
                f"has {sorted(models_of(self.backend)) or 'one only'}"
            )
        finite(request.t, "the t that a plugin's request asks at")
        if request.x.shape[1:] != self.backend.shape:
            raise ValueError(
                f"a plugin asks about an x of shape {tuple(request.x.shape)} and the backend makes "
                f"(B, {', '.join(map(str, self.backend.shape))})"
            )
        condition = UNCONDITIONAL if request.condition is None else request.condition
        return request.replace(condition=self.backend.encode(condition))

    def _evaluate(self, requests: list[Request]) -> list[Output]:
        """One backend call, or as many as ``max_rows`` makes necessary: images are split first,
        so that requests about one image stay together and share what backends share."""
        images = len(requests[0].x)
        bound = self.max_rows or images * len(requests)
        columns: list[list[Output]] = []
        for first in range(0, len(requests), bound):
            group = requests[first : first + bound]
            stride = max(1, bound // len(group))
            rows = [
                self._call(_rows(group, start, start + stride))
                for start in range(0, images, stride)
            ]
            columns += [list(parts) for parts in zip(*rows, strict=True)]
        return [parts[0] if len(parts) == 1 else Output.cat(parts) for parts in columns]

    def _call(self, requests: list[Request]) -> Sequence[Output]:
        self.stats.calls += 1
        who, written = f"{type(self.backend).__name__}.evaluate", [version(r.x) for r in requests]
        outputs = checked_outputs(self.backend.evaluate(requests), requests, who)
        if [version(r.x) for r in requests] != written:
            raise ValueError(f"{who} wrote into a request's x; work on a copy")
        if self.backend.device.type == "cuda":
            torch.cuda.synchronize(self.backend.device)  # or model_seconds would time the launch
        return outputs

    def _estimate(self, request: Request, output: Output) -> Estimate:
        backend = self.backend
        return Estimate(
            output.prediction,
            output.variance,
            request.x,
            request.t,
            backend.schedule,
            backend.prediction,
        )


def _identity(request: Request) -> Hashable:
    beside = tuple((name, id(value)) for name, value in sorted(request.beside.items()))
    return id(request.x), request.t, request.condition, request.model, beside


def _rows(requests: list[Request], start: int, stop: int) -> list[Request]:
    """Rows start to stop of each request; requests that share a tensor share its slice."""
    if start == 0 and stop >= len(requests[0].x):
        return requests
    slices: dict[int, Tensor] = {}

    def cut(tensor: Tensor) -> Tensor:
        # What lies beside all images alike, one row, is not cut.
        return slices.setdefault(id(tensor), tensor if len(tensor) == 1 else tensor[start:stop])

    return [
        replace(r, x=cut(r.x), beside={name: cut(v) for name, v in r.beside.items()})
        for r in requests
    ]


def _require_finite(output: Output, request: Request) -> None:
    parts = [part for part in output if part is not None]
    if not all(all_finite(part) for part in parts):
        raise NonFiniteError(
            f"the model returned NaN or Inf at step {request.step} (t = {request.t:g}) for the "
            f"condition {request.condition!r}; check the weights, or use a wider dtype"
        )
