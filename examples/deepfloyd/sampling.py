"""A.0: what the number of steps does to a picture.

Every step is one call of the network. In few steps each has far to go on a guess made in noise, and
part of the prompt is lost; from 100 to 999 little is gained. The times are spaced evenly, and
guidance is 7, as in diffusers' IFPipeline.
"""

from collections import defaultdict
from pathlib import Path

import common
import torch
from common import SUFFIXES, Course
from torch import Tensor

PROMPTS = (
    "an oil painting of a snowy mountain village",
    "a man wearing a hat",
    "a rocket ship",
)
RUNS = {11220099: (5, 15), 100: (10, 100, 999)}  # {seed: numbers of steps}


def run(course: Course) -> list[Path]:
    course.encode(PROMPTS)
    sheets: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for seed, counts in RUNS.items():
        for steps in course.steps or counts:
            strips = defaultdict(list)
            for prompt in PROMPTS:
                results = course.cascade(steps=steps).sample(prompt, [seed])
                for suffix, result in zip(SUFFIXES, results, strict=False):
                    strips[suffix].append(result.x)
            for suffix, strip in strips.items():
                sheets[suffix][f"{steps} steps, seed {seed}"] = torch.cat(strip)
    columns = [prompt.removeprefix("an oil painting of ") for prompt in PROMPTS]
    return [course.save(f"sampling{suffix}", rows, columns) for suffix, rows in sheets.items()]


if __name__ == "__main__":
    common.main(run, __doc__)
