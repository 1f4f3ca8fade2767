"""The page: what happens when, and what is shown then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from composer_studio.web.fields import recipe_text
from composer_studio.web.layout import FORM, KEPT, TEXT, Layout, progress
from composer_studio.web.limits import Limits
from composer_studio.web.making import Draft, Made, Step, make, remove, script_of
from composer_studio.web.opening import opened
from composer_studio.web.presets import presets_for
from composer_studio.web.sentences import in_the_page, warn
from composer_studio.web.served import Served
from composer_studio.web.widgets import UnshowableError
from composer_studio.written import WrittenError, read_table

_FAILED = "No pictures: see the message."
_STOPPED = "Stopped. Press Make pictures to begin again."


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
            self.layout = Layout(list(self._presets), served.names, limits)
            self.form = self.layout.form
            self._connect()
        self.blocks.queue(max_size=limits.queue, api_open=False, default_concurrency_limit=1)

    def _connect(self) -> None:
        """What happens when."""
        at = self.layout
        quick: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        form, drafted = self.form.inputs, [at.mode, at.text, at.uploads, *self.form.inputs]
        loaded = [at.mode, at.text, *form, *self.form.groups]
        at.preset.input(self.begin, at.preset, loaded, **quick)
        self.blocks.load(self.begin, at.preset, loaded, **quick).then(
            _idle, None, [at.go, at.stop], queue=False, **quick
        )
        at.mode.input(self.switch, drafted, loaded, **quick)
        at.mode.change(None, at.mode, None, js=_SHOW)
        at.file.upload(self.open, at.file, [at.file, at.preset, *loaded], **quick)
        shown = [
            at.status, at.picture, at.gallery, at.turning, at.view, at.share,
            at.downloads, at.png, at.made, at.which, at.go, at.stop,
        ]  # fmt: skip
        at.go.click(
            self.run,
            [at.made, *drafted],
            shown,
            concurrency_limit=1,
            concurrency_id="run",
            trigger_mode="once",
            **quick,
        )
        at.go.click(None, None, None, js=_LOOK)
        at.stop.click(self.end, None, None, queue=False, **quick)
        turned = [at.made, at.which, at.view, at.share]
        gr.on(
            [at.share.input, at.view.input], self.turn, turned, at.picture,
            trigger_mode="always_last", concurrency_limit=4, **quick,
        )  # fmt: skip
        at.gallery.select(self.choose, at.made, [at.which, at.share, at.picture, at.png], **quick)
        at.film.click(
            self.animate, [at.made, at.which], at.film_file, concurrency_limit=2,
            api_visibility="private", show_progress_on=at.film,
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
            gr.Info("The form shows the recipe.", duration=3)
        except UnshowableError as error:
            if found.pictures:
                raise WrittenError([f"{error} Use composer replay."]) from error
            filled = self._texted(found.text or recipe_text(table))
            gr.Info("The form cannot show all of it. Recipe shows it as text.", duration=5)
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
            warn(f"{error} The recipe stays text.")
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
        at, session = self.layout, str(request.session_hash)
        self._stopped.discard(session)
        go, stop = _idle()
        try:
            for shown in self._made(before, self._draft(mode, text, uploads, entered)):
                yield shown
                if session in self._stopped:
                    yield {at.status: progress(0, 1, _STOPPED), at.go: go, at.stop: stop}
                    return
        except Exception:  # what it is, is said elsewhere
            yield {at.status: progress(0, 1, _FAILED), at.go: go, at.stop: stop}
            raise
        finally:
            self._stopped.discard(session)

    def end(self, request: gr.Request) -> None:
        """End the run of a visitor after its step; the run itself says so."""
        self._stopped.add(str(request.session_hash))

    def _made(self, before: Made | None, draft: Draft) -> Iterator[dict[Any, Any]]:
        """What the page shows of a run."""
        at = self.layout
        script, recipe, lost = script_of(draft, self._served)
        self._limits.check(script)
        self._tell(lost)
        yield {
            at.status: progress(0, 1, "Starting."),
            at.go: gr.update(interactive=False),
            at.stop: gr.update(interactive=True),
            at.turning: gr.update(visible=False),
            at.downloads: gr.update(visible=False),
        }
        for event in make(script, recipe, self._served, self._limits, self._place):
            if isinstance(event, Step):
                said = progress(event.done, event.of, f"Step {event.done} of {event.of}")
                yield {at.status: said} | (
                    {} if event.preview is None else {at.picture: event.preview}
                )
            else:
                remove(before)
                yield self._finished(event)

    def _finished(self, made: Made) -> dict[Any, Any]:
        at, count, views = self.layout, len(made.files), list(made.views)
        files = [(str(file), file.stem.lstrip("0") or "0") for file in made.files]
        return {
            at.status: progress(1, 1, f"Done: {count} picture{'s'[: count > 1]}."),
            at.picture: made.turned(0, views[0], 0),
            at.gallery: gr.update(value=files, visible=True, selected_index=0),
            at.turning: gr.update(visible=True),
            at.view: gr.update(choices=views, value=views[0]),
            at.share: 0,
            at.downloads: gr.update(visible=True),
            at.png: str(made.files[0]),
            at.made: made,
            at.which: 0,
            at.go: gr.update(interactive=True),
            at.stop: gr.update(interactive=False),
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


def _idle() -> tuple[Any, Any]:
    """Updates of the buttons of a page at rest."""
    return gr.update(interactive=True), gr.update(interactive=False)


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
