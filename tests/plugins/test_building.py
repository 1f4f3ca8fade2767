"""Building a stack tries each view and part once a process: how often, and that it is not again."""

import dataclasses
from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from build_times import NullBackend
from test_resizing_registered import PLUGINS, SOLVERS, Attention
from torch import nn

import composer
from composer import Sampler, Transform, _once
from composer.testing import registered_decompositions
from composer_plugins import (
    CFG,
    DDNM,
    Anagram,
    Bands,
    BlockMean,
    Cascade,
    Components,
    Hybrid,
    Inpaint,
    Masks,
    SDEdit,
    Stage,
    TripleHybrid,
)
from composer_plugins.transforms import DetailNegative, Orthogonal, Permutation

SIZE = 16


@dataclass(frozen=True, eq=False)
class Model(NullBackend):
    """Costs nothing, enlarges, and has a weaker one behind it."""

    size: int = SIZE
    models = ("weak",)
    guidance = 1.0
    differentiable = True
    networks = {"network": nn.ModuleDict({"mid_block": Attention()})}  # noqa: RUF012


@pytest.fixture
def applied(monkeypatch):
    """{shape: how often a view, a part or an operator was applied to such images}, from now on and
    with nothing remembered."""
    counts, depth = Counter(), [0]

    def counting(function):
        def counted(*arguments):
            if not depth[0]:  # what a view asks of others is its own affair
                counts[tuple(arguments[-1].shape[1:])] += 1
            depth[0] += 1
            try:
                return function(*arguments)
            finally:
                depth[0] -= 1

        return counted

    def count(kind, *names):
        for name in names:
            if callable(function := vars(kind).get(name)):
                monkeypatch.setattr(kind, name, counting(function))

    def count_parts(kind):
        parts = kind.parts.fget
        counted = property(lambda self: tuple(counting(part) for part in parts(self)))
        monkeypatch.setattr(kind, "parts", counted)

    kinds = [Transform]
    for kind in kinds:
        kinds += kind.__subclasses__()
    for kind in set(kinds):
        count(kind, "__call__", "inverse", "view_variance", "inverse_variance")
    offers = composer.installed().offers.values()
    for offer in offers:
        if hasattr(offer.factory, "pinv"):
            count(offer.factory, "apply", "pinv")
        elif isinstance(vars(offer.factory).get("parts"), property):
            count_parts(offer.factory)
    monkeypatch.setattr(_once, "_answers", {})
    return counts


def mask(size=SIZE):
    return (torch.arange(size) % 2).float().expand(size, size)


COLOURS = [[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]]
STACKS = {
    **{name: lambda make=make: [make(SIZE)] for name, make in PLUGINS.items()},
    **{
        f"components of {name}": lambda d=decomposition: [Components(d, range(len(d.parts)))]
        for name, decomposition in registered_decompositions().items()
    },
    **{
        f"anagram of {name}": lambda name=name: [Anagram({"identity": 1, name: 2}), CFG(3.0)]
        for name in ("jigsaw", "skew", "negative", "detail_negative", "colour_rotation")
    },
    "four views": lambda: [Anagram(dict.fromkeys(["identity", "flip", "jigsaw", "negative"], 1))],
    "own matrix": lambda: [Anagram({Orthogonal(COLOURS, over="channels"): 1, "flip": 2})],
    "components of masks": lambda: [Components(Masks((mask(), 1 - mask())), (1, 2))],
    "components of functions": lambda: [Components((torch.negative, lambda x: 2 * x), (1, 2))],
    "nested": lambda: [
        Hybrid(Anagram({"identity": 1, "flip": 2}), Anagram({"flip": 3, "jigsaw": 4})),
        CFG(3.0),
    ],
    "everything": lambda: [
        SDEdit(torch.zeros(3, SIZE, SIZE)),
        Inpaint(torch.zeros(3, SIZE, SIZE), mask()),
        Anagram({"identity": TripleHybrid(1, 2, 3), "rotate_180": Components(Bands(), (1, 2))}),
        CFG(4.0),
    ],
}


