"""A.0: what the number of steps does to a picture.

Every step is one call of the network. In few steps each has far to go on a guess made in noise, and
part of the prompt is lost; from 100 to 999 little is gained. The times are spaced evenly, and
guidance is 7, as in diffusers' IFPipeline.
"""

from collections import defaultdict
from pathlib import Path

import common
import torch
from common import Course
from torch import Tensor

from composer import Sampler
from composer_plugins import CFG

PROMPTS = (
    "an oil painting of a snowy mountain village",
    "a man wearing a hat",
    "a rocket ship",
)
RUNS = {11220099: (5, 15), 100: (10, 100, 999)}  # {seed: numbers of steps}


def sample(course: Course, seed: int, steps: int, prompt: str) -> Tensor:
    sampler = Sampler(course.backend, [CFG(7.0)], num_inference_steps=steps)
    return sampler.sample(prompt, [seed]).x


def run(course: Course) -> list[Path]:
    course.encode(PROMPTS)
    sheets: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for seed, counts in RUNS.items():
        for steps in course.steps or counts:
            strips = defaultdict(list)
            for prompt in PROMPTS:
                x = sample(course, seed, steps, prompt)
                for suffix, images in course.enlarged(x, [seed], prompt).items():
                    strips[suffix].append(images)
            for suffix, strip in strips.items():
                sheets[suffix][f"{steps} steps, seed {seed}"] = torch.cat(strip)
    columns = [prompt.removeprefix("an oil painting of ") for prompt in PROMPTS]
    return [course.save(f"sampling{suffix}", rows, columns) for suffix, rows in sheets.items()]


if __name__ == "__main__":
    common.main(run, __doc__)
