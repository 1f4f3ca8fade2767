"""A contract as a list of named checks, which run singly, together, or in pytest."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar
from unittest import SkipTest

import torch
from torch import Tensor

T = TypeVar("T")
TOLERANCE = 1e-8
"""The allowed error of results in float64, for images of N(0, 1) noise."""
Contract = Mapping[Callable[[T], str], str]
"""{law: advice}. A law returns what is wrong with a thing, or "". It raises ``SkipTest`` where it
does not apply. Its name is the name of the check. The advice says what to do."""


class CheckFailed(AssertionError):  # noqa: N818  # as pytest words it
    """A thing breaks its contract; the message says which checks failed, why, and what to do."""


@dataclass(frozen=True)
class Check:
    """One named check of one object. A call returns None or raises.

    Args:
        subject: the object in words.
        name: the name of the check.
        examine: returns what is wrong with the object, or "".
        advice: what to do about a failure.
        advice_for_errors: whether the advice also applies if it raises an error; if not, the
            error's message says what to do.
    """

    subject: str
    name: str
    examine: Callable[[], str]
    advice: str
    advice_for_errors: bool = True

    def __call__(self) -> None:
        """Run it.

        Raises:
            CheckFailed: the check failed; the message says why and what to do.
            unittest.SkipTest: the check does not apply; pytest shows the reason.
        """
        outcome = self.outcome()
        if outcome.status == "failed":
            raise CheckFailed(f"{self.subject} fails {outcome.sentence}") from outcome.error
        if outcome.status == "skipped":
            raise SkipTest(outcome.why)

    def outcome(self) -> Outcome:
        """Run the check and return its outcome without raising."""
        try:
            trouble = self.examine()
        except SkipTest as skip:
            return Outcome(self, "skipped", str(skip))
        except Exception as error:  # any error of the object is a failed check
            return Outcome(self, "failed", f"raised {type(error).__name__}: {error}", error)
        return Outcome(self, "failed" if trouble else "passed", trouble)

    def __str__(self) -> str:
        return f"{self.subject}-{self.name}"


@dataclass(frozen=True)
class Outcome:
    """The result of a check, and its reason."""

    check: Check
    status: Literal["passed", "failed", "skipped"]
    why: str = ""
    error: Exception | None = None

    @property
    def advice(self) -> str:
        """What to do about a failure; "" where its error says so."""
        tells = self.error is not None and not self.check.advice_for_errors
        return self.check.advice if self.status == "failed" and not tells else ""

    @property
    def reason(self) -> str:
        """The reason and the advice."""
        return f"({self.why}); {self.advice}" if self.advice else f"({self.why})"

    @property
    def sentence(self) -> str:
        """The name of the check, the reason and the advice."""
        return f"{self.check.name} {self.reason}"


def checks_of(
    contract: Contract[T], thing: T, subject: str, *, advice_for_errors: bool = True
) -> list[Check]:
    """A check for each law of a contract."""
    return [
        Check(subject, _name(law), partial(law, thing), advice, advice_for_errors)
        for law, advice in contract.items()
    ]


def run_all(checks: Iterable[Check]) -> None:
    """Run every check, then raise one :class:`CheckFailed` that lists all failures."""
    failed = [o for o in [check.outcome() for check in checks] if o.status == "failed"]
    if failed:
        names: dict[str, list[str]] = {}  # by reason, so that each reason appears once
        for outcome in failed:
            names.setdefault(outcome.reason, []).append(outcome.check.name)
        reasons = "\n  ".join(f"{', '.join(named)} {reason}" for reason, named in names.items())
        raise CheckFailed(f"{failed[0].check.subject} fails\n  {reasons}") from failed[0].error


def parametrize(checks: Iterable[Check]) -> Callable[[T], T]:
    """A pytest decorator: run the test for each check, as its argument ``check``."""
    import pytest  # noqa: PLC0415  # a test's dependency, not the library's

    mark: Any = pytest.mark.parametrize("check", list(checks), ids=str)
    return mark  # type: ignore[no-any-return]


_whole = reprlib.Repr()  # handles a __repr__ that raises
_whole.maxother = 1000


def in_words(thing: object) -> str:
    """A short form of an object on one line, for messages and names of tests.

    It has no addresses, which differ between processes: pytest-xdist compares names of tests.
    """
    words = re.sub(r" at 0x[0-9a-f]+", "", " ".join(_whole.repr(thing).split()))
    return words if len(words) <= 80 else f"{words[:77]}..."


def _name(law: object) -> str:
    return str(getattr(law, "__name__", law))


def off(measured: Any, expected: Any, tolerance: float, what: str) -> str:
    """Return "f(x) is off by 0.3" if two tensors differ by more than a tolerance, else ""."""
    if measured.shape != expected.shape:
        return f"{what} has the shape {tuple(measured.shape)}, not {tuple(expected.shape)}"
    gap = (measured.double() - expected.double()).abs().max().item() if measured.numel() else 0.0
    return "" if gap <= tolerance else f"{what} is off by {gap:.2g}"


def rounding(x: Tensor) -> float:
    """The allowed rounding error in x's dtype, 16 eps max|x|; in float64 the probes' tolerance."""
    if x.dtype == torch.float64:
        return TOLERANCE
    return 16 * torch.finfo(x.dtype).eps * x.abs().max().item()


def writes_into(view: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether a map writes into its argument, which may change x."""
    before = x.clone()
    view(x)
    return not torch.equal(x, before)


def first(troubles: Iterable[str]) -> str:
    """The first nonempty trouble, or ""."""
    return next((trouble for trouble in troubles if trouble), "")
