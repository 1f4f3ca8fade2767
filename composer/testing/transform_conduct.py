"""Checks of a view's conduct: arguments, dtypes, sizes, state, recipes and products."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from typing import Any
from unittest import SkipTest

import torch

from composer._probes import check_view
from composer.recipes import decode, encode
from composer.registry import installed
from composer.testing.checks import TOLERANCE, Contract, first, in_words, off, rounding, writes_into
from composer.testing.global_state import global_trouble
from composer.testing.identity import IdentityBackend
from composer.testing.probe import DTYPES, Map, Probe, Shape, at, layouts, maps, noise

ASKED = (*((n, n) for n in (1, 2, 3, 7, 16, 28, 64, 256, 1024)), (28, 30), (30, 28), (64, 256))


def accepted_sizes(probe: Probe) -> str:
    """accepts() returns a bool for every size, and errors for other sizes contain ``sizes``."""
    view = probe.transform
    answers = {size: view.accepts(*size) for size in ASKED}
    vague = [size for size, answer in answers.items() if not isinstance(answer, bool)]
    if vague:
        return f"accepts{vague[0]} is {answers[vague[0]]!r}, not True or False"
    if not isinstance(view.sizes, str) or not view.sizes:
        return f"sizes is {view.sizes!r}"
    refused = [size for size, answer in answers.items() if not answer]
    if not refused:
        return ""
    if view.sizes == "any size":
        return f"sizes is 'any size', but accepts{refused[0]} is False"
    try:
        check_view(view, IdentityBackend((3, *refused[0])), "Anagram")
    except ValueError as error:
        return "" if view.sizes in str(error) else f"the error does not contain sizes: {error}"
    return f"a Sampler raises no error at size {refused[0]}"


def no_mutation(probe: Probe) -> str:
    """No map writes into its argument."""

    def trouble(size: Shape, what: str, view: Map) -> str:
        written = writes_into(view, noise(size, 2))
        return f"{what} writes into its argument{at(size)}" if written else ""

    return first(trouble(s, *pair) for s in probe.shapes for pair in maps(probe.transform))


def dtype_and_device(probe: Probe) -> str:
    """The maps keep float16, bfloat16, float32 and float64, on every available device.

    Rounding: within 16 eps max|f(x)| of float64's answer.
    """

    def trouble(size: Shape, what: str, view: Map, dtype: torch.dtype, device: str) -> str:
        x = noise(size, 2, dtype=dtype).to(device)
        seen = view(x)
        if (seen.dtype, seen.device) != (x.dtype, x.device):
            return f"{what} of {x.dtype} on {x.device} is {seen.dtype} on {seen.device}"
        exact = view(x.cpu().double())
        within = rounding(exact.to(dtype))
        return off(seen.cpu(), exact, within, f"{what} in {dtype}{at(size)}")

    return first(
        trouble(size, *pair, dtype, device)
        for size in probe.middling
        for pair in maps(probe.transform)
        for dtype in DTYPES
        for device in _devices()
    )


def non_contiguous(probe: Probe) -> str:
    """The view does not depend on the memory layout: strided, transposed, expanded."""

    def troubles() -> Iterator[str]:
        for size in probe.middling:
            for what, view in maps(probe.transform):
                for layout, x in layouts(size):
                    seen = view(x)
                    expected = view(x.clone(memory_format=torch.contiguous_format))
                    yield off(seen, expected, TOLERANCE, f"{what} of a {layout} x{at(size)}")

    return first(troubles())


def deterministic(probe: Probe) -> str:
    """A second call, and an equal object, give bitwise the same view."""

    def trouble(size: Shape, what: str, view: Map, other: Map) -> str:
        x = noise(size, 2)
        once = view(x.clone())
        if not torch.equal(view(x.clone()), once):
            return f"{what}{at(size)} differs at the second call"
        same = torch.equal(other(x.clone()), once)
        return "" if same else f"{what}{at(size)} differs with an equal object"

    pairs = zip(maps(probe.transform), maps(copy.deepcopy(probe.transform)), strict=True)
    return first(
        trouble(size, what, view, other)
        for (what, view), (_, other) in pairs
        for size in (*probe.shapes, *probe.fresh[:1])
    )


def global_state(probe: Probe) -> str:
    """The maps do not use global generators of torch, numpy and random, nor torch's settings.

    They do not draw from, seed or read the generators, nor change torch's dtype and threads.
    """
    sizes = probe.fresh[1:2] or probe.shapes[:1]
    return global_trouble(
        lambda: [view(noise(size)) for size in sizes for _, view in maps(probe.transform)]
    )


def equal_copies(probe: Probe) -> str:
    """The view is hashable, and equal to a copy and to one with the same fields, for caches."""
    view = probe.transform
    hash(view)  # a TypeError fails the check
    copies = {"a deep copy": copy.deepcopy(view)}
    if dataclasses.is_dataclass(view):
        copies["a view with the same fields"] = dataclasses.replace(view)
    x = noise(probe.shapes[0])
    for what, other in copies.items():
        if view != other or hash(view) != hash(other):
            return f"{what} is not equal to it, or has another hash"
        if not torch.equal(other(x.clone()), view(x.clone())):
            return f"{what} is equal to it and maps x to another image"
    return ""


def recipe(probe: Probe) -> str:
    """A view written into a recipe and read again is an equal view with the same map."""
    view, registry = probe.transform, installed()
    if registry.name_of("transform", type(view)) is None:
        raise SkipTest(f"{type(view).__name__} is not registered, and recipes need a name.")
    written = encode(view, registry)
    text = json.dumps(written, allow_nan=False)
    if "unregistered" in text:
        return f"a recipe cannot hold its parameters: {text:.200}"
    again: Any = decode(json.loads(text), registry)
    x = noise(probe.shapes[0])
    if again != view or encode(again, registry) != written:
        return f"{in_words(view)} comes back as {in_words(again)}"
    return "" if torch.equal(again(x.clone()), view(x.clone())) else "it comes back another view"


def algebra(probe: Probe) -> str:
    """inverse_transform is Q^-1 and @ is the product, as maps."""
    view, back = probe.transform, probe.transform.inverse_transform
    twice, round_trip = view @ view, view @ back
    same: dict[str, tuple[Map, Map]] = {
        "inverse_transform(x)": (back, view.inverse),
        "inverse_transform.inverse(x)": (back.inverse, view),
        "(f @ f)(x)": (twice, lambda x: view(view(x))),
        "(f @ f).inverse(x)": (twice.inverse, lambda x: view.inverse(view.inverse(x))),
        "(f @ inverse_transform)(x)": (round_trip, lambda x: x),
    }

    def troubles() -> Iterator[str]:
        if back.inverse_transform != view:
            yield "inverse_transform.inverse_transform differs from it"
        for size in probe.middling:
            x = noise(size, 2)
            for what, (made, meant) in same.items():
                yield off(made(x.clone()), meant(x.clone()), TOLERANCE, what + at(size))
            if not all(made.accepts(*size[1:]) for made in (back, twice, round_trip)):
                yield f"inverse_transform or f @ f does not accept the size{at(size)}"

    return first(troubles())


CONDUCT: Contract[Probe] = {
    accepted_sizes: "let accepts(height, width) return True or False, and describe the accepted "
    "sizes in sizes",
    no_mutation: "make a new tensor; clone before writing",
    dtype_and_device: "return x's dtype on x's device; compute in float32 or wider, and make "
    "tensors of your own with .to(x)",
    non_contiguous: "use reshape or flatten instead of view, and do not read strides",
    deterministic: "let the map depend on the parameters alone, and keep no state between calls",
    global_state: "draw from torch.Generator().manual_seed(seed) with a parameter seed, and change "
    "no global settings",
    equal_copies: "make it a @dataclass(frozen=True) with numbers, strings or tuples as fields",
    recipe: "let the parameters be numbers, strings or tuples, each an attribute of its own name",
    algebra: "leave inverse_transform and @ to the base class, or make them agree with the maps",
}
"""The laws of a view's conduct, and what to do where one is broken."""


def _devices() -> list[str]:
    found = torch.accelerator.current_accelerator(check_available=True)
    return ["cpu"] if found is None else ["cpu", found.type]
