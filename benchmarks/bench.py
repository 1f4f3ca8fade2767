"""Speed, memory and quality, printed as tables: ``make bench``.

Every ratio compares things measured side by side in this run: repeats are interleaved and the
median is taken, so a busy machine slows both sides alike.
"""

from __future__ import annotations

import argparse
import copy
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from allocator import keep_freed_memory
from bench_imports import imports
from torch import Tensor, nn

import composer
from composer import Sampler
from composer.model import evaluated
from composer.solvers import DDPM
from composer_lab.evaluation.anagrams import anagrams, conditional_accuracy
from composer_plugins import CFG, Anagram, Hybrid, Spaced, TripleHybrid
from composer_plugins.backends.mnist import MnistUNet
from composer_plugins.backends.mnist.judge import load_judge
from composer_plugins.backends.mnist.readers import load_judges

STEPS, BATCH, DIGIT = 20, 16, 3
CONDITIONS = (DIGIT, composer.UNCONDITIONAL)
TWO_VIEWS = Anagram({"identity": 6, "rotate_180": 9})
STACKS = {
    "CFG": ([CFG(4.0)], 2),
    "two-prompt hybrid + CFG": ([Hybrid(3, 7), CFG(4.0)], 3),
    "triple hybrid + CFG": ([TripleHybrid(3, 7, 1), CFG(4.0)], 4),
    "two-view anagram + CFG": ([TWO_VIEWS, CFG(4.0)], 4),
}


