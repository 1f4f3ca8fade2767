"""The contract of transforms."""

from __future__ import annotations

from collections.abc import Sequence

from composer.testing.checks import Check, Contract, checks_of, run_all
from composer.testing.probe import Probe, Shape, checked_shapes
from composer.testing.transform_conduct import CONDUCT
from composer.testing.transform_maths import MATHS
from composer.transforms import Transform

CONTRACT: Contract[Probe] = {**MATHS, **CONDUCT}


def transform_checks(transform: Transform, *, shapes: Sequence[Shape] | None = None) -> list[Check]:
    """The named checks of a transform.

    Args:
        transform: the view to examine.
        shapes: (C, H, W) to examine it at; None for those of a fixed list that it accepts, square
            and oblong, from 28 to 256 pixels, and small ones for the whole matrix.

    Raises:
        TypeError, ValueError: no Transform, or no shapes.
    """
    if not isinstance(transform, Transform):
        raise TypeError(f"{transform!r} is no Transform; subclass composer.Transform")
    return checks_of(CONTRACT, Probe(transform, checked_shapes(shapes)), repr(transform))


def check_transform(transform: Transform, *, shapes: Sequence[Shape] | None = None) -> None:
    """Run all :func:`transform_checks`.

    Raises:
        CheckFailed: every check that failed, why, and what to mend.
    """
    run_all(transform_checks(transform, shapes=shapes))
