"""Test kit: exact backends, and contracts of backends, transforms, decompositions and stacks.

``composer.testing.strategies`` has hypothesis strategies; only that module imports hypothesis.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import TypeVar

from composer.markers import answers
from composer.plugin import declared
from composer.testing.backend import backend_checks, check_backend
from composer.testing.checks import Check, CheckFailed, Outcome, in_words, parametrize
from composer.testing.decomposition import check_decomposition, decomposition_checks
from composer.testing.gaussian_mixture import GaussianMixtureBackend
from composer.testing.identity import IdentityBackend
from composer.testing.orthogonal_codec import OrthogonalCodecBackend
from composer.testing.registered import registered_decompositions, registered_transforms
from composer.testing.stack import check_stack, stack_checks
from composer.testing.transform import check_transform, transform_checks
from composer.transforms import Transform

T = TypeVar("T")

__all__ = [
    "Check",
    "CheckFailed",
    "GaussianMixtureBackend",
    "IdentityBackend",
    "OrthogonalCodecBackend",
    "Outcome",
    "backend_checks",
    "check_backend",
    "check_decomposition",
    "check_stack",
    "check_transform",
    "decomposition_checks",
    "parametrize_with_checks",
    "registered_decompositions",
    "registered_transforms",
    "stack_checks",
    "transform_checks",
]


def parametrize_with_checks(
    things: Iterable[object], *, shapes: Sequence[tuple[int, int, int]] | None = None
) -> Callable[[T], T]:
    """A pytest decorator: run the test once for each check of each thing, as ``check``.

    ::

        @parametrize_with_checks([Flip(), Skew(20), GrayColour()])
        def test_mine(check):
            check()

    Args:
        things: transforms and decompositions, at least one.
        shapes: (C, H, W) at which to examine all of them; None for the kit's shapes.
    """
    checks = [check for thing in things for check in _checks(thing, shapes)]
    if not checks:
        raise ValueError("things must not be empty. Give at least one thing to check.")
    return parametrize(checks)


def _checks(thing: object, shapes: Sequence[tuple[int, int, int]] | None) -> list[Check]:
    if isinstance(thing, Transform):
        return transform_checks(thing, shapes=shapes)
    if answers(thing, "noise_estimate") and not declared(thing, "parts"):
        raise TypeError(
            f"things must be transforms or decompositions, got the plugin {in_words(thing)}. "
            "Write pytest.mark.parametrize('check', stack_checks([...])), or check_stack([...])."
        )
    return decomposition_checks(thing, shapes=shapes)


def __getattr__(name: str) -> ModuleType:
    if name == "strategies":
        return importlib.import_module("composer.testing.strategies")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
