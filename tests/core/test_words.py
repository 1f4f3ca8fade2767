"""Objects in a few words: always one line, and never the values of a tensor or a network."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from composer import Request, Sampler
from composer.predictions import V
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.words import short, short_repr
from composer_plugins import CFG, Anagram, Hybrid, SDEdit


@dataclasses.dataclass
class Plain:
    name: str
    scale: float = 2.0
    image: object = None
    pair: tuple = (0.0, 1.0)
    hidden: object = dataclasses.field(default=None, repr=False)


class Wide:
    def __repr__(self):
        return "x\n" * 1000


@dataclasses.dataclass(repr=False)
class Named:
    net: object

    __repr__ = short_repr


WORDS = [
    (torch.zeros(2, 1, 28, 28), "Tensor[2, 1, 28, 28]"),
    (nn.Parameter(torch.zeros(3)), "Parameter[3]"),
    (np.zeros((4, 5)), "array[4, 5]"),
    (nn.Sequential(nn.Linear(2, 2)), "Sequential"),
    (1 / 3, "0.3333"),
    (2.5, "2.5"),
    (7, "7"),
    ("a cat", "'a cat'"),
    ([1, 2], "[1, 2]"),
    ((1,), "(1,)"),
    ((), "()"),
    (range(8), "range(0, 8)"),
    (list(range(9)), "[0, 1, 2, 3, 4, 5, ...]"),
    ({"a": torch.zeros(2)}, "{'a': Tensor[2]}"),
    (Plain("x"), "Plain(name='x')"),
    (
        Plain("x", 3.0, torch.zeros(1, 2), [], 5),
        "Plain(name='x', scale=3.0, image=Tensor[1, 2], pair=[])",
    ),
    (Plain("x", image=Plain("y")), "Plain(name='x', image=Plain(name='y'))"),
    (Plain("x", pair=(0.0, 1.0 + 0)), "Plain(name='x')"),
    (Named(nn.Linear(2, 2)), "Named(net=Linear)"),
    (object(), "<object object>"),
    (Wide(), "x " * 38 + "x..."),
    (V, "Prediction(name='v')"),
    (DiscreteSchedule.linear(50), "DiscreteSchedule(50 times, spacing='trailing')"),
    (CFG(3.0), "CFG(scale=3.0)"),
    (SDEdit(torch.zeros(1, 8, 8), 0.5), "SDEdit(image=Tensor[1, 8, 8], strength=0.5)"),
]


@pytest.mark.parametrize(("value", "words"), WORDS, ids=[words for _, words in WORDS])
def test_the_words_for_a_value(value, words):
    assert short(value) == words


VALUES = st.recursive(
    st.integers() | st.floats() | st.text() | st.none() | st.builds(Wide),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=30,
)


@given(VALUES)
def test_one_line_whatever_it_is(value):
    assert len(short(value).splitlines()) == 1


def test_what_the_library_hands_out_is_a_line():
    x = torch.zeros(2, 1, 8, 8)
    request = Request(x, 0.5, 3, schedule=FlowSchedule())
    assert (
        repr(request)
        == "Request(x=Tensor[2, 1, 8, 8], t=0.5, condition=3, schedule=FlowSchedule())"
    )
    views = Anagram({"identity": Hybrid(0, 1), "flip": 2})
    sampler = Sampler(mixture(), [views, CFG(2.0)], num_inference_steps=3)
    assert repr(sampler.denoise(x, 0.5)).startswith("Estimate(prediction=Tensor[2, 1, 8, 8], var")
    assert repr(sampler.denoise(x, torch.tensor([0.5, 0.6]))).startswith("Denoised(prediction=Ten")
    words = repr(sampler)
    assert words.startswith("Sampler(GaussianMixtureBackend(means=Tensor[4, 1, 8, 8], stds=[")
    assert words.endswith(
        "[Anagram(views={'identity': Hybrid(low=0, high=1), 'flip': 2}), CFG(scale=2.0)], Euler(), "
        "num_inference_steps=3)"
    )


def test_a_plugin_that_holds_another_twice_has_short_words():
    lengths = []
    for levels in (8, 40):
        plugin = 6
        for _ in range(levels):
            plugin = Anagram({"identity": plugin, "flip": plugin})
        lengths.append((len(repr(plugin)), len(short([plugin]))))
    assert lengths[0] == lengths[1]
    assert max(lengths[0]) < 2000
