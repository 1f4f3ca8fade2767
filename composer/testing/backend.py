"""The contract of backends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor

from composer._checks import checked_backend, checked_solver
from composer.arguments import positive, sequence
from composer.backend_attributes import differentiable_of
from composer.latents import is_latent, to_images
from composer.model import batch_of, checked_output
from composer.protocols import Backend
from composer.requests import UNCONDITIONAL, Request
from composer.sampler import Sampler
from composer.testing.backend_probe import Examined
from composer.testing.checks import Check, Contract, checks_of, first, in_words, run_all
from composer.testing.gradient import bent

NOISY = 0.7
"""The noise level at which the kit tests the declared prediction. With the shipped models, the
clean image holds at most .14 of the noise for a right declaration, at least .27 for a wrong one."""

COARSE = 0.01
"""The tolerance above which answers round too much for finite differences."""


def has_its_attributes(examined: Examined) -> str:
    """Device, dtype, prediction, shape and schedule, as objects or names; a solver object."""
    checked_backend(examined.backend)
    checked_solver(examined.backend.default_solver)
    return ""


def encodes_conditions(examined: Examined) -> str:
    """``encode`` returns an equal hashable each time, and returns an encoded condition itself."""
    return first(_misencoded(examined.backend, c) for c in examined.conditions)


def refuses_in_a_sentence(examined: Examined) -> str:
    """``encode`` raises ValueError, TypeError or UnknownNameError for an unknown condition."""
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
    """Equal requests have equal answers, and torch's global random state does not change."""
    once, before = examined.usual, torch.get_rng_state()
    again = examined.answers(examined.requests())
    if not torch.equal(before, torch.get_rng_state()):
        return "evaluate draws from torch's global random state"
    return examined.apart(again, once, "the answer to the same requests")


def answers_alone_and_together(examined: Examined) -> str:
    """Other requests in a call, and their order, do not change an answer."""
    together, singles = examined.usual, examined.requests()
    alone = [examined.answers([request])[0] for request in singles]
    turned = examined.answers(examined.requests()[::-1])[::-1]
    return examined.apart(together, alone, "an answer, requested with others,") or examined.apart(
        turned, alone, "an answer, requested in another order,"
    )


def answers_image_by_image(examined: Examined) -> str:
    """An image has the same answer in a batch as alone."""
    if any(len(value) > 1 for value in examined.beside.values()):
        raise SkipTest("The further tensors of the requests differ between the images.")
    together = examined.usual
    for k, x in enumerate(examined.x.split(1)):
        alone = examined.answers(examined.requests(x.clone()))
        rows = [answer[k : k + 1] for answer in together]
        if trouble := examined.apart(rows, alone, "the answer about an image of a batch"):
            return trouble
    return ""


def answers_equal_tensors_equally(examined: Examined) -> str:
    """Requests with one tensor may share work; an equal tensor has the same answer."""
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
    """For a grey image with noise, the answer implies that noise, and a clean image with less than
    a fifth of it.

    Latents may be as wide as their noise, which no model can then tell apart: their bounds reach to
    the answer for white latents of variance 1. They do not tell "sample" and "v" apart.
    """
    if not examined.trained:
        raise SkipTest("Only a trained network shows its prediction type.")
    return first(_misread(examined, condition) for condition in examined.conditions)


def has_the_gradient_it_declares(examined: Examined) -> str:
    """If the backend declares ``differentiable``, the gradient of its output with respect to x, and
    of a latent model's decoder, is that of finite differences."""
    if not differentiable_of(examined.backend):
        raise SkipTest("The backend does not declare differentiable.")
    if examined.tolerance > COARSE:
        raise SkipTest("Finite differences need a network that rounds less, as in float32.")
    backend = examined.backend

    def predictions(request: Request) -> Callable[[Tensor], Tensor]:
        return lambda x: backend.evaluate(batch_of([request.replace(x=x)])).prediction

    requests = examined.requests()
    found = first(bent(predictions(request), request.x) for request in requests)
    if found or not is_latent(backend):
        return found
    decoded = bent(lambda z: to_images(backend, z), examined.x)
    return decoded and f"of decode: {decoded}"


