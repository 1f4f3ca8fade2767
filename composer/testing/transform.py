"""The contract of transforms."""

from __future__ import annotations

from collections.abc import Sequence

from composer.testing.checks import Check, Contract, checks_of, in_words, run_all
from composer.testing.probe import Probe, Shape, checked_shapes, require_taken
from composer.testing.transform_conduct import CONDUCT
from composer.testing.transform_frames import FRAMES
from composer.testing.transform_maths import MATHS
from composer.transforms import Transform

CONTRACT: Contract[Probe] = {**MATHS, **CONDUCT, **FRAMES}


def transform_checks(transform: Transform, *, shapes: Sequence[Shape] | None = None) -> list[Check]:
    """The named checks of a transform.

    Args:
        transform: the view to examine.
        shapes: (C, H, W) at which to examine it; None for the accepted ones of a fixed list: square
            and oblong from 28 to 256 pixels, small ones for the whole matrix, and 1 and 1024.

    Raises:
        TypeError, ValueError: it is not a Transform, shapes is empty, or it does not accept one.
    """
    if not isinstance(transform, Transform):
        raise TypeError(
            f"transform must be a Transform, got {in_words(transform)}. Subclass "
            "composer.Transform."
        )
    given = checked_shapes(shapes)
    for _, height, width in given:
        if transform.accepts(height, width) is False:
            raise ValueError(
                f"shapes: {in_words(transform)} accepts {transform.sizes}, got {height}x{width}."
            )
    require_taken([transform], given, transform)
    return checks_of(CONTRACT, Probe(transform, given), in_words(transform))


def check_transform(transform: Transform, *, shapes: Sequence[Shape] | None = None) -> None:
    """Run all :func:`transform_checks`.

    Raises:
        CheckFailed: it lists every check that failed, why, and what to do.
    """
    run_all(transform_checks(transform, shapes=shapes))