@pytest.mark.parametrize("name", sorted(STACKS))
def test_a_stack_costs_ten_applications_at_first_and_none_again(name, applied):
    plugins = STACKS[name]()
    Sampler(Model(), plugins, SOLVERS.get(name))
    assert applied.total() <= 10
    applied.clear()
    Sampler(Model(), plugins, SOLVERS.get(name), num_inference_steps=7)
    assert not applied


def test_each_view_is_seen_once_and_back_and_each_part_made_once(applied):
    """So the counts above do count."""
    Sampler(Model(), [Anagram({"identity": 1, "jigsaw": 2})])
    assert applied == {(3, SIZE, SIZE): 4}
    Sampler(Model(), [Components(Bands((1.0, 2.0)), (1, 2, 3))])
    assert applied == {(3, SIZE, SIZE): 7}
    Sampler(Model(), [Hybrid(1, 2), CFG(3.0)])  # known by construction
    assert applied == {(3, SIZE, SIZE): 7}


def test_a_view_is_tried_again_at_another_shape_and_in_another_dtype(applied):
    def build(**model):
        applied.clear()
        Sampler(Model(**model), [Anagram({"flip": 1, DetailNegative(4): 2})])
        return applied.total()

    assert [build(), build(size=32), build(), build(dtype=torch.float64), build(size=32)] == [
        *(4, 4, 0, 4, 0)
    ]


@pytest.mark.parametrize(
    ("make", "again"),
    [
        (lambda: Anagram({"identity": 1, Permutation(range(SIZE**2)): 2}), 0),
        (lambda: Anagram({"identity": 1, Orthogonal(COLOURS, over="channels"): 2}), 2),
        (lambda: Components(Bands([2.0]), (1, 2)), 2),  # a list may change
        (lambda: Components(Bands((2.0,)), (1, 2)), 0),
        (lambda: DDNM(torch.zeros(3, 4, 4), BlockMean(4)), 0),
    ],
)
def test_equal_values_are_one_thing_and_others_are_themselves(make, again, applied):
    Sampler(Model(), [make()])
    applied.clear()
    Sampler(Model(), [make()])
    assert applied.total() == again


# Cascades


def stages():
    return [Stage(Model(16)), Stage(Model(64)), Stage(Model(256), num_inference_steps=2)]


def test_a_cascade_costs_ten_applications_a_stage_and_none_again(applied):
    plugins = [
        Anagram({"identity": 1, "jigsaw": 2}),
        Inpaint(torch.zeros(3, 256, 256), mask(256)),
        CFG(3.0),
    ]
    Cascade(stages(), plugins)
    assert set(applied) == {(3, 16, 16), (3, 64, 64), (3, 256, 256)}
    assert max(applied.values()) <= 10
    applied.clear()
    cascade = Cascade(stages(), plugins)
    for place, size in ((1, 16), (2, 64)):
        cascade._sampler(place, torch.zeros(1, 3, size, size))
    assert not applied


@dataclass(frozen=True, eq=False)
class Sized:
    """Counts how often it is resized, or checked."""

    counts: Counter
    size: int = 0

    def resized(self, height, width):
        self.counts["resized", height] += 1
        return dataclasses.replace(self, size=height)

    @composer.hookimpl
    def check(self, stack):
        self.counts["checked", self.size] += 1


def test_what_does_not_depend_on_the_image_before_is_made_once():
    counts = Counter()
    cascade = Cascade(stages(), [Sized(counts)])
    once = {("resized", size): 1 for size in (16, 64, 256)}
    assert counts == {**once, **{("checked", size): 1 for size in (16, 64, 256)}}
    for seed in (0, 1):
        cascade.sample(1, seeds=[seed])
    assert {what: n for what, n in counts.items() if what[0] == "resized"} == once
