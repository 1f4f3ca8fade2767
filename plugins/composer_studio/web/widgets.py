"""How each kind of field is entered: Gradio components, and the way to options and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
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


def _by_name(value: Any) -> Any:
    """A thing without options as its name."""
    return value[USE] if isinstance(value, Mapping) and value.keys() == {USE} else value
