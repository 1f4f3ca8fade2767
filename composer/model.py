"""The model at the centre of the stack: requests answered by one batched call of the backend."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from torch import Tensor

from composer.arguments import finite
from composer.finiteness import Finiteness
from composer.lent import version
from composer.protocols import Backend, Output, models_of
from composer.requests import UNCONDITIONAL, Estimate, Request
from composer.stats import Stats


class Model:
    """Answers requests by a backend: deduplicated, in one call, chunked to a memory bound.

    Args:
        max_rows: most images that the network sees at a time; None for no bound.
        stats: counted into; rows are per image.
        finiteness: notes whether the outputs are finite; None for one that nobody reads.
    """

    def __init__(
        self,
        backend: Backend,
        max_rows: int | None,
        stats: Stats,
        finiteness: Finiteness | None = None,
    ) -> None:
        self.backend = backend
        self.max_rows = max_rows
        self.stats = stats
        self.finiteness = finiteness or Finiteness()
        self._device = backend.device  # asked once: some look through a whole network for it

    def __call__(self, requests: list[Request]) -> list[Estimate]:
        encoded = [self._encoded(request) for request in requests]
        keys = [_identity(request) for request in encoded]
        distinct: dict[Hashable, Request] = {}
        for key, request in zip(keys, encoded, strict=True):
            distinct.setdefault(key, request)
        asked = [*distinct.values()]
        with self.stats.timing(self._device):
            outputs = dict(zip(distinct, self._evaluate(asked), strict=True))
        self.stats.requested += len(requests)
        self.stats.evaluated += len(asked)
        self.stats.rows += sum(request.x.shape[0] for request in asked)
        for key, request in distinct.items():
            self._note(outputs[key], request)
        kind = self.backend.prediction
        return [r.answer(*outputs[key], kind) for key, r in zip(keys, encoded, strict=True)]

    def _note(self, output: Output, request: Request) -> None:
        for part in output:
            if part is not None:
                facts = request.step, request.t, request.condition
                self.finiteness.note(part, _not_finite, *facts)

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
        return Request(
            request.x,
            request.t,
            self.backend.encode(condition),
            request.step,
            request.beside,
            (),
            self.backend.schedule,
            request.model,
            request._views,
        )

    def _evaluate(self, requests: list[Request]) -> list[Output]:
        """One backend call, or as many as ``max_rows`` makes necessary: images are split first,
        so that requests about one image stay together and share what backends share."""
        images = requests[0].x.shape[0]
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
        return outputs


def _identity(request: Request) -> Hashable:
    beside = tuple((name, id(value)) for name, value in sorted(request.beside.items()))
    return id(request.x), request.t, request.condition, request.model, beside


def _rows(requests: list[Request], start: int, stop: int) -> list[Request]:
    """Rows start to stop of each request; requests that share a tensor share its slice."""
    if start == 0 and stop >= requests[0].x.shape[0]:
        return requests
    slices: dict[int, Tensor] = {}

    def cut(tensor: Tensor) -> Tensor:
        # What lies beside all images alike, one row, is not cut.
        return slices.setdefault(id(tensor), tensor if len(tensor) == 1 else tensor[start:stop])

    return [
        replace(r, x=cut(r.x), beside={name: cut(v) for name, v in r.beside.items()})
        for r in requests
    ]


def _not_finite(step: int, t: float, condition: Hashable) -> str:
    return (
        f"the model returned NaN or Inf at step {step} (t = {t:g}) for the condition "
        f"{condition!r}; check the weights, or use a wider dtype"
    )


def checked_outputs(outputs: object, requests: Sequence[Request], who: str) -> list[Output]:
    """What ``evaluate`` returned, if it is one Output a request, each of its request's shape."""
    mend = f"{who} must return a list of one composer.Output(prediction, variance) a request"
    if not isinstance(outputs, list | tuple) or not all(isinstance(o, Output) for o in outputs):
        raise TypeError(f"{mend}, got {type(outputs).__name__}")
    if len(outputs) != len(requests):
        raise ValueError(f"{mend}, got {len(outputs)} for {len(requests)}")
    for output, request in zip(outputs, requests, strict=True):
        _check_part("prediction", output.prediction, request, who)
        if output.variance is not None:
            _check_part("variance", output.variance, request, who)
    if len({o.variance is None for o in outputs}) > 1:
        raise ValueError(f"{who} returned a variance with some outputs only; with all or none")
    return list(outputs)


def _check_part(name: str, part: object, request: Request, who: str) -> None:
    if not isinstance(part, Tensor) or not part.is_floating_point():
        raise TypeError(f"{who} returned a {name} that is no tensor of floating point")
    if part.shape != request.x.shape:
        raise ValueError(
            f"{who} returned a {name} of shape {tuple(part.shape)} for x of "
            f"{tuple(request.x.shape)}; split a learned variance off into Output.variance"
        )
