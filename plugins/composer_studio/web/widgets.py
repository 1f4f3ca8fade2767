"""How each kind of field is entered: Gradio components, and the way to options and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from PIL import Image

from composer_studio.web.fields import Field, text_of, value_of
from composer_studio.written import WrittenError
from composer_studio.written.models import USE

if TYPE_CHECKING:
    from gradio.components import Component

Pictures = dict[str, Image.Image]
ROWS = 4
"""Views that a form has room for."""
NARROW = 120
"""Pixels of a field that shares its row."""
CANVAS = 336
"""Pixels of an empty canvas."""
_PAINTED = 64
"""The opacity from which a brush has painted, of 255."""


class UnshowableError(ValueError):
    """A value that the form has no place for; the recipe's text has."""


class Widget:
    """One field of a form. A subclass makes its components, and reads and shows them.

    Args:
        field: of the option.
        owner: the plugin's name, for sentences and for the names of pictures.
    """

    def __init__(self, field: Field, owner: str) -> None:
        self.field, self.owner = field, owner
        self.components: list[Component] = self.made()

    def made(self) -> list[Component]:
        """The components, placed where it is called."""
        raise NotImplementedError

    def read(self, entered: Sequence[Any], pictures: Pictures) -> dict[str, Any]:
        """The options that were entered; pictures are added to ``pictures``.

        Raises:
            WrittenError: what was entered is no value.
        """
        value = self.value(entered[0])
        default = not self.field.required and value == self.field.default
        return {} if value is None or default else {self.field.name: value}

    def value(self, entered: Any) -> Any:
        """The option of what one component holds; None if it is left out."""
        return entered

    def show(self, options: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> list[Any]:
        """What the components hold for these options; an editor whose picture is not in
        ``pictures`` keeps its own.

        Raises:
            UnshowableError: they cannot.
        """
        return [self.shown(options.get(self.field.name, self.field.default))]

    def shown(self, value: Any) -> Any:
        """What one component holds for an option."""
        return value

    def _unshowable(self) -> UnshowableError:
        return UnshowableError(f"The form has no place for {self.owner}.{self.field.name}.")


class Switch(Widget):
    def made(self) -> list[Component]:
        return [gr.Checkbox(bool(self.field.default), label=self.field.label)]


class Number(Widget):
    def made(self) -> list[Component]:
        precision = 0 if self.field.kind == "whole" else None
        number = gr.Number(
            self.field.default, label=self.field.label, precision=precision,
            step=1 if self.field.kind == "whole" else 0.1, min_width=NARROW,
        )  # fmt: skip
        return [number]

    def shown(self, value: Any) -> Any:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise self._unshowable()
        return value


class Choice(Widget):
    def made(self) -> list[Component]:
        empty = [] if self.field.default else [("by default", "")]
        choices = [*empty, *((choice, choice) for choice in self.field.choices)]
        return [
            gr.Dropdown(
                choices, value=self.field.default or "", label=self.field.label, min_width=NARROW
            )
        ]

    def value(self, entered: Any) -> Any:
        return entered or None

    def shown(self, value: Any) -> Any:
        return value or ""


class Value(Widget):
    """A condition, list or table, as text."""

    def made(self) -> list[Component]:
        default = text_of(self.field.default)
        return [gr.Textbox(default, label=self.field.label, max_lines=4, min_width=NARROW)]

    def value(self, entered: Any) -> Any:
        value = value_of(entered or "")
        return None if value == "" else value

    def shown(self, value: Any) -> Any:
        return text_of(value)


class Thing(Value):
    """A registered thing by its name, or as a table of TOML."""

    def made(self) -> list[Component]:
        return [
            gr.Dropdown(
                ["", *self.field.choices],
                value=self.field.default or "",
                allow_custom_value=True,
                label=self.field.label,
                min_width=NARROW,
            )
        ]

    def shown(self, value: Any) -> Any:
        return text_of(_by_name(value))


class Pairs(Widget):
    """Rows of two: what, and how it reads."""

    def made(self) -> list[Component]:
        gr.Markdown(self.field.label, container=False)
        made: list[Component] = []
        for _ in range(ROWS):
            with gr.Row(elem_classes="pair"):
                made.append(
                    gr.Dropdown(
                        ["", *self.field.choices],
                        value="",
                        allow_custom_value=True,
                        show_label=False,
                        container=False,
                        min_width=100,
                    )
                )
                made.append(
                    gr.Textbox(
                        show_label=False,
                        container=False,
                        min_width=100,
                        max_lines=1,
                        placeholder="shows",
                    )
                )
        return made

    def read(self, entered: Sequence[Any], pictures: Pictures) -> dict[str, Any]:
        pairs = []
        for key, value in zip(entered[::2], entered[1::2], strict=True):
            typed = (key or "").strip(), (value or "").strip()
            if any(typed) and not all(typed):
                raise WrittenError(
                    [f"{self.owner}: each row of {self.field.name} needs both, got {typed}."]
                )
            if all(typed):
                pairs.append([value_of(typed[0]), value_of(typed[1])])
        short = all(isinstance(key, str) for key, _ in pairs)
        short = short and len({key for key, _ in pairs if isinstance(key, str)}) == len(pairs)
        return {self.field.name: dict(pairs) if short else pairs} if pairs else {}

    def show(self, options: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> list[Any]:
        pairs = options.get(self.field.name, {})
        rows = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
        if len(rows) > ROWS or not all(isinstance(r, list | tuple) and len(r) == 2 for r in rows):
            raise self._unshowable()
        shown = [text for key, value in rows for text in (text_of(_by_name(key)), text_of(value))]
        return shown + [""] * (2 * ROWS - len(shown))


class Picture(Widget):
    """A picture that is uploaded or drawn."""

    def made(self) -> list[Component]:
        palette: list[str | tuple[str, float]] = [
            "#ffffff",
            "#000000",
            "#d63c5e",
            "#f3a32c",
            "#f7e26b",
            "#3f9b4f",
            "#3a78c9",
        ]
        brush = gr.Brush(default_size=24, colors=palette, default_color="#ffffff")
        return [_editor(f"{self.field.label}: draw or upload", brush, canvas())]

    def read(self, entered: Sequence[Any], pictures: Pictures) -> dict[str, Any]:
        picture = (entered[0] or {}).get("composite")
        if picture is None:
            return {}
        return {self.field.name: self._keep(self.field.name, _opaque(picture), pictures)}

    def show(self, options: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> list[Any]:
        return [_held(options.get(self.field.name), pictures, edited(canvas()))]

    def _keep(self, option: str, picture: Image.Image, pictures: Pictures) -> str:
        name = f"{self.owner}-{option}.png"
        pictures[name] = picture
        return name


class Painted(Picture):
    """A picture, and a mask that is painted over it or uploaded."""

    def made(self) -> list[Component]:
        brush = gr.Brush(
            default_size=36, colors=[("#e8356d", 0.7)], default_color=("#e8356d", 0.7),
            color_mode="fixed",
        )  # fmt: skip
        editor = _editor("Paint over what is to change", brush, None)
        with gr.Accordion("A mask from a file", open=False):
            mask = gr.Image(
                type="pil", format="png", image_mode=None, height=160,
                label="White: make anew. It replaces what is painted.",
                sources=["upload", "clipboard"], interactive=True, elem_classes="mask",
            )  # fmt: skip
        return [editor, mask]

    def read(self, entered: Sequence[Any], pictures: Pictures) -> dict[str, Any]:
        editor, mask = entered[0] or {}, entered[1]
        picture = editor.get("background")
        if picture is None or not _has_content(picture):
            raise WrittenError([f"{self.owner}: there is no picture yet. Upload one."])
        if mask is None:
            mask = painted(editor.get("layers", ()), picture.size)
        if mask is None:
            raise WrittenError(
                [f"{self.owner}: the mask is empty. Paint over the part of the picture that is to "
                 "be made anew."]
            )  # fmt: skip
        image = self._keep("image", _opaque(picture), pictures)
        return {"image": image, "mask": self._keep("mask", mask, pictures)}

    def show(self, options: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> list[Any]:
        mask = options.get("mask", "")
        held = pictures.get(mask) if mask in pictures or not mask else gr.skip()
        return [_held(options.get("image"), pictures, None), held]


WIDGETS: Mapping[str, type[Widget]] = {
    "switch": Switch,
    "whole": Number,
    "number": Number,
    "choice": Choice,
    "thing": Thing,
    "picture": Picture,
    "painted": Painted,
    "pairs": Pairs,
    "value": Value,
}


def canvas() -> Image.Image:
    """An empty canvas, black as the ground of digits is."""
    return Image.new("RGB", (CANVAS, CANVAS))


def edited(picture: Image.Image) -> dict[str, Any]:
    """What an editor holds of a picture."""
    shown = picture.convert("RGBA")
    if max(shown.size) < CANVAS:
        factor = CANVAS // max(shown.size)
        size = shown.width * factor, shown.height * factor
        shown = shown.resize(size, Image.Resampling.NEAREST)
    return {"background": shown, "layers": [], "composite": shown}


def _held(name: str | None, pictures: Mapping[str, Image.Image], empty: Any) -> Any:
    """What an editor holds of a picture by name; what it has if the picture did not come along."""
    if name is None:
        return empty
    return edited(pictures[name]) if name in pictures else gr.skip()


def painted(layers: Sequence[Image.Image], size: tuple[int, int]) -> Image.Image | None:
    """The mask of what was painted: white where a layer is opaque; None where nothing is."""
    mask = np.zeros((size[1], size[0]), bool)
    for layer in layers:
        alpha = layer.convert("RGBA").getchannel("A")
        alpha = alpha if alpha.size == size else alpha.resize(size)
        mask |= np.asarray(alpha) >= _PAINTED
    return Image.fromarray(mask.astype(np.uint8) * 255) if mask.any() else None


def _editor(label: str, brush: gr.Brush, start: Image.Image | None) -> gr.ImageEditor:
    return gr.ImageEditor(
        None if start is None else edited(start),  # type: ignore[arg-type]  # as a table
        label=label,
        type="pil",
        format="png",
        sources=["upload", "clipboard"],
        transforms=(),
        layers=False,
        brush=brush,
        eraser=gr.Eraser(default_size=36),
        canvas_size=(CANVAS, CANVAS),
        height=CANVAS + 64,
    )


def _opaque(picture: Image.Image) -> Image.Image:
    """On black where nothing is."""
    if picture.mode != "RGBA":
        return picture
    return Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture).convert("RGB")


def _has_content(picture: Image.Image) -> bool:
    return picture.mode != "RGBA" or picture.getchannel("A").getbbox() is not None


def _by_name(value: Any) -> Any:
    """A thing without options as its name."""
    return value[USE] if isinstance(value, Mapping) and value.keys() == {USE} else value
