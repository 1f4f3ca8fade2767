"""Speed on latent models, beside their pipelines of diffusers: a part of ``make bench``.

Seconds are the processor's, as in bench_deepfloyd, of random networks: the tiny ones of the tests,
and middle-sized ones in their pipelines. Prompts are embedded beforehand on both sides. Each line
has the median of the ratios of pairs, and their quartiles.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from bench_deepfloyd import Clock, generators, pairs
from torch import Tensor, nn

from composer import Sampler
from composer_plugins import CFG, LatentAnagram

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import tiny_latent  # the networks of the tests

PROMPT, OTHER, SCALE, STEPS = "a photo of a cat", "a photo of a dog", 4.0, 6
GUIDED = ("sd", "sdxl", "sd3")
SIZES = (16, 64)
MIDDLE: dict[str, dict[str, Any]] = {
    "sd": {"block_out_channels": (128, 256)},
    "sdxl": {"block_out_channels": (128, 256)},
    "sd3": {
        "num_layers": 6,
        "attention_head_dim": 32,
        "num_attention_heads": 6,
        "caption_projection_dim": 192,
        "patch_size": 2,
    },
    "flux-dev": {"num_layers": 4, "num_single_layers": 8, "num_attention_heads": 12},
}
"""Settings that make the tiny denoisers middle-sized."""


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

    def widened(self) -> Bench:
        """The same with a middle-sized denoiser, one for both sides."""
        small = self.backend.network
        torch.manual_seed(0)
        network = type(small).from_config({**small.config, **MIDDLE[self.name]}).eval()
        if self.backend.family.flow:  # a transformer, of which some weights begin at 0
            tiny_latent.enliven(network)
        pipeline = copy.copy(self.pipeline)
        setattr(pipeline, self.backend.family.part, network)
        return Bench(self.name, pipeline, replace(self.backend, network=network), self.guided)

    @property
    def title(self) -> str:
        size = sum(p.numel() for p in self.backend.network.parameters()) / 1e6
        return f"{self.name:8} {self.backend.size[0]:2} pixels, {size:4.1f} M"

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
    print(
        f"    {bench.title}   {middle:.3f}   (quartiles {low:.3f} to {high:.3f}; at most 1; "
        f"largest difference {gap:.1e})",
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
    print(f"    {bench.title}   ms: {shown}", flush=True)


def forwards(job: Callable[[], Any], network: nn.Module) -> int:
    """How often a network is called in a job."""
    calls: list[None] = []
    hook = network.register_forward_hook(lambda *_: calls.append(None))
    job()
    hook.remove()
    return len(calls)


def anagram(bench: Bench, repeats: int) -> None:
    """What a step of a two-view LatentAnagram with guidance costs."""
    views = LatentAnagram({"identity": PROMPT, "rotate_180": OTHER})
    sampler = bench.sampler.replace(plugins=[views, CFG(SCALE)])
    stats, vae = sampler.sample().stats, bench.backend.autoencoder.vae
    steps = stats.requested // 4  # two views, each with its prompt and without
    encoded, decoded = (
        (forwards(sampler.sample, part) - ends) / steps
        for part, ends in ((vae.encoder, 0), (vae.decoder, 1))
    )
    runs = [Clock.of(lambda: sampler.sample().x, bench.backend.network) for _ in range(repeats)]
    total, inside = (
        1000 * statistics.median(getattr(run, what) for run in runs) / steps
        for what in ("total", "forwards")
    )
    print(
        f"    {bench.title}   {stats.rows / steps:g} rows, {stats.calls / steps:g} call, "
        f"{decoded:g} decoded, {encoded:g} encoded; {total:.1f} ms, {inside:.1f} of them in the "
        "denoiser",
        flush=True,
    )


def latent(repeats: int) -> None:
    """Print all of it."""
    print(f"(g) Latent models over their pipelines, {STEPS} steps, float32, one thread")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        names = (*GUIDED, "flux-dev")
        benches = [Bench.of(name, Path(place), size) for name in names for size in SIZES]
        middle = [bench.widened() for bench in benches if bench.backend.size[0] == SIZES[-1]]
        for bench in benches:
            compare(bench, 2 * repeats)
        for bench in middle:
            compare(bench, repeats)
        print("    Encoding, decoding and one row of the denoiser")
        for bench in [*benches, *middle]:
            coding(bench, repeats)
        print("    A step of a two-view LatentAnagram with CFG")
        for bench in middle:
            anagram(bench, max(1, repeats // 3))
    torch.set_num_threads(threads)
