"""The families of latent models: how each encodes a prompt, and how its denoiser is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from composer.authoring import to_device
from composer_plugins.backends.latent.flow import Levels, from_one, from_one_rounded

Encoded = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, eq=False)
class Rows:
    """The inputs of a denoiser, one row per image.

    Attributes:
        x: latents (N, C, h, w), in the dtype of the network.
        levels: (N,) the times that the network takes: times of a discrete schedule, or the noise
            levels in [0, 1] of a flow; float32.
        tokens: embeddings (L, D) of each prompt; of one length unless the family is ``ragged``.
        pooled: (N, P) embeddings of whole prompts, where the family has any.
        guidance: (N,) scales for a network that takes them, or None; float32.
        pixels: height and width of the images.
    """

    x: Tensor
    levels: Tensor
    tokens: list[Tensor]
    pooled: Tensor | None
    guidance: Tensor | None
    pixels: tuple[int, int]

    @property
    def text(self) -> Tensor:
        """The tokens as one tensor (N, L, D)."""
        return torch.stack(self.tokens)


@dataclass(frozen=True, eq=False, repr=False)
class Family:
    """The adapter of one kind of model.

    Attributes:
        pipeline: the class in diffusers that encodes prompts.
        part: the folder of the denoiser.
        network: the denoiser's class in diffusers.
        encode: (pipeline, prompt, device) -> tokens (1, L, D) and pooled (1, P) or None.
        answer: (network, rows) -> its output (N, C, h, w): epsilon or v of a discrete schedule,
            x_0 - noise of a flow.
        width: the entry of the network's configuration that states D.
        pooled: the size P by the network's configuration; 0 for none.
        channels: channels of the latents, by the network's configuration.
        size: height and width of the images in latent pixels, by the network's configuration.
        patch: the number that must divide the sides of the latents, by the network's configuration.
        flow: whether it follows a flow, with a FlowMatchEulerDiscreteScheduler.
        levels: noise levels of a flow, see :class:`.flow.ScheduledFlow`.
        ragged: whether prompts may have different numbers of tokens in one call.
        limits: {tokenizer: largest number of tokens of a prompt}; None for the tokenizer's own.
    """

    pipeline: str
    part: str
    network: str
    encode: Callable[[Any, str, torch.device], Encoded]
    answer: Callable[[Any, Rows], Tensor]
    width: str
    pooled: Callable[[Mapping[str, Any]], int] = lambda config: 0
    channels: Callable[[Mapping[str, Any]], int] = lambda config: int(config["in_channels"])
    size: Callable[[Mapping[str, Any]], int] = lambda config: int(config["sample_size"])
    patch: Callable[[Mapping[str, Any]], int] = lambda config: 1
    flow: bool = False
    levels: Levels | None = None
    ragged: bool = False
    limits: Mapping[str, int | None] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Family({self.pipeline})"

    def __reduce__(self) -> tuple[Any, ...]:  # a constant of this module, whose functions are not
        return _named, (self.pipeline,)


def _named(pipeline: str) -> Family:
    return FAMILIES[pipeline]


def _encode_sd(pipeline: Any, prompt: str, device: torch.device) -> Encoded:
    tokens, _ = pipeline.encode_prompt(prompt, device, 1, False)
    return tokens, None


def _encode_sdxl(pipeline: Any, prompt: str, device: torch.device) -> Encoded:
    tokens, _, pooled, _ = pipeline.encode_prompt(
        prompt, device=device, do_classifier_free_guidance=False
    )
    return tokens, pooled


def _encode_sd3(pipeline: Any, prompt: str, device: torch.device) -> Encoded:
    tokens, _, pooled, _ = pipeline.encode_prompt(
        prompt, None, None, device=device, do_classifier_free_guidance=False
    )
    return tokens, pooled


def _encode_flux(pipeline: Any, prompt: str, device: torch.device) -> Encoded:
    tokens, pooled, _ = pipeline.encode_prompt(prompt, None, device=device)
    return tokens, pooled


def _encode_z_image(pipeline: Any, prompt: str, device: torch.device) -> Encoded:
    (tokens,), _ = pipeline.encode_prompt(prompt, device, do_classifier_free_guidance=False)
    return tokens[None], None


def _answer_sd(unet: Any, rows: Rows) -> Tensor:
    return _first(unet(rows.x, rows.levels, encoder_hidden_states=rows.text, return_dict=False))


def _answer_sdxl(unet: Any, rows: Rows) -> Tensor:
    # The size of the picture, the corner it was cut out at, and the size wanted.
    sizes = torch.tensor([*rows.pixels, 0, 0, *rows.pixels], dtype=rows.x.dtype)
    ids = to_device(sizes, rows.x.device).expand(len(rows.x), -1)
    added = {"text_embeds": rows.pooled, "time_ids": ids}
    return _first(
        unet(
            rows.x,
            rows.levels,
            encoder_hidden_states=rows.text,
            added_cond_kwargs=added,
            return_dict=False,
        )
    )


def _answer_sd3(transformer: Any, rows: Rows) -> Tensor:
    return -_first(
        transformer(
            hidden_states=rows.x,
            timestep=1000 * rows.levels,
            encoder_hidden_states=rows.text,
            pooled_projections=rows.pooled,
            return_dict=False,
        )
    )


def _answer_flux(transformer: Any, rows: Rows) -> Tensor:
    height, width = (side // 2 for side in rows.x.shape[2:])
    packed = F.pixel_unshuffle(rows.x, 2)  # each square of 2 x 2 is a token
    text = rows.text
    places = torch.cartesian_prod(
        *(torch.arange(n, device=text.device) for n in (1, height, width))
    )
    out = _first(
        transformer(
            hidden_states=packed.flatten(2).mT,
            timestep=(1000 * rows.levels).to(rows.x.dtype) / 1000,  # rounded as in the pipeline
            guidance=rows.guidance,
            pooled_projections=rows.pooled,
            encoder_hidden_states=text,
            txt_ids=text.new_zeros(text.shape[1], 3),
            img_ids=places.to(text),
            return_dict=False,
        )
    )
    return -F.pixel_shuffle(out.mT.unflatten(2, (height, width)), 2)


def _answer_z_image(transformer: Any, rows: Rows) -> Tensor:
    images = [*rows.x[:, :, None].unbind(0)]  # each is a film of one frame
    clock = (1000 - 1000 * rows.levels) / 1000
    out = _first(transformer(images, clock, rows.tokens, return_dict=False))
    return torch.stack([*out])[:, :, 0]


def _first(answer: tuple[Any, ...]) -> Tensor:
    output: Tensor = answer[0]
    return output


def _unet_pooled(config: Mapping[str, Any]) -> int:
    """What of the embedding beside the time is not the six sizes."""
    sizes = 6 * int(config["addition_time_embed_dim"])
    return int(config["projection_class_embeddings_input_dim"]) - sizes


SD = Family(
    pipeline="StableDiffusionPipeline",
    part="unet",
    network="UNet2DConditionModel",
    encode=_encode_sd,
    answer=_answer_sd,
    width="cross_attention_dim",
    limits={"tokenizer": None},
)
SDXL = Family(
    pipeline="StableDiffusionXLPipeline",
    part="unet",
    network="UNet2DConditionModel",
    encode=_encode_sdxl,
    answer=_answer_sdxl,
    width="cross_attention_dim",
    pooled=_unet_pooled,
    limits={"tokenizer": None, "tokenizer_2": None},
)
SD3 = Family(
    pipeline="StableDiffusion3Pipeline",
    part="transformer",
    network="SD3Transformer2DModel",
    encode=_encode_sd3,
    answer=_answer_sd3,
    width="joint_attention_dim",
    pooled=lambda config: int(config["pooled_projection_dim"]),
    patch=lambda config: int(config["patch_size"]),
    flow=True,
    limits={"tokenizer": None, "tokenizer_2": None, "tokenizer_3": 256},
)
FLUX = Family(
    pipeline="FluxPipeline",
    part="transformer",
    network="FluxTransformer2DModel",
    encode=_encode_flux,
    answer=_answer_flux,
    width="joint_attention_dim",
    pooled=lambda config: int(config["pooled_projection_dim"]),
    channels=lambda config: int(config["in_channels"]) // 4,
    size=lambda config: 128,
    patch=lambda config: 2,
    flow=True,
    levels=from_one,
    limits={"tokenizer": None, "tokenizer_2": 512},
)
Z_IMAGE = Family(
    pipeline="ZImagePipeline",
    part="transformer",
    network="ZImageTransformer2DModel",
    encode=_encode_z_image,
    answer=_answer_z_image,
    width="cap_feat_dim",
    size=lambda config: 128,
    patch=lambda config: 2,
    flow=True,
    levels=from_one_rounded,
    ragged=True,
    limits={"tokenizer": 512},
)
FAMILIES: dict[str, Family] = {
    f"{name}{task}Pipeline": family
    for name, family in {
        "StableDiffusion": SD,
        "StableDiffusionXL": SDXL,
        "StableDiffusion3": SD3,
        "Flux": FLUX,
        "ZImage": Z_IMAGE,
    }.items()
    for task in ("", "Img2Img", "Inpaint")
}
"""By the class of the pipeline that model_index.json names."""
