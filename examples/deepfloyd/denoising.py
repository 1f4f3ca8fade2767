"""A.1.3 and A.1.4: denoise in one step, and in many.

The network estimates the noise eps in x_t. Solved for x_0, the forward process (A.2) turns that
into an estimate of the clean image:

    x_0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t)

The noisier x_t, the blurrier this is: it is the mean of all pictures that x_t may have been. So go
a little way towards it only, from t to t' = t - 30, and ask again:

    x_t' = sqrt(abar_t') beta / (1 - abar_t) x_0 + sqrt(alpha) (1 - abar_t') / (1 - abar_t) x_t
           + v_sigma,        alpha = abar_t / abar_t',  beta = 1 - alpha                (A.3)

v_sigma is fresh noise, as much as the network says in its other three channels. That is one step
of the solver DDPM, which IF uses by default; i_start says where on the way to begin.
"""

from pathlib import Path

import common
import torch
from common import NEUTRAL, Course
from forward import BLUR, SEED, TIMES, noised
from torch import Tensor

from composer import Sampler, State
from composer_plugins import SDEdit

I_START = 10
EVERY = 5


def one_step(course: Course) -> Tensor:
    """The photo noised to TIMES and denoised at once, (3, 3, H, W)."""
    sampler = Sampler(course.backend)
    pairs = zip(noised(course).split(1), TIMES, strict=True)
    return torch.cat([sampler.denoise(x, t, NEUTRAL).x0 for x, t in pairs])


def iterative(course: Course) -> list[State]:
    """Every state on the way from i_start to the clean image."""
    sampler = course.sampler(SDEdit(course.photo, i_start=course.i_start(I_START)))
    return list(sampler.stream(NEUTRAL, seeds=[SEED]))


def run(course: Course) -> list[Path]:
    course.encode([NEUTRAL])
    rows = {"noised": noised(course), "denoised at once": one_step(course)}
    files = [course.save("denoising-one-step", rows, [f"t = {t}" for t in TIMES])]

    states = iterative(course)
    # What each step was given, and what it took for the clean image.
    given = [state.estimate for state in states[::EVERY] if state.estimate is not None]
    rows = {"x_t": torch.cat([e.x for e in given]), "x_0": torch.cat([e.x0 for e in given])}
    files.append(course.save("denoising-snapshots", rows, [f"t = {e.t:g}" for e in given]))

    last, start = states[-1].x, given[0]
    compared = torch.cat([course.photo, start.x, last, start.x0, BLUR(start.x)])
    rows = {f"i_start {course.i_start(I_START)}": compared}
    columns = ["photo", "noised", "many steps", "one step", "blurred"]
    return [*files, course.save("denoising-compared", rows, columns)]


if __name__ == "__main__":
    common.main(run, __doc__)
