"""One forward of a UNet that reads text, for all rows of a call."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from composer import Batch, Output, Stack
from composer.authoring import answers, grouped, numbers_to_device
from composer_plugins.backends.deepfloyd.embedding_files import NEGATIVE
from composer_plugins.backends.deepfloyd.embeddings import Embeddings
from composer_plugins.backends.forward import forward

NOTHING_TO_ENLARGE = (
    "this stage enlarges an image and got none. Add composer_plugins.SuperResolution(image) "
    "to the plugins."
)


def require_image(stack: Stack) -> None:
    """Raise a ValueError unless a plugin may give the image that this stage enlarges."""
    if not any(answers(plugin, "start") for plugin in stack.plugins):
        raise ValueError(NOTHING_TO_ENLARGE)


def asked(unet: Any, embeddings: Embeddings, batch: Batch) -> Tensor:
    """The UNet's output for each row; conditions are prompts.

    One forward, or one per length L if the embeddings differ in length.
    """
    embeddings.free_encoder()
    prompts = cast("tuple[str, ...]", batch.conditions)
    # Unconditional rows first, as in the pipelines, so that results are equal bit for bit.
    groups = [
        sorted(rows, key=lambda row: prompts[row] != NEGATIVE)
        for rows in grouped([embeddings[prompt].shape[1] for prompt in prompts])
    ]
    outputs = [Output(_forward(unet, embeddings, batch.take(rows))) for rows in groups]
    return Output.gathered(outputs, groups).prediction


def _forward(unet: Any, embeddings: Embeddings, batch: Batch) -> Tensor:
    # The UNet's own ``dtype`` walks through all of its modules.
    x = _seen(unet, batch).to(next(unet.parameters()).dtype)
    prompts = cast("tuple[str, ...]", batch.conditions)
    text = torch.cat([embeddings[prompt] for prompt in prompts]).to(x)
    call = partial(
        unet,
        x,
        numbers_to_device(batch.times, x.device),
        encoder_hidden_states=text,
        class_labels=_labels(unet, batch),
        return_dict=False,
    )
    return forward(lambda: call()[0], x, x.dtype)


def _enlarges(unet: Any, batch: Batch) -> bool:
    """Whether the UNet sees an image beside x."""
    return bool(unet.config.in_channels > batch.x.shape[1])


def _seen(unet: Any, batch: Batch) -> Tensor:
    """The UNet's input: x, and in stages II and III the low-resolution image after it."""
    if not _enlarges(unet, batch):
        return batch.x
    if "low_res" not in batch.beside:
        raise ValueError(NOTHING_TO_ENLARGE)
    return torch.cat([batch.x, batch.beside["low_res"]], 1)


def _labels(unet: Any, batch: Batch) -> Tensor | None:
    """The noise level of each low-resolution image."""
    if not _enlarges(unet, batch):
        return None
    levels = batch.beside["noise_level"]
    # Stage III looks its levels up in a table, so they are whole numbers.
    return levels if unet.config.num_class_embeds is None else levels.round().long()
