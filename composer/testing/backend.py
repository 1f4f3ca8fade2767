"""The contract of backends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor

from composer._checks import checked_backend, checked_solver
from composer.arguments import positive, sequence
from composer.batch import Output
from composer.model import batch_of, checked_output, evaluated
from composer.protocols import Backend
from composer.requests import UNCONDITIONAL, Request
from composer.sampler import Sampler
from composer.testing.checks import Check, Contract, checks_of, first, in_words, off, run_all
from composer.testing.probe import noise

LEVELS = (0.8, 0.2)
"""Noise levels at which a model is asked."""
NOISY = 0.7
"""The noise level at which a model says what it predicts. Of the shipped models, rightly declared,
the clean image holds at most .14 of the noise there, of any other declaration at least .27."""


@dataclass(frozen=True)
class Examined:
    """A backend, and what to ask it.

    Args:
        backend: the backend.
        conditions: conditions that it knows.
        beside: what its requests carry beside x.
        tolerance: how far two answers may be apart, as a share of the largest value.
        trained: whether its network is.
    """

    backend: Backend
    conditions: tuple[Any, ...]
    beside: Mapping[str, Tensor] = field(default_factory=dict)
    tolerance: float = 1e-3
    trained: bool = True

    @cached_property
    def x(self) -> Tensor:
        """Two images of noise."""
        drawn = noise(self.backend.shape, 2)
        return drawn.to(self.backend.device, self.backend.dtype)

    def request(self, condition: Any, level: float, x: Tensor) -> Request:
        """A question about x at a noise level."""
        schedule, encoded = self.backend.schedule, self.backend.encode(condition)
        time = schedule.time_at(level)
        return Request(x, time, encoded, beside=self.beside, schedule=schedule)

    def requests(self, x: Tensor | None = None) -> list[Request]:
        """All conditions at all levels about one x, as a stack of plugins may ask them at once; by
        default about a new copy of the two images, which a backend may spoil."""
        seen = self.x.clone() if x is None else x
        return [self.request(c, level, seen) for c in self.conditions for level in LEVELS]

    @cached_property
    def outputs(self) -> Sequence[Output]:
        """What the backend returns for all of them, as most laws want it."""
        with torch.no_grad():
            return evaluated(self.backend, self.requests())

    @property
    def usual(self) -> list[Tensor]:
        """The predictions for all of them."""
        return [output.prediction for output in self.outputs]

    @torch.no_grad()
    def answers(self, requests: Sequence[Request]) -> list[Tensor]:
        """The predictions; see ``answers_each_row`` for what is checked of them."""
        return [output.prediction for output in evaluated(self.backend, requests)]

    def apart(self, seen: Sequence[Tensor], expected: Sequence[Tensor], what: str) -> str:
        """How two lists of answers differ, "" if they do not."""
        largest = max(1e-6, *(e.abs().max().item() for e in expected))
        pairs = zip(seen, expected, strict=True)
        return first(off(s, e, self.tolerance * largest, what) for s, e in pairs)


def has_its_attributes(examined: Examined) -> str:
    """Device, dtype, prediction, shape and schedule, as objects or names; a solver object."""
    checked_backend(examined.backend)
    checked_solver(examined.backend.default_solver)
    return ""


def encodes_conditions(examined: Examined) -> str:
    """A condition is encoded as something hashable, equal each time, and again as itself."""
    return first(_misencoded(examined.backend, c) for c in examined.conditions)


def refuses_in_a_sentence(examined: Examined) -> str:
    """Of what is no condition ``encode`` raises ValueError, TypeError or UnknownNameError."""
    for junk in ("no such condition \0", object(), -1, float("nan"), ()):
        try:
            examined.backend.encode(junk)
        except (ValueError, TypeError, LookupError) as error:
            if isinstance(error, KeyError | IndexError):
                return f"encode({in_words(junk)}) raises {type(error).__name__}: {error}"
    return ""


def answers_each_row(examined: Examined) -> str:
    """One Output of all rows, of the shape, device and dtype of x."""
    batch = batch_of(examined.requests())
    with torch.no_grad():
        output = checked_output(examined.backend.evaluate(batch), batch.x.shape, "evaluate")
    return _unlike(output.prediction, examined.x)


def is_deterministic(examined: Examined) -> str:
    """The same requests have the same answers, and torch's global random state is as it was."""
    once, before = examined.usual, torch.get_rng_state()
    again = examined.answers(examined.requests())
    if not torch.equal(before, torch.get_rng_state()):
        return "evaluate draws from torch's global random state"
    return examined.apart(again, once, "the answer to the same requests")


