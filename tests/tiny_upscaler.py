"""A tiny, randomly initialised x4 upscaler of Stable Diffusion, as diffusers saves it.

Wired like the real one: 4 latent channels and the 3 of the small image in, v-prediction, the noise
level looked up in a table, CLIP, and a DDIM that ends at time 0. Its decoder doubles the sides, for
speed.
"""

import json

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionUpscalePipeline,
    UNet2DConditionModel,
)
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel

WIDTH = 32  # of the text embeddings
SIZE = 64  # of the images made
BETAS = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "scaled_linear"}


def build(folder):
    """Write the pipeline into ``folder`` and return it."""
    tokenizer = make_tokenizer(folder / "tokenizer")
    torch.manual_seed(3)
    pipeline = StableDiffusionUpscalePipeline(
        unet=make_unet(),
        vae=AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            scaling_factor=0.08333,
        ).eval(),
        text_encoder=make_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(
            **BETAS,
            prediction_type="v_prediction",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        low_res_scheduler=DDPMScheduler(**BETAS),
        max_noise_level=350,
    )
    pipeline.save_pretrained(folder)
    return folder


def make_tokenizer(folder):
    """CLIP's, knowing single letters only."""
    folder.mkdir(parents=True)
    letters = [chr(c) for c in range(33, 127)]
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "!",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return AutoTokenizer.from_pretrained(folder)


def make_encoder(tokens):
    config = CLIPTextConfig(
        vocab_size=tokens,
        hidden_size=WIDTH,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        hidden_act="gelu",
        projection_dim=WIDTH,
        bos_token_id=tokens - 2,
        eos_token_id=tokens - 1,
        pad_token_id=0,
    )
    return CLIPTextModel(config).eval()


def make_unet():
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=7,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        use_linear_projection=True,
        only_cross_attention=(True, False),
        norm_num_groups=8,
        num_class_embeds=1000,
    ).eval()
