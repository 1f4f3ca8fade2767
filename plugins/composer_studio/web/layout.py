"""The page's components: what is wanted on the left, what becomes of it on the right."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from composer_studio.web.form import Form
from composer_studio.web.limits import Limits
from composer_studio.web.making import remove

FORM, TEXT = "Form", "Recipe"
KEPT = 3600
"""Seconds that pictures of a visitor are kept."""
_TITLE = "# Composer\nChoose, make, turn. Every picture carries the recipe it was made by."


class Layout:
    """The components, made where it is called.

    Args:
        presets: their names.
        backends: the names of the models.
        limits: of a run.
    """

    def __init__(self, presets: Sequence[str], backends: Sequence[str], limits: Limits) -> None:
        self.made = gr.State(None, time_to_live=KEPT, delete_callback=remove)
        self.which = gr.State(0)
        gr.Markdown(_TITLE, elem_id="title")
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=5, min_width=320, elem_id="wanted"):
                self._add_wanted(presets, backends, limits)
            with gr.Column(scale=6, min_width=320, elem_id="result"):
                self._add_result()

    def _add_wanted(self, presets: Sequence[str], backends: Sequence[str], limits: Limits) -> None:
        self.preset = gr.Radio(
            list(presets), value=presets[0], label="Begin with", elem_id="preset"
        )
        self.mode = gr.Radio(
            [FORM, TEXT], value=FORM, show_label=False, container=False, elem_id="mode"
        )
        with gr.Column(elem_id="form"):
            self.form = Form(backends, limits)
        with gr.Column(elem_id="written", elem_classes="unseen"):
            self.text = gr.Textbox(
                "", lines=14, max_lines=30, label="TOML, as in composer sample",
                elem_id="recipe", buttons=["copy"],
            )  # fmt: skip
            self.uploads = gr.File(
                file_count="multiple", file_types=["image"], height=160,
                label="Pictures that it names", elem_id="uploads",
            )  # fmt: skip
        self.file = gr.File(
            file_types=[".png", ".webp", ".toml", ".json"], height=160, elem_id="open",
            label="Open: drop a picture of Composer, or a recipe",
        )  # fmt: skip

    def _add_result(self) -> None:
        with gr.Row(elem_id="go"):
            self.go = gr.Button(
                "Make pictures", variant="primary", elem_id="make", interactive=False
            )
            self.stop = gr.Button("Stop", variant="stop", elem_id="stop", interactive=False)
        self.status = gr.HTML(progress(0, 1, "Ready."), elem_id="status", padding=False)
        self.picture = gr.Image(
            show_label=False, format="png", interactive=False, height=520,
            buttons=["fullscreen"], elem_id="picture",
        )  # fmt: skip
        with gr.Row(visible=False, elem_id="turning") as self.turning:
            self.view = gr.Dropdown([], label="View", elem_id="view", min_width=120)
            self.share = gr.Slider(
                0, 1, 0, step=0.02, label="Turn", elem_id="turn", min_width=160, scale=2
            )
        self.gallery = gr.Gallery(
            show_label=False, columns=4, height="auto", allow_preview=False, visible=False,
            object_fit="contain", elem_id="gallery", buttons=[], interactive=False,
        )  # fmt: skip
        with gr.Row(visible=False, elem_id="downloads") as self.downloads:
            self.png = gr.DownloadButton("Download PNG", elem_id="png")
            self.film = gr.Button("Download GIF", elem_id="gif")
            self.film_file = gr.DownloadButton("GIF", elem_id="gif-file", elem_classes="unseen")


def progress(done: int, of: int, words: str) -> str:
    """A bar and what it says; only numbers and words of this page go into it."""
    share = round(100 * done / of)
    return f'<div class="bar"><i style="width: {share}%"></i></div><span>{words}</span>'
