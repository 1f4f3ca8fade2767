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
class Texts:
    """The embedded prompts of rows; those of the next step are often the same.

    Attributes:
        tokens: embeddings (L, D) of each prompt; of one length unless the family is ``ragged``.
        pooled: (N, P) embeddings of whole prompts, where the family has any.
        pixels: height and width of the images.
        grid: height and width of the latents.
    """

    tokens: list[Tensor]
    pooled: Tensor
    pixels: tuple[int, int]
    grid: tuple[int, int]

    @property
    def together(self) -> Tensor:
        """The tokens as one tensor (N, L, D)."""
        return torch.stack(self.tokens)


@dataclass(frozen=True, eq=False)
class Rows:
    """The inputs of a denoiser, one row per image.

    Attributes:
        x: latents (N, C, h, w), in the dtype of the network.
        levels: (N,) the times that the network takes: times of a discrete schedule, or the noise
            levels in [0, 1] of a flow; float32.
        given: the arguments that the family makes of the texts.
        guidance: (N,) scales for a network that takes them, or None; float32.
    """

    x: Tensor
    levels: Tensor
    given: Mapping[str, Any]
    guidance: Tensor | None


@dataclass(frozen=True, eq=False, repr=False)
class Family:
    """The adapter of one kind of model.

    Attributes:
        pipeline: the class in diffusers that encodes prompts.
        part: the folder of the denoiser.
        network: the denoiser's class in diffusers.
        encode: (pipeline, prompt, device) -> tokens (1, L, D) and pooled (1, P) or None.
        given: texts -> the arguments of the denoiser that are the same at each step.
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
    given: Callable[[Texts], Mapping[str, Any]]
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


def _given_sd(texts: Texts) -> Mapping[str, Any]:
    return {"encoder_hidden_states": texts.together}


def _given_sdxl(texts: Texts) -> Mapping[str, Any]:
    # The size of the picture, the corner it was cut out at, and the size wanted.
    sizes = torch.tensor([*texts.pixels, 0, 0, *texts.pixels], dtype=texts.pooled.dtype)
    ids = to_device(sizes, texts.pooled.device).expand(len(texts.pooled), -1)
    added = {"text_embeds": texts.pooled, "time_ids": ids}
    return {**_given_sd(texts), "added_cond_kwargs": added}


def _answer_unet(unet: Any, rows: Rows) -> Tensor:
    return _first(unet(rows.x, rows.levels, **rows.given, return_dict=False))


def _given_sd3(texts: Texts) -> Mapping[str, Any]:
    return {**_given_sd(texts), "pooled_projections": texts.pooled}


def _answer_sd3(transformer: Any, rows: Rows) -> Tensor:
    levels = 1000 * rows.levels
    return -_first(transformer(rows.x, timestep=levels, **rows.given, return_dict=False))


def _given_flux(texts: Texts) -> Mapping[str, Any]:
    text = texts.together
    height, width = (side // 2 for side in texts.grid)
    places = torch.cartesian_prod(
        *(torch.arange(n, device=text.device) for n in (1, height, width))
    )
    return {
        "encoder_hidden_states": text,
        "pooled_projections": texts.pooled,
        "txt_ids": text.new_zeros(text.shape[1], 3),
        "img_ids": places.to(text),
    }


def _answer_flux(transformer: Any, rows: Rows) -> Tensor:
    packed = F.pixel_unshuffle(rows.x, 2)  # each square of 2 x 2 is a token
    out = _first(
        transformer(
            packed.flatten(2).mT,
            timestep=(1000 * rows.levels).to(rows.x.dtype) / 1000,  # rounded as in the pipeline
            guidance=rows.guidance,
            **rows.given,
            return_dict=False,
        )
    )
    return -F.pixel_shuffle(out.mT.unflatten(2, packed.shape[2:]), 2)


def _given_z_image(texts: Texts) -> Mapping[str, Any]:
    return {"cap_feats": texts.tokens}


def _answer_z_image(transformer: Any, rows: Rows) -> Tensor:
    images = [*rows.x[:, :, None].unbind(0)]  # each is a film of one frame
    clock = (1000 - 1000 * rows.levels) / 1000
    out = _first(transformer(images, clock, **rows.given, return_dict=False))
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
    given=_given_sd,
    answer=_answer_unet,
    width="cross_attention_dim",
    limits={"tokenizer": None},
)
SDXL = Family(
    pipeline="StableDiffusionXLPipeline",
    part="unet",
    network="UNet2DConditionModel",
    encode=_encode_sdxl,
    given=_given_sdxl,
    answer=_answer_unet,
    width="cross_attention_dim",
    pooled=_unet_pooled,
    limits={"tokenizer": None, "tokenizer_2": None},
)
SD3 = Family(
    pipeline="StableDiffusion3Pipeline",
    part="transformer",
    network="SD3Transformer2DModel",
    encode=_encode_sd3,
    given=_given_sd3,
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
    given=_given_flux,
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
    given=_given_z_image,
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
