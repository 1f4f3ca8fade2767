"""Composer without Python: recipes in files, pictures that remember, sweeps, choosing."""

from composer import Register, hookimpl
from composer_studio.scores.clip import ClipAlignment, ClipConcealment

__all__ = ["ClipAlignment", "ClipConcealment"]


@hookimpl
def register_plugins(register: Register) -> None:
    register.score("clip_alignment", ClipAlignment)
    register.score("clip_concealment", ClipConcealment)