def answers_alone_and_together(examined: Examined) -> str:
    """What else is asked in a call, and in which order, changes no answer."""
    together, singles = examined.usual, examined.requests()
    alone = [examined.answers([request])[0] for request in singles]
    turned = examined.answers(examined.requests()[::-1])[::-1]
    return examined.apart(together, alone, "an answer, asked with others,") or examined.apart(
        turned, alone, "an answer, asked in another order,"
    )


def answers_image_by_image(examined: Examined) -> str:
    """An image has the answer in a batch that it has alone."""
    if any(len(value) > 1 for value in examined.beside.values()):
        raise SkipTest("what lies beside the images is not the same for each")
    together = examined.usual
    for k, x in enumerate(examined.x.split(1)):
        alone = examined.answers(examined.requests(x.clone()))
        rows = [answer[k : k + 1] for answer in together]
        if trouble := examined.apart(rows, alone, "the answer about an image of a batch"):
            return trouble
    return ""


def answers_equal_tensors_equally(examined: Examined) -> str:
    """Requests about one tensor may share work; about an equal one they have the same answer."""
    requests = examined.requests()
    copies = [request.replace(x=request.x.clone()) for request in requests]
    seen = examined.answers(copies)
    return examined.apart(seen, examined.usual, "the answer about a copy of x")


def leaves_x_alone(examined: Examined) -> str:
    """``evaluate`` does not write into the batch's x."""
    batch = batch_of(examined.requests())
    before = batch.x.clone()
    with torch.no_grad():
        examined.backend.evaluate(batch)
    return "" if torch.equal(batch.x, before) else "evaluate writes into the batch's x"


def answers_rows_of_any_condition(examined: Examined) -> str:
    """Images of one call may each have their own condition and time."""
    batch = batch_of(examined.requests())
    rows = [*range(0, len(batch), 3), *range(1, len(batch), 3), *range(2, len(batch), 3)]
    with torch.no_grad():
        mixed = examined.backend.evaluate(batch.take(rows)).prediction
    usual = torch.cat(examined.usual)[rows]
    return examined.apart([mixed], [usual], "the answer of rows in another order")


def predicts_what_it_says(examined: Examined) -> str:
    """Asked about a grey image and noise, the model finds that noise, and a clean image that holds
    less than a fifth of it."""
    if not examined.trained:
        raise SkipTest("only a trained network says what it predicts")
    return first(_misread(examined, condition) for condition in examined.conditions)


def samples(examined: Examined) -> str:
    """Two steps with the default solver make images."""
    if examined.beside:
        raise SkipTest("a run needs the plugin that lays tensors beside the images")
    sampler = Sampler(examined.backend, num_inference_steps=2)
    for condition in examined.conditions:
        x = sampler.sample(condition, seeds=[0, 1]).x
        if not bool(x.isfinite().all()):
            return f"images of {in_words(condition)} have NaN or Inf"
    return ""


CONTRACT: Contract[Examined] = {
    has_its_attributes: "give the attribute as docs/write-a-backend.md says",
    encodes_conditions: "return something hashable, the same for the same condition, and return it "
    "again when it is given back",
    refuses_in_a_sentence: "raise a ValueError that says what the backend can make",
    answers_each_row: "return one Output(prediction, variance) of all rows, in the dtype and "
    "on the device of the backend",
    is_deterministic: "call net.eval(), and draw nothing in evaluate",
    answers_alone_and_together: "give each row its own time and condition, and return the answers "
    "in the order of the rows",
    answers_image_by_image: "call net.eval(), and take no means over the batch",
    answers_rows_of_any_condition: "give each row its own time and condition",
    answers_equal_tensors_equally: "tell images apart by batch.images only to share work",
    leaves_x_alone: "work on a copy",
    predicts_what_it_says: "say the prediction and the schedule that the network was trained with, "
    "and give it times as it was trained; trained=False leaves this check out",
    samples: "mend the solver or the network",
}
"""What a backend keeps, and what to do where it does not."""


