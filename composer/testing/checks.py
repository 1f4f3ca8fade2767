"""A contract as a list of named checks, and the ways to run them: singly, together, in pytest."""

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
"""Of results in float64, for images of N(0, 1) noise."""
Contract = Mapping[Callable[[T], str], str]
"""{law: mend}. A law says what is wrong with a thing, "" if nothing is, and raises ``SkipTest``
where it does not apply; its name is the check's. The mend says what to do."""


class CheckFailed(AssertionError):  # noqa: N818  # as pytest words it
    """A thing does not keep its contract; says which checks failed, why, and what to mend."""


@dataclass(frozen=True)
class Check:
    """One named check of one object. Call it: nothing happens, or it raises.

    Args:
        subject: the object in words.
        name: of the check.
        examine: what is wrong with the object, "" if nothing is.
        mend: what to do.
        mends_errors: whether the mend is for an error raised too; if not, the error tells.
    """

    subject: str
    name: str
    examine: Callable[[], str]
    mend: str
    mends_errors: bool = True

    def __call__(self) -> None:
        """Run it.

        Raises:
            CheckFailed: with what is wrong and what to mend.
            unittest.SkipTest: it does not apply; pytest shows it as skipped, with the reason.
        """
        outcome = self.outcome()
        if outcome.status == "failed":
            raise CheckFailed(f"{self.subject} fails {outcome.sentence}") from outcome.error
        if outcome.status == "skipped":
            raise SkipTest(outcome.why)

    def outcome(self) -> Outcome:
        """Run it and say how it went, without raising."""
        try:
            trouble = self.examine()
        except SkipTest as skip:
            return Outcome(self, "skipped", str(skip))
        except Exception as error:  # whatever the object raises is its failure, not the kit's
            return Outcome(self, "failed", f"raised {type(error).__name__}: {error}", error)
        return Outcome(self, "failed" if trouble else "passed", trouble)

    def __str__(self) -> str:
        return f"{self.subject}-{self.name}"


@dataclass(frozen=True)
class Outcome:
    """How a check went, and why."""

    check: Check
    status: Literal["passed", "failed", "skipped"]
    why: str = ""
    error: Exception | None = None

    @property
    def mend(self) -> str:
        """What to do about a failure, where its error does not say so."""
        tells = self.error is not None and not self.check.mends_errors
        return self.check.mend if self.status == "failed" and not tells else ""

    @property
    def reason(self) -> str:
        """Why, and the mend."""
        return f"({self.why}); {self.mend}" if self.mend else f"({self.why})"

    @property
    def sentence(self) -> str:
        """What failed, why, and the mend."""
        return f"{self.check.name} {self.reason}"


def checks_of(
    contract: Contract[T], thing: T, subject: str, *, mends_errors: bool = True
) -> list[Check]:
    """A check for each law of a contract."""
    return [
        Check(subject, _name(law), partial(law, thing), mend, mends_errors)
        for law, mend in contract.items()
    ]


def run_all(checks: Iterable[Check]) -> None:
    """Run every check, then raise one :class:`CheckFailed` that tells of all that failed."""
    failed = [o for o in [check.outcome() for check in checks] if o.status == "failed"]
    if failed:
        names: dict[str, list[str]] = {}  # by reason: what fails for one reason is told once
        for outcome in failed:
            names.setdefault(outcome.reason, []).append(outcome.check.name)
        reasons = "\n  ".join(f"{', '.join(named)} {reason}" for reason, named in names.items())
        raise CheckFailed(f"{failed[0].check.subject} fails\n  {reasons}") from failed[0].error


def parametrize(checks: Iterable[Check]) -> Callable[[T], T]:
    """A pytest decorator: the test's argument ``check`` is each check in turn."""
    import pytest  # noqa: PLC0415  # a test's dependency, not the library's

    mark: Any = pytest.mark.parametrize("check", list(checks), ids=str)
    return mark  # type: ignore[no-any-return]


_whole = reprlib.Repr()  # which copes with a __repr__ that raises
_whole.maxother = 1000


def in_words(thing: object) -> str:
    """An object as messages and the names of tests have it: short, on one line.

    Without addresses, which differ between processes: pytest-xdist compares the names of its own.
    """
    words = re.sub(r" at 0x[0-9a-f]+", "", " ".join(_whole.repr(thing).split()))
    return words if len(words) <= 80 else f"{words[:77]}..."


def _name(law: object) -> str:
    return str(getattr(law, "__name__", law))


def off(measured: Any, expected: Any, tolerance: float, what: str) -> str:
    """'f(x) is off by 0.3' where two tensors differ by more than a tolerance, else ""."""
    if measured.shape != expected.shape:
        return f"{what} has the shape {tuple(measured.shape)}, not {tuple(expected.shape)}"
    gap = (measured.double() - expected.double()).abs().max().item() if measured.numel() else 0.0
    return "" if gap <= tolerance else f"{what} is off by {gap:.2g}"


def rounding(x: Tensor) -> float:
    """16 eps max|x|: what results in x's dtype may be off; in float64 the tolerance of probes."""
    if x.dtype == torch.float64:
        return TOLERANCE
    return 16 * torch.finfo(x.dtype).eps * x.abs().max().item()


def writes_into(view: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether a map changes its argument; x is spent."""
    before = x.clone()
    view(x)
    return not torch.equal(x, before)


def first(troubles: Iterable[str]) -> str:
    """The first trouble of many cases, or ""."""
    return next((trouble for trouble in troubles if trouble), "")
