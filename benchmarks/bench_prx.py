"""Speed on PRXPixel, beside diffusers' PRXPixelPipeline: a part of ``make bench``.

Seconds are the processor's, as in bench_deepfloyd. Both sides start from embeddings of the prompt.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from allocator import keep_freed_memory
from bench_deepfloyd import Clock, generators, pairs
from diffusers import PRXPixelPipeline, PRXTransformer2DModel
from torch import Tensor

from composer import Sampler
from composer_plugins import CFG
from composer_plugins.backends.pixel_flow import PixelFlowBackend, load_prx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import tiny_prx  # the networks of the tests

PROMPT, SCALE, STEPS = "a photo of a cat", 4.0, 28
PROCESSES = 5
TINY_SIZES = (16, 64, 256)
"""Of 16 pixels an image is one patch, so Python is most of the time on both sides."""


def medium_transformer() -> Any:
    """Random weights: patches of 16 pixels, four blocks of width 256."""
    return PRXTransformer2DModel(
        patch_size=16,
        in_channels=3,
        context_in_dim=tiny_prx.WIDTH,
        hidden_size=256,
        num_heads=4,
        depth=4,
        axes_dim=[32, 32],
        bottleneck_size=128,
        resolution_embeds=True,
    ).eval()


def jobs(
    backend: PixelFlowBackend, pipeline: Any, steps: int
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """One guided image, by both libraries."""
    sampler = Sampler(backend, [CFG(SCALE)], num_inference_steps=steps)
    (text, mask), (negative, unmask) = (
        (embedding, torch.ones(1, embedding.shape[1], dtype=torch.bool))
        for embedding in (backend.embeddings[backend.encode(p)] for p in (PROMPT, ""))
    )
    longest = text.shape[1]  # the pipeline pads all alike
    negative = torch.nn.functional.pad(negative, (0, 0, 0, longest - negative.shape[1]))
    unmask = torch.nn.functional.pad(unmask, (0, longest - unmask.shape[1]))

    def theirs() -> Tensor:
        images: Tensor = pipeline(
            prompt_embeds=text,
            negative_prompt_embeds=negative,
            prompt_attention_mask=mask,
            negative_prompt_attention_mask=unmask,
            generator=generators([0]),
            num_inference_steps=steps,
            guidance_scale=SCALE,
            height=backend.shape[1],
            width=backend.shape[2],
            use_resolution_binning=False,
            output_type="pt",
        ).images
        return images

    return lambda: sampler.sample(PROMPT, seeds=[0]).x, theirs


class Found(NamedTuple):
    """What one process measured on one network."""

    name: str
    pairs: list[tuple[Clock, Clock]]
    gap: float


def measured(repeats: int) -> list[Found]:
    """Pairs of ours and the pipeline's, of tiny networks and of a middle-sized one."""
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as place:
        folder = tiny_prx.build(Path(place) / "PRX")
        text = Path(place) / "text.safetensors"
        for name, network, size in (
            *(("tiny", None, size) for size in TINY_SIZES),
            ("middle", medium_transformer(), 256),
        ):
            pipeline = PRXPixelPipeline.from_pretrained(folder)
            backend = load_prx(folder, size=size, embeddings=text)
            backend = replace(backend, network=network or backend.network)
            pipeline.transformer = backend.network  # one for both, whose forwards are timed
            pipeline.set_progress_bar_config(disable=True)
            ours, theirs = jobs(backend, pipeline, STEPS)
            gap = (ours() - theirs()).abs().max().item()
            clocks = pairs(ours, theirs, backend.network, repeats)
            found.append(Found(f"{name}, {size} pixels", clocks, gap))
    return found


def prx(repeats: int) -> None:
    """Ours over the pipeline, measured in several processes one after the other.

    Where the tensors of a process happen to lie decides some hundredths of a ratio, in all of its
    pairs alike. So each process counts once, by the median of its pairs.
    """
    print("\nPRXPixel (processor seconds of one thread)")
    with ProcessPoolExecutor(
        1, get_context("spawn"), keep_freed_memory, max_tasks_per_child=1
    ) as pool:
        runs = pool.map(measured, [max(1, repeats // 3)] * PROCESSES)
        for found in zip(*runs, strict=True):
            report(found)


def report(found: Sequence[Found]) -> None:
    """Print what the processes found on one network."""
    clocks = [pair for one in found for pair in one.pairs]
    ratios = [
        statistics.median(ours.total / theirs.total for ours, theirs in one.pairs) for one in found
    ]
    print(
        f"{f'    {found[0].name}: ours over PRXPixelPipeline':48} "
        f"{statistics.median(ratios):.3f}   (at most 1.00; {len(found)} processes "
        f"{min(ratios):.3f} to {max(ratios):.3f}; images differ by "
        f"{max(one.gap for one in found):.1e})"
    )
    sides = [*zip(*clocks, strict=True)]
    outside, inside = (
        [1000 * statistics.median(getattr(clock, part) for clock in side) / STEPS for side in sides]
        for part in ("outside", "forwards")
    )
    print(
        f"        ms a step beside the network {outside[0]:.2f}, pipeline {outside[1]:.2f}; "
        f"in it {inside[0]:.2f} and {inside[1]:.2f}",
        flush=True,
    )
