"""Recipes: write a sampling call as JSON, and read it back.

A recipe contains registered names, never import paths, so reading it runs only code of installed
packages. An object that no package registers is written as ``{"unregistered": ...}``, and the
reader supplies it. A recipe may come from a stranger. It opens no file and uses no network unless
the caller allows it (``trust=``), and its size is checked first (:mod:`composer.limits`).
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
