"""Edits of given images: SDEdit and inpainting."""

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
"""Shares of the plan to skip."""
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
    """Test digits noised and denoised again, from much noise to little."""
    return _strips(
        lab,
        f"SDEdit of test digits, of {lab.effort.steps} steps",
        _test_digits(lab, 2, 4, 5, 7),
        "A later start adds less noise and keeps more of the image. An early start keeps little, "
        "and the model makes another digit, or the same digit by another writer.",
    )


def sdedit_drawn(lab: Lab) -> Sheet:
    """Quick drawings, unlike MNIST, and the model's edits of them."""
    return _strips(
        lab,
        f"SDEdit of hand-drawn digits and other drawings, of {lab.effort.steps} steps",
        drawn(),
        "In the middle columns, the lines are the drawing's and the strokes the data set's. The "
        "house and the face become digits if there is enough noise.",
    )


def sdedit_class(lab: Lab) -> Sheet:
    """The same with the condition 8, which acts as a text prompt does."""
    images = {**_test_digits(lab, 2, 4, 5), "drawn": drawn()["a 7"]}
    return _strips(
        lab,
        f"Class-conditional SDEdit: make it an {WISH}, of {lab.effort.steps} steps",
        images,
        f"The class {WISH} (guidance 3) acts as a prompt of a text-to-image model: it decides the "
        "digit, and the noised image decides slant and place.",
        WISH,
    )


def inpainting(lab: Lab) -> Sheet:
    """The lower half of test digits repainted by three methods, then as a 3 and as an 8."""
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
    told = [Row(f"RePaint, class {wish}", made("repaint 5x2", wish)) for wish in (3, 8)]
    return Sheet(
        "Inpainting: the lower half repainted",
        [given, untold, told],
        (),
        "Equation A.5 replaces the upper half after each step, noised to the level of x. RePaint "
        "repeats some steps and LanPaint walks at each level, so that the halves agree. These "
        "three have no condition and may complete another digit; the upper half stays as it is. "
        "With a class, the lower half follows it where the upper half allows.",
    )
