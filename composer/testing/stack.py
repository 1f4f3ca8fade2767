"""The contract of stacks of plugins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from composer._checks import check_condition, checked_plugins
from composer.plugin import sets_conditions
from composer.testing.checks import Check, checks_of, run_all
from composer.testing.probe import Shape, checked_shape
from composer.testing.stack_conduct import CONDUCT
from composer.testing.stack_law import ADVICE, laws
from composer.testing.stack_probe import Stack, mixture


def stack_checks(
    plugins: Sequence[object], *, condition: Any = None, shape: Shape = (3, 32, 32)
) -> list[Check]:
    """The named checks of a stack.

    They check the law for both kinds of schedule and all four predictions, batches, a learned
    variance, and conditions that are already set.

    Args:
        plugins: [outer, ..., inner], as for :class:`~composer.Sampler`, at least one. Conditions
            are the components 0 to 9 of a mixture of Gaussians.
        condition: the condition of the call; None for component 1, unless plugins set conditions.
        shape: (C, H, W) of the images.

    Raises:
        TypeError, ValueError: there are no plugins, a Sampler does not accept them, or condition or
            shape is wrong.
    """
    plugins = checked_plugins(plugins)
    if not plugins:
        raise ValueError("plugins must not be empty. Give at least one plugin to check.")
    shape = checked_shape(shape)
    stack = Stack(plugins, condition, shape)
    sampler = stack.sampler(mixture(shape))
    if condition is None and not any(sets_conditions(plugin) for plugin in plugins):
        stack = replace(stack, condition=1)
    check_condition(sampler.stack, stack.condition)
    subject = f"[{', '.join(type(plugin).__name__ for plugin in plugins)}]"
    lawful = [Check(subject, name, law, ADVICE, False) for name, law in laws(stack).items()]
    return [*lawful, *checks_of(CONDUCT, stack, subject, advice_for_errors=False)]


def check_stack(
    plugins: Sequence[object], *, condition: Any = None, shape: Shape = (3, 32, 32)
) -> None:
    """Run all :func:`stack_checks`; plugins that leave the law on purpose fail them too.

    Raises:
        CheckFailed: it lists every check that failed, why, and what to do.
        TypeError, ValueError: as in :func:`stack_checks`.
    """
    run_all(stack_checks(plugins, condition=condition, shape=shape))
