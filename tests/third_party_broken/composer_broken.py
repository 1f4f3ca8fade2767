"""A package that prints, and then fails to import."""

print("composer_broken says hello")
raise RuntimeError("made against another version")
