"""Recipes: a sampling call as JSON, and back.

A recipe names registered things only, never import paths, so that reading one runs no code but
that of installed packages. An object that no package registers is written as
``{"unregistered": ...}``, and whoever reads the recipe supplies it. A recipe may come from a
stranger: it opens no file and reaches no network unless the caller says so (``trust=``), and its
size is checked before anything is made of it (:mod:`composer.limits`).
"""

from composer.recipes.reading import Trust, arguments_of, call_of, decode, documented
from composer.recipes.writing import Draft, describe, draft, encode

__all__ = [
    "Draft",
    "Trust",
    "arguments_of",
    "call_of",
    "decode",
    "describe",
    "documented",
    "draft",
    "encode",
]
