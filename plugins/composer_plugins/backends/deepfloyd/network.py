"""One forward of a UNet that reads text, for all requests of a round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from composer import Request, Stack
from composer.authoring import answers
from composer_plugins.backends.deepfloyd.embedding_files import NEGATIVE
from composer_plugins.backends.deepfloyd.embeddings import Embeddings
from composer_plugins.backends.memory import memory_bound

NOTHING_TO_ENLARGE = (
    "this stage enlarges an image and was given none; add composer_plugins.SuperResolution(image) "
    "to the plugins"
)


def require_image(stack: Stack) -> None:
    """Refuse a stack in which nothing could give the image that this stage enlarges."""
    if not any(answers(plugin, "start") for plugin in stack.plugins):
        raise ValueError(NOTHING_TO_ENLARGE)


def asked(unet: Any, embeddings: Embeddings, requests: Sequence[Request]) -> list[Tensor]:
    """What the UNet answers each request, its conditions being prompts.

    One forward; as many as there are lengths L, should embeddings differ in theirs.
    """
    embeddings.free_encoder()
    places: dict[int, list[int]] = {}
    for place, request in enumerate(requests):
        places.setdefault(embeddings[request.condition].shape[1], []).append(place)
    outputs: dict[int, Tensor] = {}
    for group in places.values():
        # Unconditional rows first, as in the pipelines: equal to the last bit, not nearly.
        group.sort(key=lambda place: requests[place].condition != NEGATIVE)
        answers = _forward(unet, embeddings, [requests[place] for place in group])
        outputs.update(zip(group, answers, strict=True))
    return [outputs[place] for place in range(len(requests))]


def _forward(unet: Any, embeddings: Embeddings, requests: Sequence[Request]) -> tuple[Tensor, ...]:
    batch = len(requests[0].x)
    # The UNet's own ``dtype`` walks through all of its modules.
    x = torch.cat([_seen(unet, r) for r in requests]).to(next(unet.parameters()).dtype)
    # Float32 also for a half-precision network: bfloat16 has no 999.
    times = [request.t for request in requests for _ in range(batch)]
    text = torch.cat([embeddings[r.condition].expand(batch, -1, -1) for r in requests]).to(x)
    with memory_bound(x):
        out: Tensor = unet(
            x,
            torch.tensor(times, dtype=torch.float32, device=x.device),
            encoder_hidden_states=text,
            class_labels=_labels(unet, requests),
            return_dict=False,
        )[0]
    answers: tuple[Tensor, ...] = out.split(batch)
    return answers


def _enlarges(unet: Any, request: Request) -> bool:
    """Whether the UNet sees an image beside x."""
    return bool(unet.config.in_channels > request.x.shape[1])


def _seen(unet: Any, request: Request) -> Tensor:
    """What the UNet looks at: x, and in stages II and III the low-resolution image behind it."""
    if not _enlarges(unet, request):
        return request.x
    if "low_res" not in request.beside:
        raise ValueError(NOTHING_TO_ENLARGE)
    low_res = request.beside["low_res"].expand(len(request.x), -1, -1, -1)
    return torch.cat([request.x, low_res], 1)


def _labels(unet: Any, requests: Sequence[Request]) -> Tensor | None:
    """The noise level of each low-resolution image."""
    if not _enlarges(unet, requests[0]):
        return None
    levels = torch.cat([r.beside["noise_level"].expand(len(r.x)) for r in requests])
    # Levels that are looked up in a table, as stage III does, are whole.
    return levels if unet.config.num_class_embeds is None else levels.round().long()
