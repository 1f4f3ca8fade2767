"""Tiny, randomly initialised latent pipelines, made offline and as diffusers saves them.

Each is wired like the real one: its denoiser, scheduler, text encoders and autoencoder are of the
classes of the model on the hub, of 20 to 300 thousand parameters. The recipes follow the tests of
diffusers. The autoencoders divide the sides by 2, for speed.
"""

from functools import partial

import diffusers
import tiny_if
import tiny_upscaler
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import nn

from composer_plugins.backends.latent import load_latent

WIDTH = 32  # of the text embeddings
SIZE = 16  # of the images made
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def build(name, folder):
    """The pipeline of a family in evaluation mode, and where below ``folder`` it was saved."""
    torch.manual_seed(5)
    pipeline = PIPELINES[name](folder / "words")
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder / "saved")
    return pipeline, folder / "saved"


def load(folder, file, **options):
    """The saved pipeline as a backend for images of the tiny size."""
    return load_latent(folder, **{"size": SIZE, "embeddings": file, **options})


def run(pipeline, task, prompt, steps, scale, seeds, **options):
    """The images in [-1, 1] that a pipeline makes, and its latents (B, C, h, w).

    Args:
        task: "", "Img2Img" or "Inpaint".
        scale: of guidance as CFG has it; 1 for none.
    """
    kind = type(pipeline).__name__.replace("Pipeline", f"{task}Pipeline")
    checked = {"requires_safety_checker": False} if "safety_checker" in pipeline.components else {}
    other = getattr(diffusers, kind)(**pipeline.components, **checked) if task else pipeline
    other.set_progress_bar_config(disable=True)
    sized = "StableDiffusionImg2Img", "StableDiffusionXLImg2Img"  # these ask the image
    size = {} if kind.startswith(sized) else {"height": SIZE, "width": SIZE}
    made = []
    for kept in ("pt", "latent"):
        out = other(
            prompt=[prompt] * len(seeds),
            num_inference_steps=steps,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type=kept,
            **guided(pipeline, scale),
            **size,
            **options,
        ).images
        made.append(out)
    image, latents = made
    if latents.ndim == 3:  # Flux packs them
        latents = pipeline._unpack_latents(latents, SIZE, SIZE, pipeline.vae_scale_factor)
    return image * 2 - 1, latents


GUIDED = {
    FluxPipeline: lambda scale: {
        "true_cfg_scale": scale,
        "negative_prompt": "",
        "guidance_scale": 3.5,
    },
    ZImagePipeline: lambda scale: {"guidance_scale": scale - 1},  # cond + g (cond - uncond)
}
"""How pipelines that do not call it guidance_scale are told the scale."""


def guided(pipeline, scale):
    """The options that give a pipeline the scale of CFG."""
    return GUIDED.get(type(pipeline), lambda scale: {"guidance_scale": scale})(scale)


def stable_diffusion(words, scheduler=None):
    tokenizer = tiny_upscaler.make_tokenizer(words)
    return StableDiffusionPipeline(
        vae=_vae(4, scaling_factor=0.18215),
        text_encoder=tiny_upscaler.make_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        unet=_unet(cross_attention_dim=WIDTH),
        scheduler=scheduler
        or PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_2(words):
    return stable_diffusion(
        words,
        DDIMScheduler(
            **BETAS,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type="v_prediction",
        ),
    )


def stable_diffusion_xl(words):
    tokenizer = tiny_upscaler.make_tokenizer(words)
    second = tiny_upscaler.make_tokenizer(words.with_name("words_2"))
    return StableDiffusionXLPipeline(
        vae=_vae(4, scaling_factor=0.13025),
        text_encoder=tiny_upscaler.make_encoder(len(tokenizer)),
        text_encoder_2=_clip(second),
        tokenizer=tokenizer,
        tokenizer_2=second,
        unet=_unet(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        ),
        scheduler=EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
    )


def stable_diffusion_3(words):
    first = tiny_upscaler.make_tokenizer(words)
    second = tiny_upscaler.make_tokenizer(words.with_name("words_2"))
    third = tiny_if.make_tokenizer(words.with_name("words_3"))
    return StableDiffusion3Pipeline(
        transformer=enliven(
            SD3Transformer2DModel(
                sample_size=SIZE // 2,
                patch_size=1,
                in_channels=16,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=4,
                caption_projection_dim=32,
                joint_attention_dim=2 * WIDTH,
                pooled_projection_dim=2 * WIDTH,
                out_channels=16,
            )
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(16, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=_clip(first),
        tokenizer=first,
        text_encoder_2=_clip(second),
        tokenizer_2=second,
        text_encoder_3=_t5(third, 2 * WIDTH),
        tokenizer_3=third,
    )


def flux(words, guided=True):
    first = tiny_upscaler.make_tokenizer(words)
    second = tiny_if.make_tokenizer(words.with_name("words_2"))
    dynamic = {"use_dynamic_shifting": True, "shift": 3.0} if guided else {"shift": 1.0}
    return FluxPipeline(
        transformer=enliven(
            FluxTransformer2DModel(
                patch_size=1,
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=WIDTH,
                pooled_projection_dim=WIDTH,
                axes_dims_rope=[4, 4, 8],
                guidance_embeds=guided,
            )
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(**dynamic),
        vae=_vae(4, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=tiny_upscaler.make_encoder(len(first)),
        tokenizer=first,
        text_encoder_2=_t5(second, WIDTH),
        tokenizer_2=second,
    )


def z_image(words):
    tokenizer = _letters(words)
    transformer = ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        norm_eps=1e-5,
        qk_norm=True,
        cap_feat_dim=WIDTH,
        rope_theta=256.0,
        t_scale=1000.0,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    for name, parameter in transformer.named_parameters():
        if "pad_token" in name:  # made by torch.empty
            nn.init.normal_(parameter, std=0.1)
    return ZImagePipeline(
        transformer=enliven(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(4, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=transformers.Qwen3Model(
            transformers.Qwen3Config(
                hidden_size=WIDTH,
                intermediate_size=37,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=16,
                vocab_size=len(tokenizer),
                max_position_embeddings=512,
            )
        ),
        tokenizer=tokenizer,
    )


PIPELINES = {
    "sd": stable_diffusion,
    "sd2": stable_diffusion_2,
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "flux-dev": flux,
    "flux-schnell": partial(flux, guided=False),
    "z-image": z_image,
}


def _unet(**settings):
    return UNet2DConditionModel(
        sample_size=SIZE // 2,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        use_linear_projection=True,
        norm_num_groups=8,
        **settings,
    )


def _vae(channels, **settings):
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=SIZE,
        **settings,
    )


def _clip(tokenizer):
    config = tiny_upscaler.make_encoder(len(tokenizer)).config
    return transformers.CLIPTextModelWithProjection(config)


def _t5(tokenizer, width):
    return transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=8,
            d_ff=37,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


def _letters(folder):
    """A vocabulary of letters, with the template of a chat."""
    letters = [chr(c) for c in range(32, 127)]
    words = Tokenizer(
        models.WordLevel(
            {word: i for i, word in enumerate(["<pad>", "<unk>", *letters])}, unk_token="<unk>"
        )
    )
    words.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", model_max_length=512
    )
    tokenizer.chat_template = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    return tokenizer


def enliven(transformer):
    """Weights wide enough for prompts and times to matter: some begin at 0."""
    for parameter in transformer.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.1)
    return transformer
