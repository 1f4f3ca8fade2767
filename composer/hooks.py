"""The plugin manager: pluggy's, with the hooks of a plugin and of a package."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pluggy

from composer.driver import NoiseEstimate, require_generator
from composer.markers import PROJECT, hookspec
from composer.offers import Register
from composer.plugin import HOOKS, Plugin, hooks_of
from composer.protocols import Stack


class _Entry:
    """The hook of an entry point of the group ``composer``."""

    @hookspec
    def register_plugins(self, register: Register) -> None:
        """Offer plugins, transforms, solvers and backends by name; called once a process."""


class _Specs(Plugin):
    """The hooks of a plugin; ``check`` has the former name of its argument, too."""

    @hookspec(
        warn_on_impl_args={"sampler": DeprecationWarning("check(sampler) is check(stack) now")}
    )
    def check(self, stack: Stack, sampler: Stack) -> None:  # type: ignore[override]
        """See :meth:`Plugin.check`."""


def manager() -> pluggy.PluginManager:
    """A plugin manager that knows all hooks, and no plugin yet."""
    made = pluggy.PluginManager(PROJECT)
    made.add_hookspecs(_Specs)
    made.add_hookspecs(_Entry)
    return made


def hooked(plugins: Sequence[object]) -> pluggy.PluginManager:
    """A manager that calls the plugins' hooks in the order of the list.

    Raises:
        ValueError, TypeError: one stands there twice, or its methods do not fit the hooks.
    """
    made = manager()
    # pluggy runs what was registered last first.
    for place, plugin in reversed([*enumerate(plugins)]):
        name = type(plugin).__name__
        if any(plugin is other for other in plugins[place + 1 :]):
            raise ValueError(f"the same {name} object is in plugins twice; make a second one")
        if made.is_registered(plugin):
            raise ValueError(f"two {name} in plugins are equal; declare {name} with eq=False")
        listed = _listed(plugin)
        try:
            made.register(listed, name=f"{place}:{name}")
            made.check_pending()
        except pluggy.PluginValidationError as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{name} does not fit the hooks of composer.Plugin ({reason}); "
                "mend the name or the arguments of its hook"
            ) from error
        if unmarked := sorted(_called_like_hooks(plugin) - hooks_of(plugin)):
            raise TypeError(f"mark {name}.{unmarked[0]} with @composer.hookimpl, or rename it")
        if not made.get_hookcallers(listed):
            raise TypeError(f"{name} answers no hook; mark its methods with @composer.hookimpl")
    return made


def noise_estimates(hooks: pluggy.PluginManager) -> tuple[NoiseEstimate, ...]:
    """The generators of the stack, outermost first; pluggy orders them, the driver nests them."""
    implementations = reversed(hooks.hook.noise_estimate.get_hookimpls())
    functions = [cast(NoiseEstimate, impl.function) for impl in implementations]
    for function in functions:
        require_generator(function)
    return tuple(functions)


def _listed(plugin: object) -> object:
    """The plugin; or its hooks, if it delegates some by ``__getattr__``: pluggy knows what ``dir``
    lists."""
    hooks = hooks_of(plugin)
    if hooks <= {*dir(plugin)}:
        return plugin
    return SimpleNamespace(**{name: getattr(plugin, name) for name in hooks})


def _called_like_hooks(plugin: object) -> set[str]:
    """Methods with the name of a hook, but for those that the base class has."""
    return {
        name
        for name in HOOKS
        if callable(method := getattr(plugin, name, None))
        and getattr(method, "__func__", method) is not getattr(Plugin, name)
    }