def samples(examined: Examined) -> str:
    """Two steps with the default solver make images."""
    if examined.beside:
        raise SkipTest("A run needs the plugin that adds the further tensors.")
    sampler = Sampler(examined.backend, num_inference_steps=2)
    for condition in examined.conditions:
        x = sampler.sample(condition, seeds=[0, 1]).x
        if not bool(x.isfinite().all()):
            return f"images of {in_words(condition)} have NaN or Inf"
    return ""


CONTRACT: Contract[Examined] = {
    has_its_attributes: "give the attribute the type that docs/write-a-backend.md states",
    encodes_conditions: "return a hashable, the same for the same condition, and return an encoded "
    "condition unchanged",
    refuses_in_a_sentence: "raise a ValueError that lists the known conditions",
    answers_each_row: "return one Output(prediction, variance) of all rows, in the dtype and "
    "on the device of the backend",
    is_deterministic: "call net.eval(), and draw nothing in evaluate",
    answers_alone_and_together: "give each row its own time and condition, and return the answers "
    "in the order of the rows",
    answers_image_by_image: "call net.eval(), and compute no means over the batch",
    answers_rows_of_any_condition: "give each row its own time and condition",
    answers_equal_tensors_equally: "use batch.images only to share work",
    leaves_x_alone: "work on a copy",
    predicts_what_it_says: "declare the prediction and schedule of the training, and give the "
    "network its training times; trained=False skips this check",
    has_the_gradient_it_declares: "compute the output from batch.x, and decode, with torch alone, "
    "without no_grad, detach or writing in place, or do not declare differentiable",
    samples: "correct the solver or the network",
}
"""The laws of a backend, and what to do where one is broken."""


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
        backend: the backend; n conditions need about 7 + 5 n calls with one or two images.
        conditions: some conditions that it knows; UNCONDITIONAL is added if it can be encoded.
        trained: False for an untrained network, to skip the check of its prediction type.
        beside: further tensors of its requests, (1, ., H, W) or (1,), such as the low-resolution
            image of an enlarging model.
        tolerance: the allowed difference of answers that should be equal, as a share of the largest
            value; about 0.05 for a network in bfloat16.

    Raises:
        TypeError, ValueError: it is not a backend, or there is no condition to check.
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
    """Run all :func:`backend_checks`, with the same arguments.

    Raises:
        CheckFailed: it lists every check that failed, why, and what to do.
        TypeError, ValueError: as in :func:`backend_checks`.
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
    """Measure the noise in the noise and in the clean image that an answer implies."""
    backend = examined.backend
    alpha, sigma = backend.schedule.at(backend.schedule.time_at(NOISY))
    asked = examined.request(condition, NOISY, sigma * examined.x)
    (answer,) = examined.answers([asked])
    kind, square = backend.prediction, examined.x.double().square().sum()
    found, clean = (
        (read(answer, asked.x, alpha, sigma).double() * examined.x.double()).sum() / square
        for read in (kind.noise, kind.x0)
    )
    # White latents of variance v have the posterior mean v alpha z / (v alpha^2 + sigma^2). For
    # z = sigma noise it holds v alpha sigma / (v alpha^2 + sigma^2) of the noise; v is at most 1.
    largest = 1.0 if is_latent(backend) else 0.0
    whole = largest * alpha**2 + sigma**2
    least, most = sigma**2 / whole, largest * alpha * sigma / whole
    if least - 0.3 < found < 1.3 and -0.2 < clean < most + 0.2:
        return ""
    return (
        f"read as {kind.name!r}, an answer for a grey image with noise implies {found:.2f} of that "
        f"noise, and a clean image with {clean:.2f} of it, instead of about 1 and 0"
        + (f", or for latents down to {least:.2f} and up to {most:.2f}" if most else "")
    )
