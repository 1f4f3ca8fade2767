"""Parameters and memory of the models that docs/models.md lists, from networks without weights.

Networks are built on torch's meta device from the settings below, which takes no memory and no
download. "default" means that the settings are the defaults of the class in diffusers or
transformers; others are written down from memory of the model's config.json, which is what decides.
GB are 10^9 bytes of weights alone: activations come on top. With offload the device holds one layer
at a time, of which the largest is shown.

    python benchmarks/model_sizes.py
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

SD = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
VAE = {**SD, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
WIDE_VAE = {**VAE, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
IF_BLOCKS = ("SimpleCrossAttnDownBlock2D",) * 3, ("SimpleCrossAttnUpBlock2D",) * 3
SD35 = {"attention_head_dim": 64, "qk_norm": "rms_norm"}


@dataclass(frozen=True)
class Network:
    """A network by its class and settings; a class of transformers takes a configuration."""

    kind: str
    settings: Mapping[str, Any]

    def built(self) -> nn.Module:
        with torch.device("meta"):
            if hasattr(diffusers, self.kind):
                network: nn.Module = getattr(diffusers, self.kind)(**self.settings)
                return network
            made = getattr(transformers, self.kind)
            return made(made.config_class(**self.settings))


CLIP_L = Network(
    "CLIPTextModel",
    {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
)
CLIP_H = Network(
    "CLIPTextModel",
    {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 23,
    },
)
CLIP_G = Network(
    "CLIPTextModelWithProjection",
    {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_attention_heads": 20,
        "num_hidden_layers": 32,
        "projection_dim": 1280,
    },
)
T5_XXL = Network(
    "T5EncoderModel",
    {
        "d_model": 4096,
        "d_ff": 10240,
        "d_kv": 64,
        "num_heads": 64,
        "num_layers": 24,
        "vocab_size": 32128,
        "feed_forward_proj": "gated-gelu",
    },
)
QWEN_4B = Network(
    "Qwen3Model",
    {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
)
QWEN_2B = Network(
    "Qwen3Model",
    {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
)

MODELS: dict[str, tuple[Network, Network | None, tuple[Network, ...]]] = {
    "DeepFloyd IF-I-XL": (
        Network(
            "UNet2DConditionModel",
            {
                "sample_size": 64,
                "in_channels": 3,
                "out_channels": 6,
                "layers_per_block": 3,
                "block_out_channels": (704, 1408, 2112, 2816),
                "down_block_types": ("ResnetDownsampleBlock2D", *IF_BLOCKS[0]),
                "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
                "up_block_types": (*IF_BLOCKS[1], "ResnetUpsampleBlock2D"),
                "cross_attention_dim": 2816,
                "encoder_hid_dim": 4096,
                "attention_head_dim": 64,
                "addition_embed_type": "text",
                "cross_attention_norm": "group_norm",
                "resnet_time_scale_shift": "scale_shift",
            },
        ),
        None,
        (T5_XXL,),
    ),
    "PRXPixel": (  # as diffusers' script that converts its weights sets it
        Network(
            "PRXTransformer2DModel",
            {
                "in_channels": 3,
                "patch_size": 16,
                "context_in_dim": 2048,
                "hidden_size": 3584,
                "num_heads": 28,
                "depth": 24,
                "axes_dim": [64, 64],
                "bottleneck_size": 768,
                "resolution_embeds": True,
            },
        ),
        None,
        (QWEN_2B,),
    ),
    "Stable Diffusion 1.5": (
        Network("UNet2DConditionModel", {"cross_attention_dim": 768}),
        Network("AutoencoderKL", VAE),
        (CLIP_L,),
    ),
    "Stable Diffusion 2.1": (
        Network(
            "UNet2DConditionModel",
            {
                "cross_attention_dim": 1024,
                "attention_head_dim": (5, 10, 20, 20),
                "use_linear_projection": True,
            },
        ),
        Network("AutoencoderKL", VAE),
        (CLIP_H,),
    ),
    "SDXL": (
        Network(
            "UNet2DConditionModel",
            {
                "block_out_channels": (320, 640, 1280),
                "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
                "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
                "transformer_layers_per_block": (1, 2, 10),
                "attention_head_dim": (5, 10, 20),
                "cross_attention_dim": 2048,
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
        ),
        Network("AutoencoderKL", VAE),
        (CLIP_L, CLIP_G),
    ),
    "SD 3.5 medium": (
        Network(
            "SD3Transformer2DModel",
            {
                **SD35,
                "num_layers": 24,
                "num_attention_heads": 24,
                "caption_projection_dim": 1536,
                "pos_embed_max_size": 384,
                "dual_attention_layers": tuple(range(13)),
            },
        ),
        Network("AutoencoderKL", WIDE_VAE),
        (CLIP_L, CLIP_G, T5_XXL),
    ),
    "SD 3.5 large": (
        Network(
            "SD3Transformer2DModel",
            {
                **SD35,
                "num_layers": 38,
                "num_attention_heads": 38,
                "caption_projection_dim": 2432,
                "pos_embed_max_size": 192,
            },
        ),
        Network("AutoencoderKL", WIDE_VAE),
        (CLIP_L, CLIP_G, T5_XXL),
    ),
    "FLUX.1 dev": (
        Network("FluxTransformer2DModel", {"guidance_embeds": True}),
        Network("AutoencoderKL", WIDE_VAE),
        (CLIP_L, T5_XXL),
    ),
    "FLUX.1 schnell (default)": (
        Network("FluxTransformer2DModel", {}),
        Network("AutoencoderKL", WIDE_VAE),
        (CLIP_L, T5_XXL),
    ),
    "Z-Image (default)": (
        Network("ZImageTransformer2DModel", {}),
        Network("AutoencoderKL", WIDE_VAE),
        (QWEN_4B,),
    ),
}


def sizes(network: nn.Module) -> tuple[int, int]:
    """Parameters in all, and of the largest layer."""
    layers = [sum(p.numel() for p in m.parameters(recurse=False)) for m in network.modules()]
    return sum(p.numel() for p in network.parameters()), max(layers)


def gigabytes(parameters: int, size: int) -> str:
    return f"{parameters * size / 1e9:.2g}"


def main() -> None:
    parts = "denoiser", "autoencoder", "text encoders"
    memory = "float32", "half", "half, offload", "text, float32", "text, half"
    print(f"| | {' | '.join((*parts, *memory))} |")
    print("|---" * 9 + "|")
    for name, (denoiser, vae, texts) in MODELS.items():
        main_size, largest = sizes(denoiser.built())
        vae_size, vae_largest = sizes(vae.built()) if vae else (0, 0)
        text = sum(sizes(network.built())[0] for network in texts)
        both = main_size + vae_size
        cells = (
            f"{main_size / 1e9:.3g} B",
            f"{vae_size / 1e9:.2g} B" if vae else "none",
            f"{text / 1e9:.2g} B",
            *(gigabytes(both, size) for size in (4, 2)),
            gigabytes(max(largest, vae_largest), 2),
            *(gigabytes(text, size) for size in (4, 2)),
        )
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
