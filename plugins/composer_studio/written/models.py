"""The models of recipes: one a registered constructor, and one of the whole."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticCustomError

from composer import Registry, UnknownNameError
from composer.arguments import checked_seeds
from composer.limits import MAX_DEPTH, MAX_SEEDS, MAX_STEPS, MAX_TEXT
from composer_studio.written.annotations import AtPlacesError, Spelling, annotations_of, checked

KINDS = ("plugin", "transform", "decomposition", "score", "loss", "solver")
"""Where the name of a condition's table is looked up, in this order."""
USE = "use"
"""The key that names a registered thing; the others are its options."""
_STRICT = ConfigDict(strict=True, extra="forbid")
_RANGE = re.compile(r"(\d{1,10}):(\d{1,10})")


@dataclass(frozen=True)
class Thing:
    """A registered thing and the options that were written for it."""

    kind: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Word:
    """A condition that only a table can write: ``{unconditional = true}``, or a scheduler."""

    key: str
    config: Mapping[str, Any] = field(default_factory=dict)


class Models:
    """The models of what a registry offers, each made when it is first needed.

    Args:
        registry: of the names.
        partial: whether a thing may lack options, which are found elsewhere.
    """

    def __init__(self, registry: Registry, partial: bool = False) -> None:
        self.registry, self._partial = registry, partial
        self._made: dict[tuple[str, str], type[BaseModel]] = {}
        self.spelling = Spelling(self.check_of, self.condition)
        self.options: dict[str, tuple[str, ...]] = {}
        self._depth = 0

    def of(self, kind: str, name: str) -> type[BaseModel]:
        """The model of one constructor: its options, and ``use``."""
        offer = self.registry.find(kind, name)
        if (kind, name) not in self._made:
            self._made[kind, name] = self._model(kind, name, offer.factory)
        return self._made[kind, name]

    def names(self, kind: str) -> list[str]:
        """The registered names of a kind."""
        return sorted(name for k, name in self.registry.offers if k == kind)

    def check_of(self, kind: str) -> Any:
        """The check of a thing of a kind: its name, or a table that uses it."""

        def check(written: Any) -> Thing:
            table = {USE: written} if isinstance(written, str) else written
            if not isinstance(table, dict) or USE not in table:
                names = ", ".join(self.names(kind))
                raise PydanticCustomError(
                    "thing",
                    "{message}",
                    {"message": f'must be a {kind}, or a table with {USE} = "...", of {names}'},
                )
            return self.thing(kind, table)

        return check

    def thing(self, kind: str, table: Mapping[str, Any], name: Any = None) -> Thing:
        """The thing that a table uses; ``name`` if it does not say which."""
        used = table.get(USE, name)
        try:
            model = self.of(kind, used)
        except UnknownNameError as error:
            wrong = PydanticCustomError("unknown", "{message}", {"message": str(error)})
            raise wrong from error
        if self._depth > MAX_DEPTH:
            raise PydanticCustomError("depth", "is nested too deeply")
        self._depth += 1
        try:
            made = model.model_validate({**table, USE: used})
        except ValidationError as error:  # which pydantic would merge into that of the recipe
            raise AtPlacesError([((), error)]) from error
        finally:
            self._depth -= 1
        options = {n: getattr(made, n) for n in made.model_fields_set - {USE}}
        return Thing(kind, used, {n: options[n] for n in model.model_fields if n in options})

    def condition(self, written: Any) -> Any:
        """A number, text or list; or a table: a thing of any kind, or one of :class:`Word`."""
        if isinstance(written, str) and len(written) > MAX_TEXT:
            raise PydanticCustomError("text", "is too long")
        if isinstance(written, list):
            return [self.condition(one) for one in written]
        if not isinstance(written, dict):
            return written
        if written == {"unconditional": True}:
            return Word("unconditional")
        if isinstance(written.get("scheduler"), str):
            config = {k: v for k, v in written.items() if k != "scheduler"}
            return Word(written["scheduler"], config)
        if USE not in written:
            raise PydanticCustomError("condition", 'must have the key use, as in {use = "hybrid"}')
        name = written[USE]
        found = [kind for kind in KINDS if isinstance(name, str) and name in self.names(kind)]
        return self.thing(found[0] if found else "plugin", written)

    @cached_property
    def whole(self) -> type[BaseModel]:
        """The model of a recipe; its instances are :class:`Written`."""
        partial = Models(self.registry, partial=True)
        partial.options = self.options
        score = partial.spelling.thing("score")
        stack = checked(self._plugins, {"type": "object"})
        output = create_model("output", __base__=Output, score=(score | None, None))
        fields: dict[str, Any] = {
            "backend": (self.spelling.thing("backend"), Field()),
            "plugins": (stack, Field(default_factory=dict)),
            "condition": (self.spelling.anything, None),
            "solver": (self.spelling.thing("solver") | None, None),
            "output": (output, Field(default_factory=output)),
        }
        whole = create_model("recipe", __base__=Written, **fields)
        for title, model in (("recipe", whole), ("recipe.output", output)):
            self.options[title] = tuple(model.model_fields)
        return whole

    def _plugins(self, written: Any) -> dict[str, Thing]:
        if not isinstance(written, dict):
            raise PydanticCustomError("plugins", "must be tables such as [plugins.cfg]")
        made, wrong = {}, []
        for label, table in written.items():
            try:
                if not isinstance(table, dict):
                    raise PydanticCustomError("plugin", "must be a table of options")
                made[label] = self.thing("plugin", table, label)
            except (AtPlacesError, PydanticCustomError) as error:
                wrong.append(((label,), error))
        if wrong:
            raise AtPlacesError(wrong)
        return made

    def _model(self, kind: str, name: str, factory: Any) -> type[BaseModel]:
        options: dict[str, Any] = {}
        for option, annotation in annotations_of(factory).items():
            kept = inspect.signature(factory).parameters[option].default
            kept = None if self._partial and kept is inspect.Parameter.empty else kept
            required = kept is inspect.Parameter.empty
            default = Field() if required else Field(default=_written_default(kept))
            options[option] = (self.spelling.of(annotation), default)
        title = f"{kind} {name}"
        self.options[title] = tuple(options)
        # The name of a model may hold anything; those of fields are a constructor's own.
        options[USE] = Literal[name], Field(default=name, description=f"The {kind}.")
        return create_model(
            f"{kind}_{name}",
            __config__=ConfigDict(**_STRICT, title=title, protected_namespaces=()),
            __doc__=self.registry.find(kind, name).description,
            **options,
        )


