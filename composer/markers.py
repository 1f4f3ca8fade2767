"""The two hook decorators, and a test whether an object answers a hook."""

from __future__ import annotations

import pluggy

PROJECT = "composer"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


def answers(thing: object, hook: str) -> bool:
    """Whether an object has a method of this name that is marked with ``@hookimpl``."""
    return hasattr(getattr(thing, hook, None), f"{PROJECT}_impl")
