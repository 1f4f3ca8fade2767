"""Null-space restoration: keep what was measured and let the model make the rest."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Self

from torch import Tensor

from composer import Estimate, Plugin, Request, Stack, State, hookimpl
from composer.arguments import lacking
from composer.authoring import in_pixels, require_coder, short_repr
from composer.errors import shown
from composer.images import ImageLike, hold_image, to_tensor
from composer_plugins.editing.operators import Operator, check_operator, measured_at


@dataclass(frozen=True, eq=False, repr=False)
class DDNM(Plugin):
    """Make every estimated clean image agree with a measurement y = A x. With A+ the pseudoinverse
    of A,

        x_0 <- A+ y + (I - A+ A) x_0,

    the nearest image to x_0 that has A x_0 = y; the noise is the rest of x. So the result has
    A x = y, for pixels exactly. It is outermost wherever it stands in the list: it projects the
    combined estimate of views and guidance, in the image's own frame.

    A latent model decodes x_0, which is projected in pixels and encoded. The steps are approximate
    then; the finished image is projected once more and has A x = y.

    It leaves the law on purpose: the projection adds A+ y, and works on x_0. A Reference replaces a
    part of x after each step; DDNM replaces a part of x_0 within the step.

    Wang, Yu & Zhang 2022, "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space
    Model", arXiv 2212.00490.

    Args:
        measurement: y, a tensor (C', H', W') or (B, C', H', W') in [-1, 1]; one, or one per seed.
            Or a path, a PIL image of any mode or an array of pixels, of the measurement's channels
            and size: ``composer.images.read_picture(path, (C', H', W'))`` brings others to these.
        operator: A and A+, such as KnownPixels(mask), BlockMean(4) or Gray(3).
    """

    __repr__ = short_repr

    obeys_law = False
    holds_image = True
    unique = "project the clean image"

    measurement: ImageLike
    operator: Operator

    def __post_init__(self) -> None:
        held = hold_image(self.measurement, "DDNM: measurement")
        object.__setattr__(self, "measurement", held)
        if lacking(self.operator, Operator):
            raise TypeError(
                f"DDNM: operator must have apply(x) and pinv(y), got {shown(self.operator)}. "
                "Use for example KnownPixels(mask)."
            )

    def resized(self, height: int, width: int) -> Self:
        """The same measurement of images of another size, by the operator's ``at_size``."""
        operator, y = measured_at(self.operator, self._y, height, width, "DDNM")
        if operator is self.operator:
            return self
        return replace(self, measurement=y, operator=operator)

    @hookimpl
    def check(self, stack: Stack) -> None:
        require_coder(stack.backend, "DDNM")
        needed = check_operator(self.operator, stack.backend, "DDNM")
        if (got := tuple(self._y.shape[1:])) != needed:
            raise ValueError(
                f"DDNM: measurement must have the shape {needed}, as {self.operator!r} measures, "
                f"got {got}. Read a picture by composer.images.read_picture(path, {needed})."
            )

    @hookimpl
    def start(self, state: State) -> None:
        y = self._y.to(state.x)
        state.memory[self] = y
        if len(state.each(y, "DDNM")) > 1 and len(state.x) != len(state.seeds):
            raise ValueError(
                "DDNM: measurement must be one for all seeds with several candidates per seed, got "
                "one per seed."
            )

    @hookimpl(tryfirst=True)  # outermost, on the combined estimate of views and guidance
    def noise_estimate(
        self, request: Request
    ) -> Generator[list[Request], list[Estimate], Estimate]:
        estimate = (yield [request])[0]
        y = self._y.to(request.x)
        if len(y) not in (1, len(request.x)):
            raise ValueError(
                f"DDNM: measurements must be 1 or one per image, got {len(y)} for {len(request.x)} "
                "images."
            )
        projected = partial(self.projected, y=y)
        return estimate.with_x0(in_pixels(request.backend, projected, estimate.x0))

    @hookimpl(wrapper=True)  # after all others, and on the pixels of a latent model
    def finish(self, state: State) -> Generator[None, None, None]:
        """Project x exactly, whatever other plugins did to it after the last step."""
        yield
        if state.position + 1 == len(state.times):
            state.x = self.projected(state.x, state.each(state.memory[self], "DDNM"))

    @cached_property
    def _y(self) -> Tensor:
        """(B, C', H', W')."""
        return to_tensor(self.measurement)

    def projected(self, x0: Tensor, y: Tensor) -> Tensor:
        """The nearest image to x0 (B, C, H, W) whose measurement is y."""
        # In this order measured pixels become y and the others stay, bit for bit.
        return self.operator.pinv(y) + (x0 - self.operator.pinv(self.operator.apply(x0)))