def medians(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each job, the jobs taking turns."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()
    for _ in range(repeats):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


@torch.no_grad()
def naive(unet: MnistUNet, scale: float = 4.0) -> Tensor:
    """The usual loop: two forwards a step, batch norm unfolded, nothing shared."""
    x = torch.cat([torch.randn(1, 1, 28, 28, generator=g) for g in generators(BATCH)])
    x = x.to(unet.out.weight.dtype)
    cond, uncond = torch.full((BATCH,), DIGIT), torch.full((BATCH,), 10)
    for step in range(STEPS):
        t = torch.full((BATCH,), step / STEPS, dtype=x.dtype)
        c, u = unet(x, t, cond), unet(x, t, uncond)
        x = x + (u + scale * (c - u)) / STEPS
    return x


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def rows_and_calls() -> None:
    print("(a) rows and calls a step")
    backend = composer.load_backend("mnist")
    for name, (plugins, expected) in STACKS.items():
        condition = None if len(plugins) > 1 else DIGIT
        stats = Sampler(backend, plugins, num_inference_steps=2).sample(condition).stats
        rows, calls = stats.evaluated / 2, stats.calls / 2
        print(f"    {name:26} {rows:g} rows, {calls:g} call   (must be {expected} and 1)")


def largest(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()


def speed(repeats: int) -> None:
    backend = composer.load_backend("mnist")
    unshared = composer.load_backend("mnist", share=False)
    unet = unshared.unet
    guided = Sampler(backend, [CFG(4.0)], num_inference_steps=STEPS)
    plain = Sampler(backend, num_inference_steps=STEPS)
    seeds = range(BATCH)
    overheads = []

    def run_guided() -> Tensor:
        result = guided.sample(DIGIT, seeds)
        overheads.append(result.stats.seconds / result.stats.model_seconds)
        return result.x

    took = medians(
        {
            "guided": run_guided,
            "plain": lambda: plain.sample(composer.UNCONDITIONAL, seeds),
            "naive": lambda: naive(unet),
        },
        repeats,
    )
    asked = [
        [step.request(step.estimate.x, step.estimate.t).replace(condition=c) for c in CONDITIONS]
        for step in guided.stream(DIGIT, seeds)
    ]
    gaps = [
        largest(ours.prediction, theirs.prediction) / theirs.prediction.abs().max().item()
        for requests in asked
        for ours, theirs in zip(
            evaluated(backend, requests), evaluated(unshared, requests), strict=True
        )
    ]
    exact = naive(nn.Module.double(copy.deepcopy(unet)))
    ours, usual = run_guided(), naive(unet)
    threads = torch.get_num_threads()
    print(f"    {STEPS} steps, batch {BATCH}, float32, {threads} threads, medians of {repeats}")
    rows = [
        ("(b) total over model time, CFG", statistics.median(overheads), "at most 1.05"),
        ("(c) CFG over unconditional sampling", took["guided"] / took["plain"], "at most 1.60"),
        ("    prediction from unshared, relative", max(gaps), "at most 1e-5"),
        (
            "    a sample from the naive loop's",
            largest(ours, usual),
            "rounding, no bar",
        ),
        ("    ours from float64", largest(ours, exact), "no bar"),
        ("    the naive loop's from float64", largest(usual, exact), "no bar"),
        ("(d) the naive loop over ours", took["naive"] / took["guided"], "at least 1.40"),
    ]
    for name, value, bar in rows:
        print(f"{name:38} {value:.3g}   ({bar})")
    print("    seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in took.items()))


MEMORY = {
    "8 seeds, no bound": (8, None),
    "64 seeds, bound 32": (64, 32),
    "64 seeds, no bound": (64, None),
}


def memory() -> None:
    print("(e) memory of a 4-row stack above that of one seed, peak resident MB, fresh processes")
    base = peak(1, 4)
    for name, (count, bound) in MEMORY.items():
        print(f"    {name:20} {peak(count, bound) - base:7.0f}")


def peak(count: int, bound: int | None) -> float:
    command = [sys.executable, __file__, "--peak", str(count), str(bound or 0)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(count: int, bound: int) -> None:
    sampler = Sampler(composer.load_backend("mnist"), [TWO_VIEWS, CFG(4.0)], None, 3, bound or None)
    sampler.sample(seeds=range(count))
    # Not getrusage's: a process inherits the peak of the one that started it.
    (peak_kb,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(int(peak_kb) / 1024)


def build() -> None:
    from build_times import build_times

    build_times()


def prx(repeats: int) -> None:
    from bench_prx import prx

    prx(repeats)


def deepfloyd(repeats: int) -> None:
    # Imported when asked for: it brings libraries in, whose memory is not what (e) measures.
    from bench_deepfloyd import deepfloyd

    deepfloyd(repeats)


def latent(repeats: int) -> None:
    from bench_latent import latent

    latent(repeats)


def steps(repeats: int) -> None:
    from bench_steps import steps

    steps(repeats)


def training(repeats: int) -> None:
    from bench_training import training

    training(repeats)


def quality(per_digit: int, per_pair: int) -> None:
    judge = load_judge()
    print(f"Conditional accuracy, {10 * per_digit} samples each, read by the judge")
    best = Spaced(DDPM())  # renews noise; long steps where the digit is decided, in noise
    for name, steps in (("mnist", 10), ("mnist-ddpm", 20)):
        backend = composer.load_backend(name)
        for scale, solver in ((1.0, None), (1.0, best), (2.0, None), (3.0, None), (5.0, None)):
            seeds = range(per_digit)
            share = conditional_accuracy(backend, judge, scale, steps, seeds, solver)
            bar = 0.985 if scale == 1 else 0.995
            called = "default solver" if solver is None else "Spaced(DDPM())"
            print(
                f"    {name:11} scale {scale:g}, {steps} steps, {called}   {share:.4f}   "
                f"(at least {bar})",
                flush=True,
            )
    print(f"Rotation anagrams read correctly both ways, {per_pair} seeds, the default stack")
    backend = composer.load_backend("mnist")
    for one, other in ((6, 9), (4, 7), (0, 7)):
        views = {"identity": one, "rotate_180": other}
        found = anagrams(backend, load_judges(), views, range(per_pair))
        share = found.correct.float().mean()
        print(f"    {one}/{other}   {share:.3f}   (at least .95), {found.rows:g} rows a sample")


PARTS = (
    *("imports", "rows", "steps", "speed", "memory", "build"),
    *("deepfloyd", "prx", "latent", "training", "quality"),
)
BESIDE_PIPELINES = ("deepfloyd", "prx", "latent")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--per-digit", type=int, default=40)
    parser.add_argument("--per-pair", type=int, default=100)
    parser.add_argument(
        "--only",
        choices=PARTS,
    )
    parser.add_argument("--peak", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(*arguments.peak)
        return
    jobs = {
        "imports": lambda: imports(arguments.repeats),
        "rows": rows_and_calls,
        "steps": lambda: steps(arguments.repeats),
        "speed": lambda: speed(arguments.repeats),
        "memory": memory,
        "build": build,
        "deepfloyd": lambda: deepfloyd(arguments.repeats),
        "prx": lambda: prx(arguments.repeats),
        "latent": lambda: latent(arguments.repeats),
        "training": lambda: training(arguments.repeats),
        "quality": lambda: quality(arguments.per_digit, arguments.per_pair),
    }
    if arguments.only not in (None, *jobs):
        parser.error(f"--only must be one of {', '.join(jobs)}, got {arguments.only}")
    chosen = [name for name in jobs if arguments.only in (None, name)]
    for name in chosen:
        if name in BESIDE_PIPELINES:
            keep_freed_memory()
        jobs[name]()


if __name__ == "__main__":
    main()
