"""Digits from noise: by class, by guidance scale, by number of steps, and step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from composer_lab.figures.films import Film
from composer_lab.figures.lab import Lab
from composer_lab.figures.sheets import Row, Sheet
from composer_lab.training.snapshots import plan
from composer_plugins.guidance.cfg import CFG

SCALES = (0.0, 1.0, 2.0, 5.0, 10.0)
GUIDED = (2, 4, 7)
"""Conditions of the guidance sweep."""
STEPS, DIGIT = (1, 2, 3, 5, 10, 20, 50), 3
SCALE = 2.0


def of_each_class(lab: Lab, model: str, scale: float, count: int) -> Tensor:
    """(10, count, 1, 28, 28): image k of every class starts from the same noise."""
    samples = [lab.sample(model, [CFG(scale)], digit, lab.seeds(count)) for digit in range(10)]
    return torch.stack(samples)


def classes(lab: Lab, model: str) -> Sheet:
    """Samples of each class, and unconditional ones."""
    seeds = lab.seeds(max(1, lab.effort.columns // 2))
    asked = of_each_class(lab, model, SCALE, len(seeds)).transpose(0, 1)
    free = lab.sample(model, [], None, lab.seeds(10))
    rows = [Row(f"seed {seed}", strip) for seed, strip in zip(seeds, asked, strict=True)]
    _, steps = plan(lab.models[model](), lab.effort.steps)
    return Sheet(
        f"Samples by class, {lab.names[model]}, {steps} steps",
        [rows, [Row("no class", free, [f"seed {seed}" for seed in lab.seeds(10)])]],
        [str(digit) for digit in range(10)],
        f"Guidance {SCALE:g}. A row shows one noise under ten conditions; slant and stroke stay. "
        "Below, ten noises without a condition.",
    )


def guidance(lab: Lab, model: str) -> Sheet:
    """Guidance scales from 0 to far too much, with the same seeds at each."""
    seeds = lab.seeds(max(2, lab.effort.columns // 2))
    rows = [Row(f"scale {scale:g}", swept(lab, model, scale, seeds)) for scale in SCALES]
    return Sheet(
        f"Guidance, {lab.names[model]}: uncond + scale · (cond - uncond)",
        [rows],
        [f"a {digit}" for digit in GUIDED for _ in seeds],
        "Each digit starts from the same noises. Scale 0 ignores the condition, so all digits are "
        "equal; 1 is the conditional model. A larger scale makes digits clearer and less varied: "
        "strokes thicken, slants become alike, and contrast is too high.",
    )


def swept(lab: Lab, model: str, scale: float, seeds: range) -> Tensor:
    """Samples of every condition in GUIDED at one scale, seeds side by side."""
    return torch.cat([lab.sample(model, [CFG(scale)], digit, seeds) for digit in GUIDED])


def steps(lab: Lab, model: str) -> Sheet:
    """The same noises in few steps and in many."""
    counts = [count for count in STEPS if count <= 2.5 * lab.effort.steps]
    rows = [
        Row(
            f"{count} step{'s' if count > 1 else ''}",
            lab.sampler(model, [CFG(SCALE)], count).sample(DIGIT, lab.seeds()).x,
        )
        for count in counts
    ]
    return Sheet(
        f"Number of steps, {lab.names[model]}, condition {DIGIT}",
        [rows],
        [f"seed {seed}" for seed in lab.seeds()],
        f"Guidance {SCALE:g}. One step gives the mean of the class, moved by guidance as far again "
        "from the mean of all digits; what more than ten steps add is hard to see.",
    )


def film(lab: Lab) -> Film:
    """Ten digits emerge from noise: x_t above, the estimated clean images below."""
    runs = [lab.sampler("mnist", [CFG(SCALE)]).stream(digit, [lab.seed]) for digit in range(10)]
    frames, headings = [], []
    for states in zip(*runs, strict=True):
        estimates = [state.estimate for state in states if state.estimate is not None]
        x, x0 = (torch.cat(parts) for parts in zip(*((e.x, e.x0) for e in estimates), strict=True))
        frames.append({"x_t": x, "x_0": x0})
        headings.append(f"t = {estimates[0].t:.2f}")
    frames.append({"x_t": torch.cat([state.x for state in states]), "x_0": x0})
    return Film(frames, [*headings, "t = 1.00"])
