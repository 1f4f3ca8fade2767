"""A tiny pipeline with any scheduler in its folder, and the loop of diffusers' pipelines."""

import copy
import dataclasses
import inspect

import torch
from tiny_unet import SEEDS, generators, load, write

from composer import Sampler


def by_hand(scheduler, unet, steps):
    """The loop of diffusers' pipelines, in float64, before the image is clamped for PIL."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    draws, accepted = generators(), inspect.signature(scheduler.step).parameters
    shape = 1, unet.config.in_channels, 8, 8
    x = torch.cat([torch.randn(shape, generator=g, dtype=torch.float64) for g in draws])
    x = x * scheduler.init_noise_sigma
    for k, t in enumerate(scheduler.timesteps):
        following = scheduler.timesteps[k + 1 :]
        further = {
            "generator": draws,
            "prev_timestep": following[0] if len(following) else None,
            "use_clipped_model_output": True,
        }
        further = {name: value for name, value in further.items() if name in accepted}
        with torch.no_grad():
            out = unet(scheduler.scale_model_input(x, t), t).sample
        if "variance_type" not in vars(scheduler):  # or SA draws as much noise for the variance
            out = out[:, : x.shape[1]]
        x = scheduler.step(out, t, x, **further).prev_sample
    return x


def folders_in(tmp_path_factory):
    """Folders of a UNet by its channels out: 3, and 6 of one that learned a variance."""
    return {
        channels: write(tmp_path_factory.mktemp(f"unet{channels}"), out_channels=channels)
        for channels in (3, 6)
    }


def backend_of(folders, scheduler):
    """A model with the scheduler that a file of it gives, in float64."""
    learned = scheduler.config.get("variance_type") == "learned_range"
    folder = folders[6 if learned else 3]
    scheduler.save_pretrained(folder / "scheduler")
    backend = load(folder)
    return dataclasses.replace(backend, unet=backend.unet.double(), dtype=torch.float64)


def between(backend, scheduler, steps=5):
    """The difference between this library's images and diffusers', in units of the image."""
    ours = Sampler(backend, num_inference_steps=steps).sample(seeds=SEEDS).x
    theirs = by_hand(scheduler, backend.unet, steps)
    assert theirs[0].sub(theirs[1]).abs().mean() > 0.05  # the seeds matter
    return (ours - theirs).abs().max().item() / max(1.0, theirs.std().item())