def _written_default(value: Any) -> Any:
    """A default as a schema shows it; options that were not written are left to the library."""
    plain = isinstance(value, int | float | str | bool | list) or value is None
    return list(value) if isinstance(value, tuple) else value if plain else None


def _seeds(written: Any) -> tuple[int, ...]:
    """7, "0:64", or a list of such."""
    found: list[int] = []
    for one in written if isinstance(written, list) else [written]:
        limits = _RANGE.fullmatch(one) if isinstance(one, str) else None
        if limits:
            first, end = map(int, limits.groups())
            found += range(first, min(end, first + MAX_SEEDS + 1))
        elif isinstance(one, str) and one.isdecimal() and len(one) <= 10:
            found.append(int(one))
        else:
            found.append(one)
        if len(found) > MAX_SEEDS:
            raise PydanticCustomError("seeds", f"must be at most {MAX_SEEDS}")
    try:
        return checked_seeds(found)
    except (TypeError, ValueError) as error:
        raise PydanticCustomError(
            "seeds", "{message}", {"message": f'must be such as 7, "0:64" or [1, 5]: {error}'}
        ) from error


if TYPE_CHECKING:
    Seeds = tuple[int, ...]
else:
    Seeds = checked(_seeds, {"anyOf": [{"type": t} for t in ("integer", "string", "array")]})


class Output(BaseModel):
    """What is written, and where."""

    model_config = _STRICT

    folder: str | None = Field(None, description="Beside the recipe; by default of its name.")
    size: int | None = Field(None, ge=1, le=4096, description="Pixels of the longer side.")
    sheet: bool = Field(False, description="One picture of all images, sheet.png.")
    animate: Literal["gif", "mp4"] | None = Field(None, description="A film of the views.")
    best: int | None = Field(None, ge=1, le=MAX_SEEDS, description="Keep so many, by score.")
    score: Any = Field(None, description="How images are compared.")


class Written(BaseModel):
    """A recipe: what to sample, how, and what becomes of it."""

    model_config = _STRICT

    title: str = Field("", description="What it shows; for readers.")
    backend: Any
    plugins: Any
    condition: Any = None
    solver: Any = None
    steps: int = Field(20, ge=1, le=MAX_STEPS, description="Steps from noise to image.")
    seeds: Seeds = Field((0,), description='One image a seed: 7, "0:64", or a list of such.')
    max_rows: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        "auto", description="Most images in one call of the network."
    )
    output: Output
