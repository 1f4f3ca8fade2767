"""Speed on latent models, beside their pipelines of diffusers: a part of ``make bench``.

Seconds are the processor's, as in bench_deepfloyd, of random networks from the tests. Prompts are
embedded beforehand on both sides. Each line has the median of the ratios of pairs, and their
quartiles.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from bench_deepfloyd import Clock, generators, pairs
from torch import Tensor

from composer import Sampler
from composer_plugins import CFG

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import tiny_latent  # the networks of the tests

PROMPT, SCALE, STEPS = "a photo of a cat", 4.0, 6
GUIDED = ("sd", "sdxl", "sd3")
SIZES = (16, 64)


@dataclass(frozen=True, eq=False)
class Bench:
    """One pipeline, and the backend of its folder.

    Args:
        name: of the family in tiny_latent.
        pipeline: of diffusers.
        backend: of its folder.
        guided: whether both sides guide; a distilled model does by itself.
    """

    name: str
    pipeline: Any
    backend: Any
    guided: bool

    @classmethod
    def of(cls, name: str, folder: Path, size: int) -> Bench:
        place = folder / f"{name}-{size}"
        pipeline, saved = tiny_latent.build(name, place)
        backend = tiny_latent.load(saved, place / "x.safetensors", size=size)
        bench = cls(name, pipeline, backend, name in GUIDED)
        bench.ours()  # which embeds the prompt
        return bench

    @cached_property
    def sampler(self) -> Sampler:
        return Sampler(self.backend, [CFG(SCALE)] if self.guided else [], None, STEPS)

    def ours(self) -> Tensor:
        return self.sampler.sample(PROMPT).x

    def theirs(self) -> Tensor:
        height, width = self.backend.size
        images: Tensor = self.pipeline(
            **self._embeds(PROMPT, ""),
            **(self._embeds("", "negative_") if self.guided else {}),
            num_inference_steps=STEPS,
            guidance_scale=SCALE if self.guided else self.backend.guidance,
            height=height,
            width=width,
            generator=generators([0]),
            output_type="pt",
        ).images
        return images * 2 - 1

    def _embeds(self, prompt: str, kind: str) -> dict[str, Tensor]:
        tokens, pooled = self.backend._text(self.backend.encode(prompt), torch.float32)
        given = {f"{kind}prompt_embeds": tokens[None]}
        return given | ({f"{kind}pooled_prompt_embeds": pooled[None]} if len(pooled) else {})


def compare(bench: Bench, repeats: int) -> None:
    gap = (bench.ours().clamp(-1, 1) - bench.theirs()).abs().max()
    found = pairs(bench.ours, bench.theirs, bench.backend.network, repeats)
    ratios = [one.total / other.total for one, other in found]
    low, middle, high = statistics.quantiles(ratios, n=4)
    size = bench.backend.size[0]
    print(
        f"    {bench.name:10} {size:3} pixels   {middle:.3f}   (quartiles {low:.3f} to {high:.3f}; "
        f"at most 1; largest difference {gap:.1e})",
        flush=True,
    )


def coding(bench: Bench, repeats: int) -> None:
    """Milliseconds of the autoencoder, and of one row of the denoiser, for one image."""
    backend = bench.backend
    image = torch.zeros(1, *backend.image_shape)
    latents = backend.encode_image(image)
    row = Sampler(backend)
    time = backend.schedule.time_at(0.5)
    jobs: dict[str, Callable[[], Any]] = {
        "encode": lambda: backend.encode_image(image),
        "decode": lambda: backend.decode(latents),
        "a row": lambda: row.denoise(latents, time, PROMPT).prediction,
    }
    spent = {
        name: statistics.median(Clock.of(job, backend.network).total for _ in range(repeats))
        for name, job in jobs.items()
    }
    shown = ", ".join(f"{name} {1000 * seconds:.1f}" for name, seconds in spent.items())
    print(f"    {bench.name:10} {backend.size[0]:3} pixels   ms: {shown}", flush=True)


def latent(repeats: int) -> None:
    """Print all of it."""
    print(f"(g) Latent models over their pipelines, {STEPS} steps, float32, one thread")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        names = (*GUIDED, "flux-dev")
        benches = [Bench.of(name, Path(place), size) for name in names for size in SIZES]
        for bench in benches:
            compare(bench, 2 * repeats)
        for bench in benches:
            coding(bench, repeats)
    torch.set_num_threads(threads)
