"""A tiny pipeline of diffusers, random and offline, and how diffusers itself samples from it."""

import dataclasses
from contextlib import contextmanager

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


@contextmanager
def default_dtype(dtype):
    """DDPMPipeline draws its first noise in torch's default dtype, whatever the network's."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def run_pipeline(pipeline, steps, **options):
    """The pipeline's last image in float64 before it is clamped and scaled for PIL."""
    pipeline.to(torch.float64)
    pipeline.set_progress_bar_config(disable=True)
    images, step = [], pipeline.scheduler.step

    def recorded(*args, **kwargs):
        out = step(*args, **kwargs)
        images.append(out.prev_sample)
        return out

    pipeline.scheduler.step = recorded
    batch = {"batch_size": len(SEEDS), "generator": generators(), "num_inference_steps": steps}
    with default_dtype(torch.float64):
        shown = pipeline(**batch, output_type="pt", **options).images
    assert torch.equal(shown, (images[-1] / 2 + 0.5).clamp(0, 1))
    return images[-1]


def assert_same(ours, theirs):
    assert theirs.std() > 0.1
    assert theirs[0].sub(theirs[1]).abs().mean() > 0.05  # the seeds matter
    # Of an untrained network, what is not clipped grows: the tolerance is in units of the image.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * max(1, theirs.std().item()))


def ours(folder, steps, solver=None, **options):
    return sample(load(folder, **options), steps, solver)


def sample(backend, steps, solver=None):
    """A sample in float64: we and diffusers sum in other orders, and in float32 a step at
    alpha = .006 would make 160 times as much of the difference."""
    backend = dataclasses.replace(backend, unet=backend.unet.double(), dtype=torch.float64)
    return Sampler(backend, [], solver, steps).sample(seeds=SEEDS).x
