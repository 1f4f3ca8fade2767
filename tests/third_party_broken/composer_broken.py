"""A package that fails to import."""

raise RuntimeError("made against another version")
