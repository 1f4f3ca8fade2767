"""A view and a guidance, offered to Composer by the entry point in pyproject.toml."""

from collections.abc import Generator
from dataclasses import dataclass

from torch import Tensor

from composer import UNCONDITIONAL, Estimate, Register, Request, Transform, hookimpl


@dataclass(frozen=True)
class Diagonal(Transform):
    """Mirrored about the diagonal; square images."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.transpose(-2, -1).contiguous()

    def inverse(self, x: Tensor) -> Tensor:
        return self(x)

    def accepts(self, height: int, width: int) -> bool:
        return height == width > 0

    @property
    def sizes(self) -> str:
        return "square images"


@dataclass(frozen=True, eq=False)
class FadingGuidance:
    """Guidance that fades from ``scale`` at pure noise to 1 at the image."""

    scale: float = 4.0

    @hookimpl
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        scale = 1 + (self.scale - 1) * request.noise_level
        cond, uncond = yield [request, request.replace(condition=UNCONDITIONAL)]
        return (uncond + scale * (cond - uncond)).replace(variance=cond.variance)


@hookimpl
def register_plugins(register: Register) -> None:
    register.transform("diagonal", Diagonal)
    register.plugin("fading_guidance", FadingGuidance)
