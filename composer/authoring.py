"""What authors of plugins need beyond the hooks; the built-in plugins use nothing else.

Checks of plain arguments are in :mod:`composer.arguments`, devices and dtypes by name in
:mod:`composer.named`, pictures and masks in :mod:`composer.images`.
"""

from composer._checks import (
    check_condition,
    check_encodable,
    checked_backend,
    checked_condition,
    checked_solver,
)
from composer._probes import check_parts, check_view
from composer.batch import grouped
from composer.generators import generator_of
from composer.markers import answers
from composer.plugin import (
    SETS_START,
    conditions_of,
    declared,
    finest_of,
    hooks_of,
    is_nested,
    sets_conditions,
    views_of,
    with_nested,
)
from composer.protocols import draw, image_shape_of, low_res_schedule_of, models_of
from composer.requests import combine
from composer.words import short_repr

__all__ = [
    "SETS_START",
    "answers",
    "check_condition",
    "check_encodable",
    "check_parts",
    "check_view",
    "checked_backend",
    "checked_condition",
    "checked_solver",
    "combine",
    "conditions_of",
    "declared",
    "draw",
    "finest_of",
    "generator_of",
    "grouped",
    "hooks_of",
    "image_shape_of",
    "is_nested",
    "low_res_schedule_of",
    "models_of",
    "sets_conditions",
    "short_repr",
    "views_of",
    "with_nested",
]
