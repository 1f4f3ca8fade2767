"""Speed on the UNet of DeepFloyd IF, beside diffusers' IFPipeline: a part of ``make bench``.

Seconds are the processor's, of this process on one thread, so that whatever else the machine does
is left out. Pairs take turns, each in either order, and medians of their ratios are printed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from diffusers import DDPMScheduler, IFPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from composer import Sampler
from composer.authoring import dynamic_threshold
from composer.schedules import DiscreteSchedule
from composer_plugins import CFG, GaussianBlur, Hybrid
from composer_plugins.backends.deepfloyd import DeepFloydBackend, Embeddings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import tiny_if  # the networks of the tests

LOW, HIGH = "a lithograph of a skull", "a lithograph of waterfalls"
PROMPTS = ("", LOW, HIGH)
SCALE, SIGMA = 7.0, 2.0
Job = Callable[[], Tensor]


def medium_unet() -> nn.Module:
    """Laid out as IF-I-M, random weights: 64 pixels, text of width 4096."""
    attending = ("SimpleCrossAttnDownBlock2D",) * 3, ("SimpleCrossAttnUpBlock2D",) * 3
    unet: nn.Module = UNet2DConditionModel(
        sample_size=64,
        in_channels=3,
        out_channels=6,
        layers_per_block=3,
        block_out_channels=(192, 384, 576, 768),
        down_block_types=("ResnetDownsampleBlock2D", *attending[0]),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=(*attending[1], "ResnetUpsampleBlock2D"),
        cross_attention_dim=768,
        encoder_hid_dim=4096,
        attention_head_dim=64,
        addition_embed_type="text",
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
    )
    return unet.eval().requires_grad_(False)


@dataclass(frozen=True, eq=False)
class Bench:
    """One UNet behind both libraries.

    Args:
        name: for the table.
        unet: of IF's first stage.
        steps: of a run.
        text: {prompt: (1, 77, D)}.
        folder: for a file of ``text``.
    """

    name: str
    unet: nn.Module
    steps: int
    text: dict[str, Tensor]
    folder: Path

    @cached_property
    def backend(self) -> DeepFloydBackend:
        file = self.folder / f"{self.name}.safetensors"
        save_file(self.text, file)
        return DeepFloydBackend(
            unet=self.unet,
            embeddings=Embeddings(file, self.text[""].shape[2]),
            schedule=DiscreteSchedule(self.scheduler.alphas_cumprod, "leading"),
            threshold=partial(dynamic_threshold, percentile=0.95, max_value=1.5),
            size=self.unet.config.sample_size,
        )

    @cached_property
    def scheduler(self) -> DDPMScheduler:
        return DDPMScheduler(
            beta_schedule="squaredcos_cap_v2",
            variance_type="learned_range",
            thresholding=True,
            dynamic_thresholding_ratio=0.95,
            sample_max_value=1.5,
        )

    @cached_property
    def pipeline(self) -> IFPipeline:
        pipeline = IFPipeline(
            tokenizer=None,
            text_encoder=None,
            unet=self.unet,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            watermarker=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @cached_property
    def guided(self) -> Sampler:
        return Sampler(self.backend, [CFG(SCALE)], None, self.steps)

    @cached_property
    def hybrid(self) -> Sampler:
        return Sampler(self.backend, [Hybrid(LOW, HIGH, SIGMA), CFG(SCALE)], None, self.steps)

    def ours(self, seeds: Sequence[int]) -> Tensor:
        return self.guided.sample(LOW, seeds).x

    def theirs(self, seeds: Sequence[int]) -> Tensor:
        images: Tensor = self.pipeline(
            prompt_embeds=self.text[LOW].expand(len(seeds), -1, -1),
            negative_prompt_embeds=self.text[""].expand(len(seeds), -1, -1),
            generator=generators(seeds),
            num_inference_steps=self.steps,
            guidance_scale=SCALE,
            output_type="pt",
        ).images
        return images

    @torch.no_grad()
    def usual_hybrid(self, seeds: Sequence[int]) -> Tensor:
        """The usual loop: both prompts guided, four rows of each image in one forward."""
        scheduler, blur, own = self.scheduler, GaussianBlur(SIGMA), generators(seeds)
        scheduler.set_timesteps(self.steps)
        shape = (1, *self.backend.shape)
        x = torch.cat([torch.randn(shape, generator=g) for g in own])
        text = torch.cat([self.text[p].expand(len(seeds), -1, -1) for p in ("", LOW, "", HIGH)])
        for t in scheduler.timesteps:
            out = self.unet(torch.cat([x] * 4), t, encoder_hidden_states=text).sample
            rows = [row.split(3, 1) for row in out.chunk(4)]
            low, high = (u[0] + SCALE * (c[0] - u[0]) for u, c in (rows[:2], rows[2:]))
            variance = (rows[1][1] + rows[3][1]) / 2
            noise = torch.cat([blur(low) + high - blur(high), variance], 1)
            x = scheduler.step(noise, t, x, generator=own).prev_sample
        return x


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@dataclass(frozen=True)
class Clock:
    """Processor seconds of a job, and of the forwards in it."""

    total: float
    forwards: float

    @classmethod
    def of(cls, job: Job, unet: nn.Module) -> Clock:
        spent: list[float] = []
        hooks = [
            unet.register_forward_pre_hook(lambda *_: spent.append(-time.process_time())),
            unet.register_forward_hook(lambda *_: spent.append(spent.pop() + time.process_time())),
        ]
        began = time.process_time()
        job()
        total = time.process_time() - began
        for hook in hooks:
            hook.remove()
        return cls(total, sum(spent))

    @property
    def outside(self) -> float:
        return self.total - self.forwards


def pairs(one: Job, other: Job, unet: nn.Module, repeats: int) -> list[tuple[Clock, Clock]]:
    """Both jobs in turn, either one first in turn; the first pair warms up and is dropped."""
    found = []
    for turn in range(repeats + 1):
        jobs = (one, other) if turn % 2 else (other, one)
        first, second = (Clock.of(job, unet) for job in jobs)
        found.append((first, second) if turn % 2 else (second, first))
    return found[1:]


def line(name: str, found: list[tuple[Clock, Clock]], bar: str) -> None:
    ratio = statistics.median(one.total / other.total for one, other in found)
    ours, theirs = (statistics.median(c.total for c in side) for side in zip(*found, strict=True))
    print(f"{name:38} {ratio:.3f}   ({bar}; {ours:.2f} and {theirs:.2f} s)", flush=True)


def compare(bench: Bench, images: int, repeats: int) -> None:
    """Guided sampling, and a hybrid of ``images`` at once."""
    size = sum(p.numel() for p in bench.unet.parameters()) / 1e6
    print(f"    {bench.name}, {size:.1f} M parameters, {bench.steps} steps, {repeats} pairs")
    found = pairs(lambda: bench.ours([0]), lambda: bench.theirs([0]), bench.unet, repeats)
    line("    ours over IFPipeline", found, "at most 1")
    ours, theirs = (
        (
            statistics.median(c.total / c.forwards for c in side),
            1000 * statistics.median(c.outside for c in side) / bench.steps,
        )
        for side in zip(*found, strict=True)
    )
    print(
        f"{'    ours over its forwards':38} {ours[0]:.4f}   (at most 1.02; theirs {theirs[0]:.4f})"
    )
    print(f"{'    outside forwards, ms a step':38} {ours[1]:.2f}   (theirs {theirs[1]:.2f})")
    seeds = range(images)
    found = pairs(
        lambda: bench.hybrid.sample(seeds=seeds).x,
        lambda: bench.usual_hybrid(seeds),
        bench.unet,
        repeats,
    )
    line(f"    hybrid over the 4-row loop, batch {images}", found, "at most .80")


def differences(bench: Bench) -> None:
    gaps = (
        ("guided", bench.ours([0]) - bench.theirs([0])),
        ("hybrid", bench.hybrid.sample(seeds=[0]).x - bench.usual_hybrid([0])),
    )
    print("    largest differences: " + ", ".join(f"{n} {g.abs().max():.1e}" for n, g in gaps))


def together(bench: Bench, repeats: int) -> None:
    found = pairs(
        lambda: bench.ours(range(8)),
        lambda: torch.cat([bench.ours([seed]) for seed in range(8)]),
        bench.unet,
        repeats,
    )
    line("    8 seeds at once over 8 runs", found, "no bar")


def deepfloyd(repeats: int) -> None:
    """Print all of it."""
    print("(f) DeepFloyd IF's UNet, float32, one thread, processor time")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:

        def bench(name: str, unet: nn.Module, steps: int) -> Bench:
            width = unet.config.encoder_hid_dim
            text = {prompt: torch.randn(1, 77, width) for prompt in PROMPTS}
            return Bench(name, unet, steps, text, Path(place))

        tiny = bench("tiny, 16 pixels", tiny_if.make_unet(1), 10)
        compare(tiny, 8, 6 * repeats)  # short forwards scatter by a twentieth
        differences(tiny)
        together(tiny, repeats)
        compare(bench("tiny, 64 pixels", tiny_if.make_unet(1, 64), 10), 1, 2 * repeats)
        compare(bench("like IF-I-M", medium_unet(), 2), 1, max(1, repeats // 3))
    torch.set_num_threads(threads)