def backend_checks(
    backend: Backend,
    conditions: Sequence[Any] = (),
    *,
    trained: bool = True,
    beside: Mapping[str, Tensor] | None = None,
    tolerance: float = 1e-3,
) -> list[Check]:
    """The named checks of a backend.

    Args:
        backend: the backend; n conditions take some 7 + 5 n calls, each about one or two images.
        conditions: some that it knows; no condition is examined too, if it can be encoded.
        trained: False for a network that is not: what it predicts is then not compared with what
            the backend says that it predicts.
        beside: tensors that its requests carry beside x, (1, ., H, W) or (1,), such as the
            low-resolution image of an enlarging model.
        tolerance: how far answers that should be equal may be apart, as a share of the largest
            value; about 0.05 for a network in bfloat16.

    Raises:
        TypeError, ValueError: no backend, or no condition to ask it about.
    """
    backend = checked_backend(backend)
    chosen = (*_unconditional(backend), *sequence(conditions, "conditions"))
    if not chosen:
        raise ValueError(
            f"check_backend: {type(backend).__name__} does not encode UNCONDITIONAL. Give "
            "conditions that it knows."
        )
    allowed = positive(tolerance, "check_backend: tolerance")
    examined = Examined(backend, chosen, beside or {}, allowed, trained)
    return checks_of(CONTRACT, examined, type(backend).__name__)


def check_backend(
    backend: Backend,
    conditions: Sequence[Any] = (),
    *,
    trained: bool = True,
    beside: Mapping[str, Tensor] | None = None,
    tolerance: float = 1e-3,
) -> None:
    """Run all :func:`backend_checks`; arguments as there.

    Raises:
        CheckFailed: every check that failed, why, and what to mend.
        TypeError, ValueError: as of :func:`backend_checks`.
    """
    run_all(
        backend_checks(backend, conditions, trained=trained, beside=beside, tolerance=tolerance)
    )


def _unconditional(backend: Backend) -> Iterator[Any]:
    try:
        backend.encode(UNCONDITIONAL)
    except (TypeError, ValueError, LookupError):
        return
    yield UNCONDITIONAL


def _misencoded(backend: Backend, condition: Any) -> str:
    once, again = backend.encode(condition), backend.encode(condition)
    what = in_words(condition)
    try:
        hash(once)
    except TypeError:
        return f"encode({what}) is {in_words(once)}, which is not hashable"
    if once != again or hash(once) != hash(again):
        return f"encode({what}) is {in_words(once)} once and {in_words(again)} again"
    kept = backend.encode(once)
    return "" if kept == once else f"encode({in_words(once)}) is {in_words(kept)}, not itself"


def _unlike(prediction: Tensor, x: Tensor) -> str:
    if (prediction.dtype, prediction.device) != (x.dtype, x.device):
        return f"an answer is {prediction.dtype} on {prediction.device}, x {x.dtype} on {x.device}"
    return "" if bool(prediction.isfinite().all()) else "an answer has NaN or Inf"


def _misread(examined: Examined, condition: Any) -> str:
    """By how much of the noise there is in what the answer implies of noise and clean image."""
    backend = examined.backend
    alpha, sigma = backend.schedule.at(backend.schedule.time_at(NOISY))
    asked = examined.request(condition, NOISY, sigma * examined.x)
    (answer,) = examined.answers([asked])
    kind, square = backend.prediction, examined.x.double().square().sum()
    found, clean = (
        (read(answer, asked.x, alpha, sigma).double() * examined.x.double()).sum() / square
        for read in (kind.noise, kind.x0)
    )
    if 0.7 < found < 1.3 and abs(clean) < 0.2:
        return ""
    return (
        f"read as {kind.name!r}, an answer about a grey image and noise finds {found:.2f} of that "
        f"noise, and {clean:.2f} of it in the clean image, instead of about 1 and 0"
    )
