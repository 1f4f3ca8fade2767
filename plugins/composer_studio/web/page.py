"""The page: what is wanted on the left, what becomes of it on the right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from composer_studio.web.fields import recipe_text
from composer_studio.web.form import Form
from composer_studio.web.limits import Limits
from composer_studio.web.making import Draft, Made, Step, make, script_of
from composer_studio.web.opening import opened
from composer_studio.web.presets import presets_for
from composer_studio.web.sentences import in_the_page, warn
from composer_studio.web.served import Served
from composer_studio.web.widgets import UnshowableError
from composer_studio.written import WrittenError, read_table

FORM, TEXT = "Form", "Recipe"
_TITLE = "# Composer\nChoose, make, turn. Every picture carries the recipe it was made by."
_FAILED = "No pictures: see the message."
_STOPPED = "Stopped. Make pictures begins anew."
KEPT = 3600
"""Seconds that pictures of a visitor are kept."""


class Page:
    """The page of some models.

    Args:
        served: the models.
        limits: of a visitor.
        place: a folder for pictures.
    """

    def __init__(self, served: Served, limits: Limits, place: Path) -> None:
        self._served, self._limits, self._place = served, limits, place
        self._presets = presets_for(served.names)
        self._stopped: set[str] = set()  # sessions
        with gr.Blocks(
            title="Composer", analytics_enabled=False, delete_cache=(KEPT, KEPT), fill_width=True
        ) as self.blocks:
            self._make()
            self._connect()
        self.blocks.queue(max_size=limits.queue, api_open=False, default_concurrency_limit=1)

    def _make(self) -> None:
        """The components."""
        self.made = gr.State(None, time_to_live=KEPT, delete_callback=_remove)
        self.which = gr.State(0)
        gr.Markdown(_TITLE, elem_id="title")
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=5, min_width=320, elem_id="wanted"):
                self.preset = gr.Radio(
                    list(self._presets), value=next(iter(self._presets)), label="Begin with",
                    elem_id="preset",
                )  # fmt: skip
                self.mode = gr.Radio(
                    [FORM, TEXT], value=FORM, show_label=False, container=False, elem_id="mode"
                )
                with gr.Column(elem_id="form"):
                    self.form = Form(self._served.names, self._limits)
                with gr.Column(elem_id="written", elem_classes="unseen"):
                    self.text = gr.Textbox(
                        "", lines=14, max_lines=30, label="TOML, as in composer sample",
                        elem_id="recipe", buttons=["copy"],
                    )  # fmt: skip
                    self.uploads = gr.File(
                        file_count="multiple", file_types=["image"], height=140,
                        label="Pictures that it names", elem_id="uploads",
                    )  # fmt: skip
                self.file = gr.File(
                    file_types=[".png", ".webp", ".toml", ".json"], height=140, elem_id="open",
                    label="Open: drop a picture of Composer, or a recipe",
                )  # fmt: skip
            with gr.Column(scale=6, min_width=320, elem_id="result"):
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
                    self.film_file = gr.DownloadButton(
                        "GIF", elem_id="gif-file", elem_classes="unseen"
                    )

    def _connect(self) -> None:
        """What happens when."""
        quick: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        form, drafted = self.form.inputs, [self.mode, self.text, self.uploads, *self.form.inputs]
        loaded = [self.mode, self.text, *form, *self.form.groups]
        self.preset.input(self.begin, self.preset, loaded, **quick)
        self.blocks.load(self.begin, self.preset, loaded, **quick).then(
            _idle, None, [self.go, self.stop], queue=False, **quick
        )
        self.mode.input(self.switch, drafted, loaded, **quick)
        self.mode.change(None, self.mode, None, js=_SHOW)
        self.file.upload(self.open, self.file, [self.file, self.preset, *loaded], **quick)
        shown = [
            self.status, self.picture, self.gallery, self.turning, self.view, self.share,
            self.downloads, self.png, self.made, self.which, self.go, self.stop,
        ]  # fmt: skip
        self.go.click(
            self.run,
            [self.made, *drafted],
            shown,
            concurrency_limit=1,
            concurrency_id="run",
            trigger_mode="once",
            **quick,
        )
        self.go.click(None, None, None, js=_LOOK)
        self.stop.click(self.end, None, None, queue=False, **quick)
        turned = [self.made, self.which, self.view, self.share]
        gr.on(
            [self.share.input, self.view.input], self.turn, turned, self.picture,
            trigger_mode="always_last", concurrency_limit=4, **quick,
        )  # fmt: skip
        self.gallery.select(
            self.choose, self.made, [self.which, self.share, self.picture, self.png], **quick
        )
        self.film.click(
            self.animate, [self.made, self.which], self.film_file, concurrency_limit=2,
            api_visibility="private", show_progress_on=self.film,
        ).success(None, None, None, js=_CLICK)  # fmt: skip

    @in_the_page
    def begin(self, name: str) -> list[Any]:
        """Fill the form with a preset."""
        preset = self._presets[name]
        return self._filled(preset.table, preset.pictures())

    @in_the_page
    def open(self, file: str | None) -> list[Any]:
        """Fill the form, or the text where the form has no place, with a dropped file."""
        if file is None:
            return [gr.skip()] * (4 + len(self.form.inputs) + len(self.form.groups))
        found = opened(Path(file))
        table, lost = self._alone(found.table)
        self._tell(lost)
        self._check(table, Path(file).name)
        try:
            filled = self._filled(table, found.pictures)
            gr.Info("The recipe is in the form.", duration=3)
        except UnshowableError as error:
            if found.pictures:
                raise WrittenError([f"{error} Use composer replay."]) from error
            filled = self._texted(found.text or recipe_text(table))
            gr.Info("The form has no place for all of it: it is in the recipe's text.", duration=5)
        return [None, None, *filled]  # no preset is chosen any more

    @in_the_page
    def switch(self, mode: str, text: str, uploads: list[str] | None, *entered: Any) -> list[Any]:
        """The form as text, or the text in the form, unless that has no place for it."""
        if mode == TEXT:
            return self._texted(recipe_text(self.form.draft(entered).table))
        try:
            table, lost = self._alone(Draft(text).table)
            self._check(table, "The recipe")
            filled = self._filled(table, _opened_uploads(uploads))
        except (ValueError, LookupError) as error:
            warn(f"{error} It stays text.")
            return self._texted(text)
        self._tell(lost)
        return filled

    @in_the_page
    def run(
        self,
        request: gr.Request,
        before: Made | None,
        mode: str,
        text: str,
        uploads: list[str] | None,
        *entered: Any,
    ) -> Iterator[dict[Any, Any]]:
        """Make the pictures; x_0 is shown after every step."""
        session = str(request.session_hash)
        self._stopped.discard(session)
        go, stop = _idle()
        try:
            for shown in self._made(before, self._draft(mode, text, uploads, entered)):
                yield shown
                if session in self._stopped:
                    yield {self.status: progress(0, 1, _STOPPED), self.go: go, self.stop: stop}
                    return
        except Exception:  # what it is, is said elsewhere
            yield {self.status: progress(0, 1, _FAILED), self.go: go, self.stop: stop}
            raise
        finally:
            self._stopped.discard(session)

    def end(self, request: gr.Request) -> None:
        """End the run of a visitor after its step; the run itself says so."""
        self._stopped.add(str(request.session_hash))

    def _made(self, before: Made | None, draft: Draft) -> Iterator[dict[Any, Any]]:
        """What the page shows of a run."""
        script, recipe, lost = script_of(draft, self._served)
        self._limits.check(script)
        self._tell(lost)
        yield {
            self.status: progress(0, 1, "It begins."),
            self.go: gr.update(interactive=False),
            self.stop: gr.update(interactive=True),
            self.turning: gr.update(visible=False),
            self.downloads: gr.update(visible=False),
        }
        for event in make(script, recipe, self._served, self._limits, self._place):
            if isinstance(event, Step):
                said = progress(event.done, event.of, f"Step {event.done} of {event.of}")
                yield {self.status: said} | (
                    {} if event.preview is None else {self.picture: event.preview}
                )
            else:
                _remove(before)
                yield self._finished(event)

    def _finished(self, made: Made) -> dict[Any, Any]:
        count, views = len(made.files), list(made.views)
        files = [(str(file), file.stem.lstrip("0") or "0") for file in made.files]
        return {
            self.status: progress(1, 1, f"Done: {count} picture{'s'[: count > 1]}."),
            self.picture: made.turned(0, views[0], 0),
            self.gallery: gr.update(value=files, visible=True, selected_index=0),
            self.turning: gr.update(visible=True),
            self.view: gr.update(choices=views, value=views[0]),
            self.share: 0,
            self.downloads: gr.update(visible=True),
            self.png: str(made.files[0]),
            self.made: made,
            self.which: 0,
            self.go: gr.update(interactive=True),
            self.stop: gr.update(interactive=False),
        }

    @in_the_page
    def turn(self, made: Made | None, which: int, view: str, share: float) -> Any:
        """The chosen picture on its way to a view."""
        return gr.skip() if made is None else made.turned(which, view, share)

    @in_the_page
    def choose(self, made: Made, chosen: gr.SelectData) -> tuple[Any, ...]:
        """One picture of the gallery."""
        which = int(chosen.index)
        return which, 0, made.turned(which, next(iter(made.views)), 0), str(made.files[which])

    @in_the_page
    def animate(self, made: Made, which: int) -> str:
        """A GIF of the chosen picture."""
        return str(made.film(which))

    def _draft(self, mode: str, text: str, uploads: list[str] | None, entered: Any) -> Draft:
        if mode == FORM:
            return self.form.draft(entered)
        return Draft(text, self._pictures(entered), tuple(map(Path, uploads or ())))

    def _pictures(self, entered: Any) -> dict[str, Any]:
        """The pictures of the form; none where it is not filled in."""
        try:
            return dict(self.form.draft(entered).pictures)
        except ValueError:
            return {}

    def _alone(self, table: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """A table with the model's name alone, and the options that it loses."""
        known, lost = self._served.named_alone(table)
        return {**table, "backend": known["backend"]["use"]}, lost

    def _check(self, table: dict[str, Any], source: str) -> None:
        """Check a table as ``composer recipe check`` does."""
        read_table(self._served.named_alone(table)[0], source)

    def _tell(self, lost: list[str]) -> None:
        if lost:
            warn(
                f"The page leaves out {', '.join(lost)} of the model: its owner sets them. The "
                "pictures may differ."
            )

    def _filled(self, table: Any, pictures: Any) -> list[Any]:
        """Updates of the mode, the tabs, the text, the form and its groups."""
        shown = self.form.show(table, pictures)
        stack = shown[self.form.inputs.index(self.form.stack)]
        return [FORM, "", *shown, *self.form.visible(stack)]

    def _texted(self, text: str) -> list[Any]:
        rest = len(self.form.inputs) + len(self.form.groups)
        return [TEXT, text, *[gr.skip()] * rest]


def progress(done: int, of: int, words: str) -> str:
    """A bar and what it says; only numbers and words of this page go into it."""
    share = round(100 * done / of)
    return f'<div class="bar"><i style="width: {share}%"></i></div><span>{words}</span>'


def _idle() -> tuple[Any, Any]:
    """Updates of the buttons of a page at rest."""
    return gr.update(interactive=True), gr.update(interactive=False)


def _remove(made: Made | None) -> None:
    if made is not None:
        made.remove()


def _opened_uploads(uploads: list[str] | None) -> dict[str, Any]:
    from composer_studio.written.pictures import open_within  # noqa: PLC0415

    files = [Path(upload) for upload in uploads or ()]
    return {file.name: open_within(file.name, file.parent, "The recipe") for file in files}


_SHOW = f"""(mode) => {{
  document.querySelector('#form').classList.toggle('away', mode != '{FORM}')
  document.querySelector('#written').classList.toggle('unseen', mode != '{TEXT}')
}}"""
"""Components that are only hidden keep what was drawn in them."""
_CLICK = "() => document.querySelector('#gif-file').click()"
_LOOK = "() => { if (innerWidth < 700) document.querySelector('#status').scrollIntoView() }"
"""On a phone the pictures are below the form."""
