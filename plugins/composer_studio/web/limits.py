"""What one visitor may take of the machine."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from composer import Estimate, Plugin, Request, Sampler, hookimpl
from composer_studio.written import Script, Thing, WrittenError


@dataclass(frozen=True)
class Limits:
    """Bounds of a run and of the page.

    Attributes:
        seconds: of one run.
        queue: runs that wait; further ones are turned away.
        seeds, steps: of one run.
        number: the largest whole number among the options of a plugin or solver.
        rows: images that a step evaluates, views and candidates included.
        rows_at_once: of these, in one call of the network.
        megabytes: of an uploaded file.
    """

    seconds: float = 300.0
    queue: int = 8
    seeds: int = 16
    steps: int = 200
    number: int = 1000
    rows: int = 4096
    rows_at_once: int = 64
    megabytes: int = 20

    def check(self, script: Script) -> None:
        """Check what a recipe asks for, before any work.

        Raises:
            WrittenError: it is more than a visitor may have.
        """
        written = script.written
        counts = {"seeds": len(written.seeds), "steps": written.steps}
        for name, count in counts.items():
            most = getattr(self, name)
            if count > most:
                raise WrittenError([f"{name} must be at most {most} on this page, got {count}."])
        for label, thing in {**written.plugins, "solver": written.solver}.items():
            if (largest := _largest(thing)) > self.number:
                raise WrittenError(
                    [f"{label}: a whole number must be at most {self.number} on this page, got "
                     f"{largest}."]
                )  # fmt: skip

    def bounded(self, max_rows: Any) -> int:
        """The rows of one call of the network."""
        whole = isinstance(max_rows, int) and not isinstance(max_rows, bool)
        return min(max_rows, self.rows_at_once) if whole else self.rows_at_once


def _largest(value: Any) -> int:
    """The largest whole number in the options of a thing; conditions included."""
    if isinstance(value, Thing):
        return _largest(value.options)
    if isinstance(value, Mapping):
        return max((_largest(one) for one in value.values()), default=0)
    if isinstance(value, list | tuple):
        return max((_largest(one) for one in value), default=0)
    return abs(value) if isinstance(value, int) else 0


class OverLimitError(ValueError):
    """A run that took more than it may."""


@dataclass(eq=False)
class Guard(Plugin):
    """Passes requests on and counts them; ends a run that takes too long or too much.

    Args:
        limits: of the run.
        end: the time of ``time.monotonic`` at which it ends.
    """

    limits: Limits
    end: float
    waiting: int = 0

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        self.check_time()
        self.waiting += len(request.x)
        if self.waiting > self.limits.rows:
            raise OverLimitError(
                f"A step must evaluate at most {self.limits.rows} images on this page. Take fewer "
                "seeds, views or candidates."
            )
        try:
            (estimate,) = yield [request]
        finally:
            self.waiting -= len(request.x)
        return estimate

    def check_time(self) -> None:
        """Raise an error if the run has no time left."""
        if time.monotonic() > self.end:
            raise OverLimitError(
                f"The run took more than {self.limits.seconds:g} seconds, which is what this page "
                "gives it. Take fewer steps or seeds."
            )


def guarded(sampler: Sampler, limits: Limits) -> Sampler:
    """The same sampler with a guard behind each plugin: stacked plugins multiply requests."""
    end = time.monotonic() + limits.seconds
    plugins = [p for plugin in sampler.plugins for p in (plugin, Guard(limits, end))]
    return sampler.replace(plugins=plugins or [Guard(limits, end)])
