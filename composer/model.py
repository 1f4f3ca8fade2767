"""The model at the centre of the stack: it answers requests with one batched backend call."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from composer._changed import changed
from composer.arguments import finite
from composer.backend_attributes import models_of
from composer.batch import Batch, Output, grouped
from composer.errors import unstopped
from composer.finiteness import Finiteness
from composer.lent import version
from composer.perturbations import perturbation_of
from composer.protocols import Backend, spread
from composer.requests import UNCONDITIONAL, Each, Estimate, Request
from composer.row_bounds import MaxRows, rows_in_a_call
from composer.stats import Stats
from composer.weights import networks_of


class Model:
    """Answer requests with a backend: without duplicates, in one call, within a memory bound.

    Args:
        max_rows: most rows in one call, as for a Sampler.
        stats: the counts to add to.
        finiteness: notes whether the outputs are finite; None to ignore that.
    """

    def __init__(
        self,
        backend: Backend,
        max_rows: MaxRows,
        stats: Stats,
        finiteness: Finiteness | None = None,
    ) -> None:
        self.backend = backend
        self.max_rows = max_rows
        self.stats = stats
        self.finiteness = finiteness or Finiteness()
        # Read once: some backends search their whole network for them.
        self._device, self._shape = backend.device, tuple(backend.shape)

    def __call__(self, requests: list[Request]) -> list[Estimate]:
        encoded = [self._encoded(request) for request in requests]
        keys = [_identity(request) for request in encoded]
        distinct = dict(zip(keys, encoded, strict=True))
        asked = [*distinct.values()]
        tracked = any(request.x.requires_grad for request in asked)
        gradients = torch.enable_grad() if tracked else nullcontext()
        with self.stats.timing(self._device), gradients:
            batch = batch_of(asked)
            output = self._evaluate(batch)
            answers = _split(output, asked)
        self._note(output, batch, asked[0].step)
        self.stats.requested += len(requests)
        self.stats.evaluated += len(asked)
        if tracked:  # the other requests of the call have no gradient
            pairs = zip(asked, answers, strict=True)
            answers = [a if request.x.requires_grad else _detached(a) for request, a in pairs]
        outputs = dict(zip(distinct, answers, strict=True))
        kind = self.backend.prediction
        return [r.answer(*outputs[key], kind) for key, r in zip(keys, encoded, strict=True)]

    def _note(self, output: Output, batch: Batch, step: int) -> None:
        for part in output:
            if part is not None:
                sentence = partial(_not_finite, step, batch.times, batch.conditions)
                self.finiteness.add(part, sentence)

    def _encoded(self, request: Request) -> Request:
        if request.model is not None:
            self._check_named(request.model)
        finite(request.t, "Request: t")
        if request.x.shape[1:] != self._shape:
            raise ValueError(
                f"Request: x must have the backend's shape "
                f"(B, {', '.join(map(str, self._shape))}), got {tuple(request.x.shape)}."
            )
        condition = UNCONDITIONAL if request.condition is None else request.condition
        known, schedule = encoded(self.backend, condition), self.backend.schedule
        if known is request.condition and request.schedule is schedule:
            return request
        return changed(request, condition=known, schedule=schedule)

    def _check_named(self, model: Any) -> None:
        if perturbation_of(model) is None and model not in models_of(self.backend):
            raise ValueError(
                f"Request: model must be one of {type(self.backend).__name__}'s, "
                f"{sorted(models_of(self.backend)) or 'which has one only'}, got {model!r}."
            )

    def _evaluate(self, batch: Batch) -> Output:
        """Evaluate a batch in one backend call, and one for each perturbation of it."""
        backend, rows, joined = spread(self.backend, batch)
        self.stats.rows += len(rows)
        if not any(map(perturbation_of, {*rows.models})):
            return joined(self._bounded(backend, rows))
        groups = grouped([perturbation_of(model) for model in rows.models])
        outputs = [self._perturbed(backend, rows.take(group)) for group in groups]
        return joined(Output.gathered(outputs, groups))

    def _perturbed(self, backend: Backend, batch: Batch) -> Output:
        """Evaluate rows of one perturbation, or of none."""
        perturbation = perturbation_of(batch.models[0])
        if perturbation is None:
            return self._bounded(backend, batch)
        with perturbation.applied(networks_of(self.backend)):
            return self._bounded(backend, batch.replace(models=(None,) * len(batch)))

    def _bounded(self, backend: Backend, batch: Batch) -> Output:
        """Evaluate rows within ``max_rows``."""
        bound = rows_in_a_call(self.max_rows, batch, self._device)
        if bound >= len(batch):
            return self._call(backend, batch)
        # Keep the rows of one image together, so that backends can share work between them.
        order = sorted(range(len(batch)), key=batch.images.__getitem__)
        parts = [sorted(order[k : k + bound]) for k in range(0, len(order), bound)]
        outputs = [self._call(backend, batch.take(part)) for part in parts]
        return Output.gathered(outputs, parts)

    def _call(self, backend: Backend, batch: Batch) -> Output:
        self.stats.calls += 1
        who, written = f"{type(backend).__name__}.evaluate", version(batch.x)
        output = unstopped(partial(backend.evaluate, batch), who)
        output = checked_output(output, batch.x.shape, who)
        if version(batch.x) != written:
            raise ValueError(f"{who} wrote into the batch's x. Work on a copy.")
        return output


def encoded(backend: Backend, condition: Any) -> Hashable:
    """Encode a condition, or each of several, for ``evaluate``."""
    if isinstance(condition, Each):
        return Each([backend.encode(one) for one in condition.conditions])
    return backend.encode(condition)


def batch_of(requests: Sequence[Request]) -> Batch:
    """The rows of requests, conditions encoded: request by request, image by image."""
    names = requests[0].beside.keys()
    if any(request.beside.keys() != names for request in requests):
        shown = {str(sorted(request.beside)) for request in requests}
        raise ValueError(
            "Request: beside must have the same names in all requests of a round, got "
            f"{' and '.join(sorted(shown))}. Derive requests from the one that the plugin received."
        )
    times: list[float] = []
    conditions: list[Hashable] = []
    images: list[int] = []
    models: list[Any] = []
    numbers: dict[int, list[int]] = {}  # of the images, by the tensor that holds them
    total = 0
    for request in requests:
        count = request.x.shape[0]
        if id(request.x) not in numbers:
            numbers[id(request.x)] = [*range(total, total + count)]
            total += count
        times += [request.t] * count
        conditions += request.conditions
        images += numbers[id(request.x)]
        models += [request.model] * count
    return Batch(
        _joined([request.x for request in requests]),
        tuple(times),
        tuple(conditions),
        tuple(images),
        tuple(models),
        {name: _joined([_beside(request, name) for request in requests]) for name in names},
    )


def _beside(request: Request, name: str) -> Tensor:
    """A further tensor of a request, with a row for each of its images."""
    value = request.beside[name]
    return value.expand(request.x.shape[0], *value.shape[1:])


def evaluated(backend: Backend, requests: Sequence[Request]) -> list[Output]:
    """The output of each request with encoded condition, from one call of a backend.

    This is :class:`Model` without its checks.
    """
    return _split(backend.evaluate(batch_of(requests)), requests)


def _joined(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _split(output: Output, requests: Sequence[Request]) -> list[Output]:
    """The output of each request's rows."""
    counts = [request.x.shape[0] for request in requests]
    predictions = output.prediction.split_with_sizes(counts)
    if output.variance is None:
        return [*map(Output, predictions)]
    return [*map(Output, predictions, output.variance.split_with_sizes(counts))]


