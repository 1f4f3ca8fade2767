"""Super-resolution: enlarge an image with a model that was trained to see a small one."""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn import functional as F

from composer import Plugin, Stack, State, hookimpl
from composer.arguments import finite
from composer.authoring import image_shape_of, low_res_schedule_of
from composer.images import ImageLike, to_tensor


@dataclass(frozen=True, eq=False)
class SuperResolution(Plugin):
    """Show the model a small image, enlarged and noised, beside x at every step.

    With u the image enlarged bilinearly (corners aligned), the model sees

        low_res = alpha(l) u + sigma(l) noise

    on its own path, and is told the level l. Views act on ``low_res`` as they do on x, so an
    anagram stays one. Noise is drawn once, after the initial noise of x.

    Ho et al. 2022, "Cascaded Diffusion Models" (conditioning augmentation), arXiv 2106.15282.

    Args:
        image: PIL image or tensor (C, h, w) or (B, C, h, w) in [-1, 1], of any size in
            the proportions of what is made; one, or one a seed. The result of the stage before,
            as it is.
        noise_level: l, a time of the model's low-resolution schedule: 0 trusts the image, 250 is
            what IF's second stage takes.
    """

    unique = "give the low-resolution image"

    image: ImageLike
    noise_level: float = 250

    def __post_init__(self) -> None:
        to_tensor(self.image, "SuperResolution: image")
        finite(self.noise_level, "SuperResolution: noise_level")

    @hookimpl
    def check(self, stack: Stack) -> None:
        schedule = low_res_schedule_of(stack.backend)
        if schedule is None:
            raise ValueError(
                f"SuperResolution: {type(stack.backend).__name__} takes no low-resolution image; "
                "load one that does, such as load_backend('deepfloyd', stage=2)"
            )
        if not 0 <= self.noise_level < len(schedule):
            raise ValueError(
                f"SuperResolution: noise_level must be in [0, {len(schedule) - 1}], got "
                f"{self.noise_level!r}"
            )
        # A latent model makes other channels than those of the image that it sees beside them.
        makes = image_shape_of(stack.backend)[0]
        if (channels := to_tensor(self.image).shape[1]) != makes:
            raise ValueError(
                f"SuperResolution: image has {channels} channel(s) but the backend makes {makes}; "
                "convert it first"
            )
        makes_height, makes_width = image_shape_of(stack.backend)[1:]
        height, width = to_tensor(self.image).shape[-2:]
        # Up to a pixel, by which a picture of other proportions may have been rounded.
        if abs(height * makes_width - width * makes_height) > max(makes_width, makes_height):
            raise ValueError(
                f"SuperResolution: image of {height}x{width} would be stretched to "
                f"{makes_height}x{makes_width}; crop it to these proportions"
            )

    @hookimpl(tryfirst=True)  # its noise is the second draw, whatever others draw
    def start(self, state: State) -> None:
        image = state.each(to_tensor(self.image).to(state.x), "SuperResolution")
        image = image.expand(len(state.x), -1, -1, -1)
        enlarged = F.interpolate(image, state.x.shape[-2:], mode="bilinear", align_corners=True)
        schedule = state.backend.low_res_schedule  # type: ignore[attr-defined]
        level = float(self.noise_level)
        state.beside = {
            **state.beside,
            "low_res": schedule.add_noise(enlarged, state.randn(tuple(enlarged.shape[1:])), level),
            "noise_level": state.x.new_full((len(state.x),), level),
        }
