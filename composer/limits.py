"""How much one call may ask for, in one place.

Beyond these numbers a call takes all the time or all the memory of a machine. No use is known that
needs more; a recipe from a stranger, or a slip of a finger, asks for it in a few bytes.
"""

MAX_STEPS = 10_000
"""Steps of a run: ten times the times that most models were trained on."""
MAX_PLAN = 1_000_000
"""Times that a run visits, walks at one noise level and jumps back included."""
MAX_WALKS = 1_000
"""Walks at one noise level, and how often RePaint walks one stretch of the plan."""
MAX_PARTICLES = 10_000
"""Candidates of one seed."""
MAX_BANDS = 16
"""Blurs in cascade; each doubling of the width is one, and ten make a thousand pixels."""
MAX_SEEDS = 100_000
"""Of a recipe: seeds of its call."""
MAX_PIXELS = 4096 * 4096
"""Pixels of one picture that is read or written, and of all pictures of a recipe together, unless
the model's own images are so large that a few of them are more (:data:`MAX_IMAGES`)."""

MAX_IMAGES = 64
"""Of a recipe: its pictures together have at most as many pixels as so many images of the model,
or :data:`MAX_PIXELS` if that is more."""
MAX_DEPTH = 64
"""Of a recipe: lists and dictionaries inside each other."""
MAX_OBJECTS = 500
"""Of a recipe: dictionaries, which is what plugins, views and pictures are written as."""
MAX_LISTS = 10_000
"""Of a recipe: lists in it."""
MAX_VALUES = 2**21
"""Of a recipe: values in it, such as the places of a permutation of 1024 x 1024 pixels."""
MAX_TEXT = 10_000
"""Of a recipe: letters of a name or a prompt."""
MAX_BYTES = 2**28
"""Of a recipe: letters of its pictures and tensors together."""
MAX_WHOLE = 2**63
"""Of a recipe: whole numbers are below it."""
MAX_SETTING = 100_000
"""Of a recipe: numbers in the settings of a scheduler, such as its training times, and their
count."""


def require_plan(times: int, what: str) -> None:
    """Check the number of times that a run will visit, before the list of them is made."""
    if times > MAX_PLAN:
        raise ValueError(
            f"{what} make a plan of {times} times, and a run visits at most {MAX_PLAN}. Take fewer "
            "of them, or fewer steps."
        )
