"""``composer rank``: the scores of a folder's pictures, and the best of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from composer.limits import MAX_PIXELS
from composer.writing import require_folder, write_atomically, write_folder
from composer_studio.folders import locked, read_rows, write_rows
from composer_studio.remembered import NothingRememberedError, read_memory
from composer_studio.replaying import AGAIN
from composer_studio.scoring import Score, score_of, scores_of

SHEET = "sheet.png"
_BATCH = 32
Size = tuple[int, ...]


@dataclass(frozen=True)
class Ranked:
    """A picture and its score."""

    file: Path
    score: float


def rank(
    folder: Path, named: Mapping[str, Any], best: int, out: Path, typed: bool = True
) -> list[Ranked]:
    """Score the pictures of a folder, note the scores in metadata.jsonl, copy out the best.

    Args:
        folder: of PNG and WebP files that carry their recipes; copies that ``composer replay``
            wrote beside them do not count.
        named: the score, as :func:`~composer_studio.scoring.score_of` has it.
        best: so many are copied.
        out: a folder for them, and for a contact sheet of them, sheet.png.
        typed: as for ``score_of``.

    Returns:
        All pictures, the best first.

    Raises:
        ValueError, TypeError, LookupError: no pictures, or the score does not fit them.
        OSError: a file cannot be read or written.
    """
    files = _pictures(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: it must be a folder. Name a folder of pictures.")
    require_folder(out)
    with locked(folder):
        found = dict(_scored(files, named, typed))
        if not found:
            raise ValueError(f"{folder}: no picture in it carries a recipe.")
        rows = {row["file_name"]: row for row in read_rows(folder)}
        for file, (value, seed) in found.items():
            rows.setdefault(file.name, {"file_name": file.name, "seed": seed})
            rows[file.name][named["score"]] = value
        write_rows(folder, list(rows.values()))
    order = sorted(found, key=lambda file: (-found[file][0], file.name))
    _copy(order[:best], out)
    return [Ranked(file, found[file][0]) for file in order]


def _pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, without those that ``composer replay`` made beside them."""
    found = sorted(p for s in ("*.png", "*.webp") for p in folder.glob(s))
    again = {f"{picture.stem}{AGAIN}" for picture in found}
    return [picture for picture in found if picture.stem not in again]


def _scored(
    files: Sequence[Path], named: Mapping[str, Any], typed: bool
) -> Iterator[tuple[Path, tuple[float, int]]]:
    """(file, (score, seed)): the pictures of one recipe and size are scored together."""
    groups: dict[tuple[str, Size], tuple[Score, list[tuple[Path, int, Tensor]]]] = {}
    made: dict[str, Score] = {}
    for file in files:
        try:
            memory = read_memory(file)
        except NothingRememberedError:  # a contact sheet, say
            continue
        wanted = json.dumps([memory.recipe.get("plugins"), _condition(memory.recipe)])
        if wanted not in made:
            made[wanted] = score_of(named, memory.recipe, typed)
        score = made[wanted]
        x = _tensor(file, score)
        _, waiting = groups.setdefault((wanted, tuple(x.shape)), (score, []))
        waiting.append((file, memory.seed, x))
        if len(waiting) == _BATCH:
            yield from _batch(score, waiting)
            waiting.clear()
    for score, waiting in groups.values():
        if waiting:
            yield from _batch(score, waiting)


def _condition(recipe: Mapping[str, Any]) -> Any:
    call = recipe.get("call")
    return call.get("condition") if isinstance(call, dict) else None


def _batch(
    score: Score, waiting: Sequence[tuple[Path, int, Tensor]]
) -> Iterator[tuple[Path, tuple[float, int]]]:
    x = torch.stack([one for _, _, one in waiting])
    for (file, seed, _), value in zip(waiting, scores_of(score, x), strict=True):
        yield file, (value, seed)


def _tensor(file: Path, score: Score) -> Tensor:
    """(C, H, W) in [-1, 1]; of the shape that the score declares, if it does."""
    with Image.open(file, formats=["PNG", "WEBP"]) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{file}: it has more than {MAX_PIXELS} pixels.")
        picture: Image.Image = opened.convert("RGB")
    shape: tuple[int, int, int] | None = getattr(score, "image_shape", None)
    if shape is not None:
        picture = picture.convert("L" if shape[0] == 1 else "RGB")
        if picture.size != (shape[2], shape[1]):
            picture = picture.resize((shape[2], shape[1]), Image.Resampling.BOX)
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32))
    return pixels.reshape(picture.height, picture.width, -1).permute(2, 0, 1) / 127.5 - 1


def _copy(files: Sequence[Path], out: Path) -> None:
    """The files and a sheet of them, each whole."""

    def write(folder: Path) -> None:
        for file in files:
            shutil.copyfile(file, folder / file.name)

    write_folder(out, write)
    sheet = sheet_of(files)
    write_atomically(out / SHEET, lambda unfinished: sheet.save(unfinished, "PNG"))


def sheet_of(files: Sequence[Path], columns: int = 8, side: int = 112) -> Image.Image:
    """Pictures from files, in rows."""
    rows = -(-len(files) // columns)
    width = min(columns, len(files)) * (side + 4) + 4
    sheet = Image.new("RGB", (width, rows * (side + 4) + 4), "white")
    for k, file in enumerate(files):
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        squares = max(picture.size) < side
        how = Image.Resampling.NEAREST if squares else Image.Resampling.LANCZOS
        picture = picture.resize((side, side), how)
        sheet.paste(picture, (4 + k % columns * (side + 4), 4 + k // columns * (side + 4)))
    return sheet
