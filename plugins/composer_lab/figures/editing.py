"""Changing images that there are: SDEdit and inpainting."""

from __future__ import annotations

import torch
from torch import Tensor

from composer_lab.evaluation.inpainting import METHODS, lower_half
from composer_lab.figures.drawn import drawn
from composer_lab.figures.lab import Lab
from composer_lab.figures.sheets import Row, Sheet
from composer_plugins.editing.sdedit import SDEdit
from composer_plugins.guidance.cfg import CFG

MODEL = "mnist"
STARTS = (0.05, 0.15, 0.25, 0.35, 0.5, 0.65, 0.8)
"""Shares of the plan to leave out."""
WISH = 8


def edited(lab: Lab, images: Tensor, wish: int | None = None) -> Tensor:
    """Images (B, 1, 28, 28) noised to each of STARTS and denoised: (B, starts, 1, 28, 28)."""
    guidance = [] if wish is None else [CFG(3.0)]
    strips = [
        lab.sample(MODEL, [SDEdit(images, i_start=start), *guidance], wish, lab.seeds(len(images)))
        for start in starts(lab)
    ]
    return torch.stack(strips, 1)


def starts(lab: Lab) -> list[int]:
    """STARTS as indices in the plan, each once."""
    return sorted({lab.effort.start(share) for share in STARTS})


def _strips(lab: Lab, title: str, images: dict[str, Tensor], caption: str, *wish: int) -> Sheet:
    given = torch.cat([*images.values()])
    strips = torch.cat([edited(lab, given, *wish), given[:, None]], 1)
    rows = [Row(label, strip) for label, strip in zip(images, strips, strict=True)]
    columns = [f"i_start {start}" for start in starts(lab)]
    return Sheet(title, [rows], [*columns, "the image"], caption)


def _test_digits(lab: Lab, *kinds: int) -> dict[str, Tensor]:
    return {f"a {kind}": lab.digits([kind], which=1) for kind in kinds}


def sdedit(lab: Lab) -> Sheet:
    """Test digits noised and denoised again, from almost nothing left to almost all."""
    return _strips(
        lab,
        f"SDEdit of test digits, of {lab.effort.steps} steps",
        _test_digits(lab, 2, 4, 5, 7),
        "The later it starts, the less is noised, and the more of the image is kept. What early "
        "starts forget is made anew: another digit, or the same in another hand.",
    )


def sdedit_drawn(lab: Lab) -> Sheet:
    """Hasty drawings, not of MNIST's hand, and what the model makes of them."""
    return _strips(
        lab,
        f"SDEdit of hand-drawn digits, and of what is none, of {lab.effort.steps} steps",
        drawn(),
        "In the middle, lines are those of the drawing, strokes those of the data set. A house "
        "and a face are no digits: with enough noise they become one.",
    )


def sdedit_class(lab: Lab) -> Sheet:
    """The same, each digit to become an 8: the MNIST sibling of a text prompt."""
    images = {**_test_digits(lab, 2, 4, 5), "drawn": drawn()["a 7"]}
    return _strips(
        lab,
        f"Class-conditional SDEdit: make it an {WISH}, of {lab.effort.steps} steps",
        images,
        f"As a prompt would for a text-to-image model, the class {WISH} (guidance 3) says what to "
        "make of the noised image; slant and place remain.",
        WISH,
    )


def inpainting(lab: Lab) -> Sheet:
    """The lower half of test digits made anew, in three ways, then as a 3 and as an 8."""
    digits, mask = lab.digits(range(10)), lower_half()
    seeds = lab.seeds(len(digits))

    def made(method: str, wish: int | None = None) -> Tensor:
        return lab.sample(MODEL, [METHODS[method](digits, mask), CFG(3.0)], wish, seeds)

    given = [
        Row("test digit", digits),
        Row("what is kept", torch.where(mask == 1, 0.0, digits)),
    ]
    untold = [
        Row("put back (A.5)", made("renoise")),
        Row("RePaint", made("repaint 5x2")),
        Row("LanPaint", made("lanpaint 3")),
    ]
    told = [Row(f"RePaint, told {wish}", made("repaint 5x2", wish)) for wish in (3, 8)]
    return Sheet(
        "Inpainting: the lower half made anew",
        [given, untold, told],
        (),
        "Putting the upper half back after each step, noised to the level of the moment, is "
        "equation A.5; RePaint takes some steps twice, LanPaint walks at each level, so that the "
        "halves come to agree. These three are told nothing, and may see another digit in the "
        "upper half, which is kept exactly. Told a class, the lower half obeys where it can.",
    )
