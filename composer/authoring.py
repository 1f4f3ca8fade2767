"""Functions and types for authors of plugins. The built-in plugins use nothing else.

Checks of plain arguments are in :mod:`composer.arguments`, devices and dtypes by name in
:mod:`composer.named`, pictures and masks in :mod:`composer.images`. docs/authoring.md has a line
for each name.
"""

from composer._candidates import (
    Score,
    add_log_weights,
    check_score,
    follow_several,
    require_score,
    scored,
    take_log_weights,
)
from composer._checks import (
    check_condition,
    check_encodable,
    checked_backend,
    checked_condition,
    checked_plugins,
    checked_solver,
)
from composer._clipping import Clip, clipped, dynamic_threshold
from composer._hutchinson import Hutchinson
from composer._jumps import with_jumps
from composer._known import KnownRegion
from composer._losses import Loss, check_loss, loss_gradient
from composer._once import once
from composer._parts import Decomposition, Part, parts_of
from composer._probes import check_parts, check_view, probes, rounding
from composer._resizing import (
    REFERENCE_SIZE,
    Resizable,
    resized,
    resized_image,
    resized_mask,
)
from composer._walks import check_walks, plan_walks, require_walks
from composer.backend_attributes import (
    differentiable_of,
    guidance_of,
    low_res_schedule_of,
    models_of,
    noise_scale_of,
)
from composer.backend_wrapper import BackendWrapper
from composer.batch import grouped
from composer.generators import generator_of
from composer.latents import (
    image_shape_of,
    in_pixels,
    is_latent,
    require_coder,
    to_images,
    to_latents,
)
from composer.markers import answers
from composer.placing import numbers_to_device, to_device
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
from composer.protocols import draw, initial_noise
from composer.requests import combine
from composer.weights import networks_of, sha256_of
from composer.words import short_repr

__all__ = [
    "REFERENCE_SIZE",
    "SETS_START",
    "BackendWrapper",
    "Clip",
    "Decomposition",
    "Hutchinson",
    "KnownRegion",
    "Loss",
    "Part",
    "Resizable",
    "Score",
    "add_log_weights",
    "answers",
    "check_condition",
    "check_encodable",
    "check_loss",
    "check_parts",
    "check_score",
    "check_view",
    "check_walks",
    "checked_backend",
    "checked_condition",
    "checked_plugins",
    "checked_solver",
    "clipped",
    "combine",
    "conditions_of",
    "declared",
    "differentiable_of",
    "draw",
    "dynamic_threshold",
    "finest_of",
    "follow_several",
    "generator_of",
    "grouped",
    "guidance_of",
    "hooks_of",
    "image_shape_of",
    "in_pixels",
    "initial_noise",
    "is_latent",
    "is_nested",
    "loss_gradient",
    "low_res_schedule_of",
    "models_of",
    "networks_of",
    "noise_scale_of",
    "numbers_to_device",
    "once",
    "parts_of",
    "plan_walks",
    "probes",
    "require_coder",
    "require_score",
    "require_walks",
    "resized",
    "resized_image",
    "resized_mask",
    "rounding",
    "scored",
    "sets_conditions",
    "sha256_of",
    "short_repr",
    "take_log_weights",
    "to_device",
    "to_images",
    "to_latents",
    "views_of",
    "with_jumps",
    "with_nested",
]