def _detached(output: Output) -> Output:
    variance = None if output.variance is None else output.variance.detach()
    return Output(output.prediction.detach(), variance)


def _identity(request: Request) -> Hashable:
    further = request.beside
    beside = tuple((name, id(further[name])) for name in sorted(further)) if further else ()
    return id(request.x), request.t, request.condition, request.model, beside


def _not_finite(step: int, times: Sequence[float], conditions: Sequence[Hashable], row: int) -> str:
    return (
        f"the model returned NaN or Inf at step {step} (t = {times[row]:g}) for the condition "
        f"{conditions[row]!r}. Check the weights, or use a wider dtype."
    )


def checked_output(output: object, shape: Sequence[int], who: str) -> Output:
    """Return the result of ``evaluate``; raise an error unless it is one Output of x's shape."""
    if not isinstance(output, Output):
        raise TypeError(
            f"{who} must return one composer.Output(prediction, variance) of all rows, got "
            f"{type(output).__name__}."
        )
    _check_part("prediction", output.prediction, shape, who)
    if output.variance is not None:
        _check_part("variance", output.variance, shape, who)
    return output


def _check_part(name: str, part: object, shape: Sequence[int], who: str) -> None:
    if not isinstance(part, Tensor) or not part.is_floating_point():
        got = f"a tensor of {part.dtype}" if isinstance(part, Tensor) else type(part).__name__
        raise TypeError(f"{who}: {name} must be a floating-point tensor, got {got}.")
    if part.shape != shape:
        raise ValueError(
            f"{who}: {name} must have the shape {tuple(shape)} of x, got {tuple(part.shape)}. Put "
            "a learned variance into Output.variance."
        )
