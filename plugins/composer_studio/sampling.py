"""``composer sample``: a recipe to files, whole batches at a time."""

from __future__ import annotations

import heapq
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from composer import Result, State, Transform, installed
from composer.contact_sheet import contact_sheet
from composer.recipes import Trust
from composer.writing import require_folder, write_atomically
from composer_studio.cli.errors import StoppedError
from composer_studio.folders import made
from composer_studio.runs import BATCH, SHOWN, Preview, Run, joined
from composer_studio.scoring import Score, score_of, scores_of
from composer_studio.written import Script, WrittenError, library_recipe
from composer_studio.written.reading import code_of

SHEET, FILM = "sheet.png", "animation"
FILMED = 16
"""Images of a film: more would be too small to read."""


@dataclass(frozen=True)
class Made:
    """What a call of :func:`sample_to_files` wrote.

    Attributes:
        folder: where.
        pictures: the files of single images, the best first if they were chosen.
        scores: of these, if they were.
        others: the sheet and the film.
    """

    folder: Path
    pictures: tuple[Path, ...]
    scores: tuple[float, ...] = ()
    others: tuple[Path, ...] = ()


def sample_to_files(
    script: Script,
    out: Path | None = None,
    trust: Trust = (),
    batch: int = BATCH,
    typed: bool = False,
) -> Made:
    """Sample a recipe into a folder.

    Args:
        script: the recipe; its output says what is written.
        out: the folder, in place of the recipe's.
        trust: options of the backend that the recipe may set, as ``Sampler.from_recipe`` has it.
        batch: images at a time; what is written when it is stopped.
        typed: whether the user typed the score, which then may name files.

    Raises:
        ValueError, TypeError, LookupError: the recipe makes no sampler.
        OSError: a file cannot be written.
        StoppedError: Ctrl-C; the files are whole.
    """
    output = script.written.output
    folder = folder_of(script) if out is None else out
    score = score_of_output(script, folder, typed)
    run = Run.of(script, trust)
    keeper = Keeper(folder, output.size, output.best, score)
    with made(folder), _shown(run, folder, batch) as callback:
        try:
            for result in run.batches(batch, callback):
                keeper.add(result)
        except KeyboardInterrupt:
            keeper.finish()
            raise StoppedError(keeper.hint(run)) from None
    keeper.finish()
    return Made(folder, *keeper.written(), tuple(_others(script, keeper.kept(), folder)))


def folder_of(script: Script) -> Path:
    """The folder that a recipe names, inside its own; by default it is called like the recipe.

    Raises:
        WrittenError: it is elsewhere.
    """
    named = script.written.output.folder
    if script.folder is None:
        return Path(named or "pictures")
    folder = script.folder / (named or Path(script.source).stem)
    if not folder.resolve().is_relative_to(script.folder.resolve()):
        raise WrittenError(
            [f"{script.source}: output.folder must lie in the recipe's folder. Use --out."]
        )
    return folder


@dataclass
class Keeper:
    """Writes each batch, or holds the best of all and writes them at the end."""

    folder: Path
    size: int | None
    best: int | None = None
    score: Score | None = None
    done: int = 0
    _files: list[Path] = field(default_factory=list)
    _first: list[Result] = field(default_factory=list)
    _heap: list[tuple[float, int, Result]] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Take one batch."""
        if self.score is None or self.best is None:
            self._files += result.save(self.folder, self.size)
            if self.done < SHOWN:
                self._first.append(result[: SHOWN - self.done])
        else:
            for one, value in zip(result, scores_of(self.score, result.x), strict=True):
                heapq.heappush(self._heap, (value, -one.seeds[0], one))
                if len(self._heap) > self.best:
                    heapq.heappop(self._heap)
        self.done += len(result)

    def finish(self) -> None:
        """Write the best, the best first."""
        self._heap.sort(reverse=True)
        for _, _, one in self._heap:
            self._files += one.save(self.folder, self.size)
            self._first.append(one)

    def kept(self) -> list[Result]:
        """What a sheet shows."""
        return self._first

    def written(self) -> tuple[tuple[Path, ...], tuple[float, ...]]:
        """The files, and their scores if they were chosen."""
        return tuple(self._files), tuple(value for value, _, _ in self._heap)

    def hint(self, run: Run) -> str:
        """How to go on after Ctrl-C."""
        if not self.done:
            return "No picture was finished. The same command begins again."
        rest = run.seeds[self.done :]
        ranged = all(b == a + 1 for a, b in pairwise(rest))
        seeds = f"{rest[0]}:{rest[-1] + 1}" if ranged else f"[{', '.join(map(str, rest))}]"
        said = seeds if len(seeds) < 200 else f"those after {run.seeds[self.done - 1]}"
        return (
            f"{len(self._files)} whole pictures are in {self.folder}. To make the rest, add "
            f"--seeds {said!r}."
        )


def score_of_output(script: Script, folder: Path, typed: bool = False) -> Score | None:
    """The score of what is kept, if one chooses; checks what the end needs before the work.

    Raises:
        ValueError, TypeError, LookupError: the recipe's output is not possible.
        OSError: the folder is a file.
    """
    require_folder(folder)
    output = script.written.output
    if output.animate == "mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise WrittenError(
            [f"{script.source}: mp4 needs the extra video: pip install 'diffusion-composer[video]'"]
        )
    if output.best is None:
        return None
    if output.score is None:
        raise WrittenError([f"{script.source}: best needs a score, such as --score reads_as."])
    return score_of(code_of(output.score, script), library_recipe(script), typed)


@contextmanager
def _shown(run: Run, folder: Path, batch: int) -> Iterator[Callable[[State], None]]:
    """A progress bar and a preview; both go away."""
    steps = len(run.sampler.times) - 1
    total = steps * -(-len(run.seeds) // batch)
    preview = Preview(folder)
    with tqdm(total=total, unit="step", disable=not sys.stderr.isatty(), leave=False) as bar:

        def callback(state: State) -> None:
            bar.update()
            preview(state)

        try:
            yield callback
        finally:
            preview.remove()


def _sheet(result: Result) -> Image.Image:
    """All images; those with views, the first eight through each of them."""
    views = [view for view in result.views if view(result.x) is not result.x]
    if not views:
        return result.sheet()
    few = result.x[:8].float().cpu()
    rows = {"": few, **{_name(view): view(few) for view in views}}
    return contact_sheet(rows, scale=max(1, 112 // few.shape[-1]))


def _name(view: Transform) -> str:
    """A view as a recipe names it."""
    return installed().name_of("transform", type(view)) or type(view).__name__


def _others(script: Script, kept: list[Result], folder: Path) -> Iterator[Path]:
    output = script.written.output
    if not kept or not (output.sheet or output.animate):
        return
    result = joined(kept)
    if output.sheet:
        sheet = _sheet(result)
        write_atomically(folder / SHEET, lambda unfinished: sheet.save(unfinished, "PNG"))
        yield folder / SHEET
    if output.animate:
        film = folder / f"{FILM}.{output.animate}"
        write_atomically(film, result[:FILMED].animate)
        yield film
