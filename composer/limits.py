"""Limits of one call.

A call above these limits takes all the time or all the memory of a machine. No known use needs
more, but a stranger's recipe or a typing error can request more in a few bytes.
"""

MAX_STEPS = 10_000
"""Steps of a run: ten times the training times of most models."""
MAX_PLAN = 1_000_000
"""Times that a run visits, walks and jumps included."""
MAX_WALKS = 1_000
"""Walks at one noise level, and repeats of one part of the plan by RePaint."""
MAX_PARTICLES = 10_000
"""Candidates of one seed."""
MAX_BANDS = 16
"""Successive blurs; each doubles the width, so that ten reach a thousand pixels."""
MAX_SEEDS = 100_000
"""Seeds of a recipe's call."""
MAX_PIXELS = 4096 * 4096
"""Pixels of one picture that is read or written, and of all pictures of a recipe together.

For a model of large images, a recipe may hold more: see :data:`MAX_IMAGES`."""

MAX_IMAGES = 64
"""A recipe's pictures together may have as many pixels as this number of images of the model, or
:data:`MAX_PIXELS` if that is more."""
MAX_DEPTH = 64
"""Nested lists and dictionaries in a recipe."""
MAX_OBJECTS = 500
"""Dictionaries in a recipe: plugins, views and pictures are dictionaries."""
MAX_LISTS = 10_000
"""Lists in a recipe."""
MAX_VALUES = 2**21
"""Values in a recipe, such as the indices of a permutation of 1024 x 1024 pixels."""
MAX_TEXT = 10_000
"""Letters of a name or a prompt in a recipe."""
MAX_TEXTS = 10_000
"""Texts in a recipe: names, prompts and the keys of dictionaries."""
MAX_BYTES = 2**28
"""Letters of a recipe's pictures and tensors together."""
MAX_WHOLE = 2**63
"""Bound of the whole numbers in a recipe."""
MAX_SETTING = 100_000
"""Largest number, and largest count of numbers, in a recipe's scheduler settings."""


def require_plan(times: int, what: str) -> None:
    """Check the number of times that a run will visit, before the list of them is made."""
    if times > MAX_PLAN:
        raise ValueError(
            f"{what} must make a plan of at most {MAX_PLAN} times, got {times}. Take fewer of "
            "them, or fewer steps."
        )
