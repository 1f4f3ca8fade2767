"""What plugins around another guidance plugin have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

from composer import Plugin
from composer.authoring import resized


class AroundGuidance(Plugin):
    """A dataclass with a field ``guidance``: a plugin such as CFG(7.5), or None."""

    guidance: Any

    @property
    def conditions(self) -> tuple[Any, ...]:
        return (self.guidance,)

    def resized(self, height: int, width: int) -> Self:
        return replace(self, guidance=resized(self.guidance, height, width))  # type: ignore[type-var]
