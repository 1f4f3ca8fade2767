"""A run for the page: x_0 of every step, then the pictures."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from composer import Sampler, State, Transform, call_of, installed
from composer.animation import animate, still
from composer.contact_sheet import contact_sheet
from composer.images import to_pil
from composer.latents import is_latent
from composer.plugin import views_of
from composer.recipes import describe
from composer.saving import save_images
from composer_studio.cli.short import SHOWN_AT
from composer_studio.runs import PREVIEWED
from composer_studio.web.limits import Limits, guarded
from composer_studio.web.served import Served
from composer_studio.written import Script, library_recipe, read_table, read_text
from composer_studio.written.reading import parsed

if TYPE_CHECKING:
    from PIL import Image

_LARGE = 256
"""Pixels from which an image is saved at its own size."""
AWAY = "far away"


@dataclass(frozen=True)
class Draft:
    """What a visitor wants: a recipe as a table or as text, and the pictures it names.

    Attributes:
        recipe: of TOML, or its table.
        pictures: by the names that the recipe has for them.
        uploads: files that were uploaded, which it may name too.
    """

    recipe: str | Mapping[str, Any]
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    uploads: tuple[Path, ...] = ()

    @property
    def table(self) -> dict[str, Any]:
        """The recipe as a table.

        Raises:
            WrittenError: the text is no TOML.
        """
        if isinstance(self.recipe, str):
            return parsed(self.recipe, "The recipe")
        return dict(self.recipe)


@dataclass(frozen=True)
class Step:
    """How far a run is.

    Attributes:
        done, of: steps.
        preview: x_0 of all images; None where a latent model would have to decode it.
    """

    done: int
    of: int
    preview: Image.Image | None


@dataclass(frozen=True, eq=False)
class Made:
    """The pictures of a run.

    Attributes:
        x: (B, C, H, W).
        views: those that are not the identity, by name; :data:`AWAY` where there are none.
        files: a PNG a seed, which carries its recipe.
    """

    x: Tensor
    views: Mapping[str, Transform | None]
    files: tuple[Path, ...]

    def turned(self, which: int, view: str, share: float) -> Image.Image:
        """One image on its way to a view: 0 is the image, 1 its view."""
        return still(self.x[[which]], self.views[view], share)

    def film(self, which: int) -> Path:
        """A GIF of one image and its views."""
        views = [view for view in self.views.values() if view is not None]
        return animate(self.x[[which]], self.files[which].with_suffix(".gif"), views)

    def remove(self) -> None:
        """Remove the files."""
        for folder in {file.parent for file in self.files}:
            shutil.rmtree(folder, ignore_errors=True)


def script_of(draft: Draft, served: Served) -> tuple[Script, dict[str, Any], list[str]]:
    """The recipe of a draft, checked; as the library has it, its pictures inside; and the options
    of the backend that it loses, because the page's owner sets them.

    The recipe can name no other file than its pictures: they lie in a folder of their own.

    Raises:
        WrittenError, ValueError, LookupError: what is wrong with it.
    """
    table, lost = served.named_alone(draft.table)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, picture in draft.pictures.items():
            picture.save(folder / Path(name).name, "PNG")
        for upload in draft.uploads:
            shutil.copyfile(upload, folder / upload.name)
        if isinstance(draft.recipe, str):
            changes = {"backend": table["backend"]}
            script = read_text(draft.recipe, "The recipe", folder, changes)
        else:
            script = read_table(table, "The form", folder)
        return script, library_recipe(script), lost


def make(
    script: Script, recipe: dict[str, Any], served: Served, limits: Limits, place: Path
) -> Iterator[Step | Made]:
    """Sample a recipe: a Step after each step, and what was Made at the end.

    Args:
        script, recipe: of :func:`script_of`.
        served: the models.
        limits: of the run.
        place: a folder for the pictures, each run's in one of its own.

    Raises:
        ValueError, TypeError, LookupError, RuntimeError: the recipe makes no pictures.
        OverLimitError: it takes too long, or too much.
    """
    limits.check(script)
    backend = served.load(script.written.backend.name)
    recipe = {**recipe, "max_rows": limits.bounded(recipe["max_rows"])}
    sampler, call = Sampler.from_recipe(recipe, backend=backend), call_of(recipe)
    for state in guarded(sampler, limits).stream(**call):
        yield Step(state.step + 1, len(sampler.times) - 1, _preview(state))
    told = describe(sampler.stack, sampler.max_rows, call["condition"], call["seeds"])
    folder = Path(tempfile.mkdtemp(dir=place))
    size = script.written.output.size or (None if max(state.x.shape[-2:]) >= _LARGE else SHOWN_AT)
    files = save_images(to_pil(state.x), state.seeds, told, folder, size)
    yield Made(state.x.float().cpu(), _views(sampler, state.x), tuple(files))


def _views(sampler: Sampler, x: Tensor) -> dict[str, Transform | None]:
    moving = [view for view in views_of(sampler.plugins) if view(x) is not x]
    if not moving:
        return {AWAY: None}
    names = [installed().name_of("transform", type(v)) or type(v).__name__ for v in moving]
    words = [name.replace("_", " ") for name in names]
    single = {word: words.count(word) == 1 for word in words}
    return {
        word if single[word] else f"{word} ({k})": view
        for k, (word, view) in enumerate(zip(words, moving, strict=True), 1)
    }


def _preview(state: State) -> Image.Image | None:
    """x_0 of all images side by side."""
    if state.estimate is None or is_latent(state.backend):
        return None
    x0 = state.estimate.x0[:PREVIEWED].float()
    columns = min(4, len(x0))
    rows = {" " * k: x0[k : k + columns] for k in range(0, len(x0), columns)}
    return contact_sheet(rows, scale=max(1, 512 // (columns * x0.shape[-1])))


def remove(made: Made | None) -> None:
    """Remove the pictures of a run, if there are any."""
    if made is not None:
        made.remove()
