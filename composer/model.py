"""The model at the centre of the stack: requests answered by one batched call of the backend."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from composer.arguments import finite
from composer.batch import Batch, Output
from composer.finiteness import Finiteness
from composer.lent import version
from composer.protocols import Backend, models_of
from composer.requests import UNCONDITIONAL, Each, Estimate, Request
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
            output = self._evaluate(batch_of(asked))
        self.stats.requested += len(requests)
        self.stats.evaluated += len(asked)
        self.stats.rows += output.prediction.shape[0]
        outputs = dict(zip(distinct, _split(output, asked), strict=True))
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
            encoded(self.backend, condition),
            request.step,
            request.beside,
            (),
            self.backend.schedule,
            request.model,
            request.origin,
            request._views,
        )

    def _evaluate(self, batch: Batch) -> Output:
        """One backend call, or as many as ``max_rows`` makes necessary."""
        bound = self.max_rows or len(batch)
        if bound >= len(batch):
            return self._call(batch)
        # Rows about one image together, for backends that share among them; each part in order.
        order = sorted(range(len(batch)), key=batch.images.__getitem__)
        parts = [sorted(order[k : k + bound]) for k in range(0, len(order), bound)]
        return Output.gathered([self._call(batch.take(rows)) for rows in parts], parts)

    def _call(self, batch: Batch) -> Output:
        self.stats.calls += 1
        who, written = f"{type(self.backend).__name__}.evaluate", version(batch.x)
        output = checked_output(self.backend.evaluate(batch), batch.x.shape, who)
        if version(batch.x) != written:
            raise ValueError(f"{who} wrote into the batch's x; work on a copy")
        return output


def encoded(backend: Backend, condition: Any) -> Hashable:
    """A condition, or each of several, as ``evaluate`` wants it."""
    if isinstance(condition, Each):
        return Each([backend.encode(one) for one in condition.conditions])
    return backend.encode(condition)


def batch_of(requests: Sequence[Request]) -> Batch:
    """The rows of requests, conditions encoded: request by request, image by image."""
    names = {frozenset(request.beside) for request in requests}
    if len(names) > 1:
        raise ValueError(
            "requests of one round must carry the same things beside x, got "
            f"{' and '.join(str(sorted(name)) for name in names)}; derive them from the request "
            "that a plugin was given"
        )
    counts = [len(request.x) for request in requests]
    numbers: dict[int, range] = {}  # of the images, by the tensor that holds them
    total = 0
    for request, count in zip(requests, counts, strict=True):
        if id(request.x) not in numbers:
            numbers[id(request.x)] = range(total, total + count)
            total += count
    return Batch(
        _joined([request.x for request in requests]),
        tuple(t for r, n in zip(requests, counts, strict=True) for t in (r.t,) * n),
        tuple(condition for request in requests for condition in request.conditions),
        tuple(number for request in requests for number in numbers[id(request.x)]),
        tuple(m for r, n in zip(requests, counts, strict=True) for m in (r.model,) * n),
        {
            name: _joined(
                [
                    request.beside[name].expand(count, *request.beside[name].shape[1:])
                    for request, count in zip(requests, counts, strict=True)
                ]
            )
            for name in requests[0].beside
        },
    )


def evaluated(backend: Backend, requests: Sequence[Request]) -> list[Output]:
    """The output of each request, conditions encoded, by one call of a backend; what
    :class:`Model` does, without its checks."""
    return _split(backend.evaluate(batch_of(requests)), requests)


def _joined(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _split(output: Output, requests: Sequence[Request]) -> list[Output]:
    """The output of each request's rows."""
    counts = [len(request.x) for request in requests]
    predictions = output.prediction.split(counts)
    if output.variance is None:
        return [Output(prediction) for prediction in predictions]
    return [*map(Output, predictions, output.variance.split(counts))]


def _identity(request: Request) -> Hashable:
    beside = tuple((name, id(value)) for name, value in sorted(request.beside.items()))
    return id(request.x), request.t, request.condition, request.model, beside


def _not_finite(step: int, t: float, condition: Hashable) -> str:
    return (
        f"the model returned NaN or Inf at step {step} (t = {t:g}) for the condition "
        f"{condition!r}; check the weights, or use a wider dtype"
    )


def checked_output(output: object, shape: Sequence[int], who: str) -> Output:
    """What ``evaluate`` returned, if it is one Output of all rows, of the shape of their x."""
    if not isinstance(output, Output):
        raise TypeError(
            f"{who} must return one composer.Output(prediction, variance) of all rows, got "
            f"{type(output).__name__}"
        )
    _check_part("prediction", output.prediction, shape, who)
    if output.variance is not None:
        _check_part("variance", output.variance, shape, who)
    return output


def _check_part(name: str, part: object, shape: Sequence[int], who: str) -> None:
    if not isinstance(part, Tensor) or not part.is_floating_point():
        raise TypeError(f"{who} returned a {name} that is no tensor of floating point")
    if part.shape != shape:
        raise ValueError(
            f"{who} returned a {name} of shape {tuple(part.shape)} for x of {tuple(shape)}; split "
            "a learned variance off into Output.variance"
        )
