"""Fields that hold pictures: drawn or uploaded, with a mask that is painted over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from PIL import Image

from composer_studio.web.widgets import Pictures, Widget
from composer_studio.written import WrittenError

if TYPE_CHECKING:
    from gradio.components import Component

CANVAS = 336
"""Pixels of an empty canvas."""
_PAINTED = 64
"""The opacity from which a brush has painted, of 255."""


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
        return [_editor(self.field.label, brush, canvas())]

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
        editor = _editor("Paint the mask", brush, None)
        with gr.Accordion("A mask from a file", open=False):
            mask = gr.Image(
                type="pil", format="png", image_mode=None, height=160,
                label="White is repainted. It replaces the painted mask.",
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
                [f"{self.owner}: the mask is empty. Paint over the part of the picture to change."]
            )
        image = self._keep("image", _opaque(picture), pictures)
        return {"image": image, "mask": self._keep("mask", mask, pictures)}

    def show(self, options: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> list[Any]:
        mask = options.get("mask", "")
        held = pictures.get(mask) if mask in pictures or not mask else gr.skip()
        return [_held(options.get("image"), pictures, None), held]


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
