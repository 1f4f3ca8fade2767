"""The plugin manager of pluggy, with the hooks of plugins and packages."""

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
        """Offer plugins, transforms, solvers and backends by name; called once per process."""


class _Specs(Plugin):
    """The hooks of a plugin; ``check`` also accepts the former name of its argument."""

    @hookspec(
        warn_on_impl_args={
            "sampler": DeprecationWarning("check(sampler) is deprecated. Write check(stack).")
        }
    )
    def check(self, stack: Stack, sampler: Stack) -> None:  # type: ignore[override]
        """See :meth:`Plugin.check`."""


class _Manager(pluggy.PluginManager):
    """A manager that skips Python's own names, such as ``__init__``, when it looks for hooks. Most
    names are of this kind, and to examine them took most of the time to build a Sampler."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        return None if name.startswith("__") else super().parse_hookimpl_opts(plugin, name)


def manager() -> pluggy.PluginManager:
    """A plugin manager with all hooks and no plugins."""
    made = _Manager(PROJECT)
    made.add_hookspecs(_Specs)
    made.add_hookspecs(_Entry)
    return made


def hooked(plugins: Sequence[object]) -> pluggy.PluginManager:
    """A manager that calls the plugins' hooks in the order of the list.

    Raises:
        ValueError, TypeError: a plugin is listed twice, or its methods do not fit the hooks.
    """
    made = manager()
    # pluggy calls plugins in the reverse order of registration.
    for place, plugin in reversed([*enumerate(plugins)]):
        name = type(plugin).__name__
        if any(plugin is other for other in plugins[place + 1 :]):
            raise ValueError(f"plugins must be different objects, got one {name} twice. Make two.")
        if made.is_registered(plugin):
            raise ValueError(f"plugins must differ, got two equal {name}. Declare it eq=False.")
        listed = _listed(plugin)
        try:
            made.register(listed, name=f"{place}:{name}")
            made.check_pending()
        except pluggy.PluginValidationError as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{name} does not fit the hooks of composer.Plugin ({reason}). "
                "Correct the name or the arguments of its hook."
            ) from error
        if unmarked := sorted(_called_like_hooks(plugin) - hooks_of(plugin)):
            raise TypeError(
                f"{name}: {unmarked[0]} has the name of a hook and no mark. Mark it with "
                "@composer.hookimpl, or rename it."
            )
        if not made.get_hookcallers(listed):
            raise TypeError(f"{name} answers no hook. Mark its methods with @composer.hookimpl.")
    return made


def noise_estimates(hooks: pluggy.PluginManager) -> tuple[NoiseEstimate, ...]:
    """The ``noise_estimate`` hooks of the stack, outermost first; the driver nests them."""
    implementations = reversed(hooks.hook.noise_estimate.get_hookimpls())
    functions = [cast(NoiseEstimate, impl.function) for impl in implementations]
    for function in functions:
        require_generator(function)
    return tuple(functions)


def _listed(plugin: object) -> object:
    """The object to register: the plugin, or its hooks where ``__getattr__`` provides some.

    pluggy finds only the names that ``dir`` lists.
    """
    hooks = hooks_of(plugin)
    if hooks <= {*dir(plugin)}:
        return plugin
    return SimpleNamespace(**{name: getattr(plugin, name) for name in hooks})


def _called_like_hooks(plugin: object) -> set[str]:
    """Methods with the name of a hook, except those of the base class."""
    return {
        name
        for name in HOOKS
        if callable(method := getattr(plugin, name, None))
        and getattr(method, "__func__", method) is not getattr(Plugin, name)
    }
