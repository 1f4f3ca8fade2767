"""A tiny pipeline of diffusers, random and offline, and how diffusers itself samples from it."""

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

import composer
from composer import Sampler

SEEDS = (4, 0, 7)


def tiny_unet(**options):
    """A random UNet2DModel whose output varies about as much as noise does."""
    torch.manual_seed(0)
    layout = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 4,
    }
    unet = UNet2DModel(**{**layout, **options}).eval()
    with torch.no_grad():
        unet.conv_out.weight.mul_(2)
        if unet.class_embedding is not None:
            unet.class_embedding.weight.mul_(3)
    return unet


def write(folder, scheduler=None, **unet):
    DDPMPipeline(tiny_unet(**unet), scheduler or DDPMScheduler()).save_pretrained(folder)
    return folder


def load(folder, **options):
    return composer.load_backend("diffusers", model=str(folder), **options)


def generators():
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


def run_pipeline(pipeline, steps, **options):
    """The pipeline's last image before it is clamped and scaled for PIL."""
    pipeline.set_progress_bar_config(disable=True)
    images, step = [], pipeline.scheduler.step

    def recorded(*args, **kwargs):
        out = step(*args, **kwargs)
        images.append(out.prev_sample)
        return out

    pipeline.scheduler.step = recorded
    batch = {"batch_size": len(SEEDS), "generator": generators(), "num_inference_steps": steps}
    shown = pipeline(**batch, output_type="pt", **options).images
    assert torch.equal(shown, (images[-1] / 2 + 0.5).clamp(0, 1))
    return images[-1]


def assert_same(ours, theirs, within=1e-5):
    assert theirs.std() > 0.1
    assert theirs[0].sub(theirs[1]).abs().mean() > 0.05  # the seeds matter
    # Of an untrained network, what is not clipped grows: the tolerance is in units of the image.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=within * max(1, theirs.std().item()))


def ours(folder, steps, solver=None, **options):
    return Sampler(load(folder, **options), [], solver, steps).sample(seeds=SEEDS).x
