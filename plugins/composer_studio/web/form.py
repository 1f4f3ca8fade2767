"""The form: every option of every plugin, a group a plugin, of which those in use are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from PIL import Image

from composer_studio.web.drawn import Painted, Picture
from composer_studio.web.fields import Field, description_of, fields_of, value_of
from composer_studio.web.limits import Limits
from composer_studio.web.making import Draft
from composer_studio.web.widgets import (
    Choice,
    Number,
    Pairs,
    Switch,
    Thing,
    UnshowableError,
    Value,
    Widget,
)
from composer_studio.written.models import USE
from composer_studio.written.reading import models_of_installed

_TOP = {"backend", "plugins", "condition", "steps", "seeds", "solver", "output", "max_rows"}
_WIDE = ("picture", "painted", "pairs")
"""Kinds of fields that take a row."""
_UNSHOWN = ("title", "max_rows", "$schema")
"""What the form leaves out of a recipe, without harm to its pictures."""

_WIDGETS: Mapping[str, type[Widget]] = {
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
"""By the kind of a field."""


class Form:
    """The components of a recipe, made where it is called.

    Args:
        backends: the names of the models.
        limits: of a run.
    """

    def __init__(self, backends: Sequence[str], limits: Limits) -> None:
        self._backends = backends
        names = models_of_installed().names("plugin")
        with gr.Row():
            self.backend = gr.Dropdown(
                list(backends), value=backends[0], label="Model", elem_id="backend", min_width=120
            )
            self.condition = Value(Field("condition", "value"), "the form")
        self.stack = gr.Dropdown(
            names, value=[], multiselect=True, elem_id="stack",
            label="Plugins, the outermost first",
        )  # fmt: skip
        self._groups: dict[str, gr.Column] = {}
        self._widgets: dict[str, list[Widget]] = {}
        for name in sorted(names, key=_late):
            self._add_group(name)
        with gr.Row():
            self.seeds = gr.Textbox(
                "0:4", label="Seeds, one picture each", elem_id="seeds", min_width=120
            )
            self.steps = gr.Slider(1, limits.steps, 20, step=1, label="Steps", min_width=120)
        with gr.Accordion("More", open=False):
            self.solver = Thing(
                Field("solver", "thing", choices=tuple(models_of_installed().names("solver"))), ""
            )
            self.size = gr.Number(
                None, label="Pixels of the longer side", precision=0, minimum=1, maximum=4096
            )
        self._fixed = [
            self.backend, *self.condition.components, self.stack, self.seeds, self.steps,
            *self.solver.components, self.size,
        ]  # fmt: skip
        self.stack.change(
            self.visible, self.stack, self.groups, show_progress="hidden", queue=False,
            api_visibility="private",
        )  # fmt: skip

    @property
    def inputs(self) -> list[Any]:
        """All components, in the order of :meth:`draft`."""
        options = [c for widgets in self._widgets.values() for w in widgets for c in w.components]
        return [*self._fixed, *options]

    @property
    def groups(self) -> list[Any]:
        return list(self._groups.values())

    def visible(self, stack: Sequence[str]) -> list[Any]:
        """An update a group: whether its plugin is in use."""
        return [gr.update(visible=name in stack) for name in self._groups]

    def draft(self, entered: Sequence[Any]) -> Draft:
        """The recipe of what the components hold.

        Raises:
            WrittenError: what was entered is no value.
        """
        backend, condition, stack, seeds, steps, solver, size = entered[: len(self._fixed)]
        pictures: dict[str, Image.Image] = {}
        options = self._options(entered[len(self._fixed) :], stack, pictures)
        table = {
            "backend": backend,
            **self.condition.read([condition], pictures),
            **self.solver.read([solver], pictures),
            "steps": int(steps),
            "seeds": _seeds(seeds),
            "plugins": {name: options[name] for name in stack},
            **({"output": {"size": int(size)}} if size else {}),
        }
        return Draft(table, pictures)

    def show(self, table: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> list[Any]:
        """What :attr:`inputs` hold for a recipe; plugins that are not in use stay as they are.

        Raises:
            UnshowableError: the form has no place for a part of it.
        """
        if strange := set(table) - _TOP - set(_UNSHOWN):
            raise UnshowableError(f"The form has no place for {min(strange)}.")
        stack = {}
        for label, options in table.get("plugins", {}).items():
            name = options.get(USE, label) if isinstance(options, Mapping) else label
            if name in stack or name not in self._groups or not isinstance(options, Mapping):
                raise UnshowableError(f"The form shows each plugin once, and {label} is another.")
            stack[name] = {key: value for key, value in options.items() if key != USE}
        shown = [
            self._backend_of(table),
            *self.condition.show(table, pictures),
            list(stack),
            _seeds_shown(table.get("seeds", 0)),
            table.get("steps", 20),
            *self.solver.show(table, pictures),
            (table.get("output") or {}).get("size"),
        ]
        for name, widgets in self._widgets.items():
            for widget in widgets:
                if name in stack:
                    shown += widget.show(stack[name], pictures)
                else:
                    shown += [gr.skip()] * len(widget.components)
        return shown

    def _add_group(self, name: str) -> None:
        with gr.Column(visible=False, elem_id=f"plugin-{name}", elem_classes="plugin") as group:
            gr.Markdown(f"**{name}** {description_of('plugin', name)}", elem_classes="about")
            fields = fields_of("plugin", name)
            wide = [f for f in fields if f.kind in _WIDE]
            main = [f for f in fields if f not in wide and _first(f, bool(wide))]
            rest = [f for f in fields if f not in wide and f not in main]
            made = [_WIDGETS[f.kind](f, name) for f in wide]
            if main:
                with gr.Row():
                    made += [_WIDGETS[f.kind](f, name) for f in main]
            if rest:
                with gr.Accordion("Options", open=False):
                    made += [_WIDGETS[f.kind](f, name) for f in rest]
        self._groups[name] = group
        self._widgets[name] = made

    def _options(
        self, entered: Sequence[Any], stack: Sequence[str], pictures: dict[str, Image.Image]
    ) -> dict[str, dict[str, Any]]:
        options: dict[str, dict[str, Any]] = {}
        place = 0
        for name, widgets in self._widgets.items():
            options[name] = {}
            for widget in widgets:
                own = entered[place : place + len(widget.components)]
                place += len(widget.components)
                if name in stack:
                    options[name] |= widget.read(own, pictures)
        return options

    def _backend_of(self, table: Mapping[str, Any]) -> str:
        written = table.get("backend", self._backends[0])
        name = written.get(USE) if isinstance(written, Mapping) else written
        if name not in self._backends:
            known = ", ".join(self._backends)
            raise UnshowableError(f"This page has the models {known}, and not {name!r}.")
        return str(name)


def _first(field: Field, beside: bool) -> bool:
    """Whether a field is seen at once; ``beside`` a picture or views, a number with a default is
    not."""
    return field.required or (field.kind == "number" and not (beside and field.default is not None))


def _late(name: str) -> tuple[bool, bool, str]:
    """Where a plugin's group stands: as in most stacks, what takes pictures or views comes first,
    then what needs conditions or parts, then what needs a number alone."""
    fields = fields_of("plugin", name)
    shown = any(field.kind in _WIDE for field in fields)
    worded = any(field.required and field.kind in ("value", "thing") for field in fields)
    return not shown, not worded, name


def _seeds(text: str) -> Any:
    """Seeds as typed: "7", "0:64" or "[1, 5]", also without the brackets."""
    text = text.strip()
    if "," in text and not text.startswith("["):
        return [part.strip() for part in text.split(",")]
    return value_of(text) if text.startswith("[") else text


def _seeds_shown(seeds: Any) -> str:
    listed = isinstance(seeds, list | tuple)
    return ", ".join(map(str, seeds)) if listed else str(seeds)
