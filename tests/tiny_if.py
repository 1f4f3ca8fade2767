"""A tiny, randomly initialised DeepFloyd IF, made offline: stages I and II as diffusers saves them.

It is wired like the real one (a 6-channel UNet with simple cross-attention and pooled text, T5
with a sentencepiece vocabulary, learned_range variance, dynamic thresholding), of 0.8 M parameters.
"""

import dataclasses
import itertools
import json
import shutil

import pytest
import sentencepiece
import torch
from diffusers import (
    DDPMScheduler,
    IFPipeline,
    IFSuperResolutionPipeline,
    UNet2DConditionModel,
)
from transformers import AutoTokenizer, T5Config, T5EncoderModel

WIDTH = 32  # of the text embeddings
SIZES = {1: 16, 2: 32}  # small, for speed; IF's are 64 and 256

NOUNS = ["cat", "dog", "snowman", "waterfall", "skull", "rocket", "village", "pencil", "hat"]
STYLES = ["a photo of", "an oil painting of", "a lithograph of", "a rocket ship over"]
PLACES = ["in the snow", "at night", "on a table", "by the sea", "in a forest", "under the moon"]


def build(folder):
    """Write stages I and II into ``folder``/1 and /2; returns those two folders by stage."""
    tokenizer = make_tokenizer(folder / "tokenizer")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    text_encoder = T5EncoderModel(config).eval()
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="learned_range",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.5,
    )
    common = {
        "tokenizer": tokenizer,
        "text_encoder": text_encoder,
        "safety_checker": None,
        "feature_extractor": None,
        "watermarker": None,
        "requires_safety_checker": False,
    }
    stage_1 = IFPipeline(unet=make_unet(1), scheduler=scheduler, **common)
    stage_2 = IFSuperResolutionPipeline(
        unet=make_unet(2),
        scheduler=DDPMScheduler.from_config(scheduler.config, sample_max_value=1.0),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        **common,
    )
    folders = {1: folder / "1", 2: folder / "2"}
    stage_1.save_pretrained(folders[1])
    stage_2.save_pretrained(folders[2])
    return folders


def make_tokenizer(folder):
    """A unigram vocabulary learned from made-up captions."""
    folder.mkdir(parents=True)
    captions = [
        f"{style} a {noun} {place}"
        for style, noun, place in itertools.product(STYLES, NOUNS, PLACES)
    ]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(captions),
        model_prefix=str(folder / "spiece"),
        vocab_size=100,
        model_type="unigram",
        hard_vocab_limit=False,
        minloglevel=2,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        eos_piece="</s>",
        unk_piece="<unk>",
    )
    settings = {
        "tokenizer_class": "T5Tokenizer",
        "extra_ids": 100,
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return AutoTokenizer.from_pretrained(folder)


def make_unet(stage, size=None):
    """The UNet of IF in two levels; stage II sees the low-resolution image and its noise level."""
    torch.manual_seed(stage)
    upscaling = {
        "in_channels": 6,
        "class_embed_type": "timestep",
        "mid_block_scale_factor": 1.414,
        "resnet_out_scale_factor": 1.414,
        "resnet_skip_time_act": True,
        "time_embedding_act_fn": "gelu",
    }
    unet = UNet2DConditionModel(
        sample_size=size or SIZES[stage],
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        out_channels=6,
        cross_attention_dim=WIDTH,
        encoder_hid_dim=WIDTH,
        attention_head_dim=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
        **({"in_channels": 3} if stage == 1 else upscaling),
    )
    with torch.no_grad():
        # A trained model draws images together; this random one, under guidance, would drive them
        # apart, and the last bit with them: .1 leaves half of 1e-5 to float32's rounding, and
        # prompts and scales that change images by .06 to .65.
        unet.conv_out.weight.mul_(0.1)
    return unet.eval()


def exact(pipeline, dtype=torch.float64):
    """The pipeline in ``dtype``, and where that is float64, its scheduler too."""
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(dtype)
    pipeline.scheduler.alphas_cumprod = pipeline.scheduler.alphas_cumprod.to(dtype)
    return pipeline


def computing(backend, dtype=torch.float64):
    """The backend in ``dtype``, its text encoder too."""
    store = backend.embeddings
    store.encoder = dataclasses.replace(store.encoder, dtype=dtype)
    return dataclasses.replace(backend, unet=backend.unet.to(dtype), dtype=dtype)


in_both_precisions = pytest.mark.parametrize(
    "precision", [torch.float64, torch.float32], ids=str, indirect=True, scope="module"
)


def assert_equal(ours, theirs):
    """To 1e-5 in float32 and 1e-10 in float64, of images in [-1, 1].

    Measured over the vector instructions from SSE to AVX-512, which sum in other orders: at most
    4.8e-6 and 1.3e-12.
    """
    atol = {torch.float32: 1e-5, torch.float64: 1e-10}[theirs.dtype]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


def rewrite(file, **changes):
    """Change entries of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def empty(part):
    """What removes a part of a pipeline from its folder."""
    return lambda folder: shutil.rmtree(folder / part)


def cut(file):
    """What leaves the first bytes of a file of a folder."""
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:50])
