"""Inversion: the noise from which a sampler makes a given image."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from composer import Sampler
from composer.arguments import finite, integer
from composer.authoring import draw, image_shape_of, require_coder, to_latents
from composer.errors import shown
from composer.images import Fit, ImageLike, check_fit, read_picture
from composer_plugins.editing.sdedit import steps_taken


class Inverted(NamedTuple):
    """What to begin a run with: ``sampler.sample(condition, seeds, x=inverted.x, t=inverted.t)``.

    Attributes:
        x: the noised images (B, C, H, W).
        t: their time, one of the sampler's.
    """

    x: Tensor
    t: float


@torch.no_grad()
def invert(
    sampler: Sampler,
    image: ImageLike,
    condition: Any = None,
    strength: float = 1.0,
    iterations: int = 1,
    controller: float = 0.0,
    seed: int = 0,
    fit: Fit | None = None,
) -> Inverted:
    """Carry images back along the sampler's plan, from clean to noisy.

    Let u = x / (alpha + sigma), tau = sigma / (alpha + sigma) and v = noise - x_0. A step of Euler
    or DDIM from the noisier time t to s is u_s = u_t + (tau_s - tau_t) v(u_t, t). The inverse
    solves this for u_t by repetition, from u_t = u_s on:

        u_t <- u_s + (tau_t - tau_s) v(u_t, t).

    One repetition is DDIM inversion (Song et al. 2021, arXiv 2010.02502, section 4.3). More make
    the inverse exact where the step is short enough for them to converge (Pan et al. 2023, "AIDI",
    arXiv 2309.04907). Sample with ``Euler()`` or ``DDIM()`` and the same plugins and steps to get
    the image back; another condition edits it. Invert without guidance, which amplifies errors.

    A ``controller`` gamma replaces v by (1 - gamma) v + gamma (y - u_s) / (1 - tau_s), which leads
    straight to a drawn noise y: the inversion of Rout et al. 2024, "RF Inversion", arXiv
    2410.10792, equation 8, whose result looks more like noise. :class:`RFInversion` is its other
    half.

    Args:
        sampler: the stack. Its solver takes no steps, but its plan is followed.
        image: as for SDEdit; one or several.
        condition: describes the image, as for ``sampler.denoise``.
        strength: the last int(n * strength) of the n steps are inverted, as in SDEdit.
        iterations: evaluations per step, 1 to 1000.
        controller: gamma, in [0, 1].
        seed: of y of the first image; the next image has the next seed.
        fit: as for SDEdit.
    """
    if not isinstance(sampler, Sampler):
        raise TypeError(
            f"invert: sampler must be a Sampler, got {shown(sampler)}. "
            "Use Sampler(backend, plugins)."
        )
    check_fit(fit, "invert")
    integer(seed, "invert: seed", least=0, most=2**32 - 1)
    integer(iterations, "invert: iterations", least=1, most=1000)
    if not 0 <= finite(controller, "invert: controller") <= 1:
        raise ValueError(f"invert: controller must be in [0, 1], got {controller}.")
    backend, schedule = sampler.backend, sampler.backend.schedule
    require_coder(backend, "invert")
    pixels = read_picture(image, image_shape_of(backend), fit, "invert: image")
    clean = to_latents(backend, pixels.to(backend.device, backend.dtype))
    generators = [torch.Generator().manual_seed(seed + k) for k in range(len(clean))]
    noise = draw(generators, backend) if controller else torch.zeros_like(clean)
    taken = steps_taken(len(sampler.times) - 1, strength, "invert")
    plan = sampler.times[-1 - taken :][::-1]  # from clean to noisy
    u = clean / sum(schedule.at(plan[0]))
    for s, t in pairwise(plan):
        tau_s, tau_t = schedule.noise_level(s), schedule.noise_level(t)
        straight = (noise - u) / (1 - tau_s)
        ahead = u
        for _ in range(iterations):
            estimate = sampler.denoise(sum(schedule.at(t)) * ahead, t, condition)
            v = torch.lerp(estimate.noise - estimate.x0, straight, controller)
            ahead = u + (tau_t - tau_s) * v
        u = ahead
    return Inverted(sum(schedule.at(plan[-1])) * u, plan[-1])
