"""Super-resolution: enlarge an image with a model that was trained to see a small one."""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn import functional as F

from composer import Plugin, Stack, State, hookimpl
from composer.arguments import finite
from composer.authoring import image_shape_of, low_res_schedule_of, short_repr
from composer.images import (
    Fit,
    ImageLike,
    Size,
    alike,
    read_picture,
    require_shape,
    shape_of,
)
from composer_plugins.editing.given import hold_given


@dataclass(frozen=True, eq=False, repr=False)
class SuperResolution(Plugin):
    """Give the model a small image, enlarged and noised, as an input beside x at every step.

    With u the image enlarged bilinearly (corners aligned), the model sees

        low_res = alpha(l) u + sigma(l) noise

    on its own path, and the level l. Views act on ``low_res`` as they do on x, so an anagram stays
    an anagram. The noise is drawn once, after the initial noise of x.

    Ho et al. 2022, "Cascaded Diffusion Models" (conditioning augmentation), arXiv 2106.15282.

    Args:
        image: a path, a PIL image of any mode or an array of pixels, or a tensor (C, h, w) or
            (B, C, h, w) in [-1, 1], such as the result of the stage before. One, or one per seed,
            of any size with the proportions of the model's images.
        noise_level: l, a time of the model's low-resolution schedule: 0 adds no noise; IF's second
            stage takes 250.
        fit: brings an image of other proportions to those of the model: "crop" cuts out its
            middle, "pad" adds white bars, "stretch" distorts. A larger image is shrunk to the
            model's size.
    """

    __repr__ = short_repr

    unique = "give the low-resolution image"
    holds_image = True

    image: ImageLike
    noise_level: float = 250
    fit: Fit | None = None

    def __post_init__(self) -> None:
        hold_given(self)
        finite(self.noise_level, "SuperResolution: noise_level")

    @hookimpl
    def check(self, stack: Stack) -> None:
        schedule = low_res_schedule_of(stack.backend)
        if schedule is None:
            raise ValueError(
                f"SuperResolution: {type(stack.backend).__name__} takes no low-resolution image. "
                "Use a backend that does, such as load_backend('deepfloyd', stage=2)."
            )
        if not 0 <= self.noise_level < len(schedule):
            raise ValueError(
                f"SuperResolution: noise_level must be in [0, {len(schedule) - 1}], got "
                f"{self.noise_level!r}."
            )
        # A latent model's channels differ from those of the image that it sees beside x.
        makes = image_shape_of(stack.backend)
        require_shape(self.image, makes, "SuperResolution: image", fit="stretch")
        _, height, width = shape_of(self.image)
        if self.fit is None and not alike((height, width), makes[1:]):
            raise ValueError(
                f"SuperResolution: image must have the proportions of {makes[1]}x{makes[2]}, got "
                f"{height}x{width}. Give fit='crop', 'pad' or 'stretch', or crop it first."
            )

    @hookimpl(tryfirst=True)  # its noise is the second draw, before those of other plugins
    def start(self, state: State) -> None:
        channels, *size = image_shape_of(state.backend)
        shape = channels, *self._size((size[0], size[1]))
        image = read_picture(self.image, shape, self.fit or "stretch")
        image = state.each(image.to(state.x), "SuperResolution")
        image = image.expand(len(state.x), -1, -1, -1)
        enlarged = F.interpolate(image, state.x.shape[-2:], mode="bilinear", align_corners=True)
        schedule = state.backend.low_res_schedule  # type: ignore[attr-defined]
        level = float(self.noise_level)
        state.beside = {
            **state.beside,
            "low_res": schedule.add_noise(enlarged, state.randn(tuple(enlarged.shape[1:])), level),
            "noise_level": state.x.new_full((len(state.x),), level),
        }

    def _size(self, makes: Size) -> Size:
        """The image's own size or, with ``fit``, a similar size in the model's proportions."""
        _, height, width = shape_of(self.image)
        if self.fit is None:
            return height, width
        shares = height / makes[0], width / makes[1]
        share = min(1.0, min(shares) if self.fit == "crop" else max(shares))
        return max(1, round(share * makes[0])), max(1, round(share * makes[1]))
