"""The plain last stage of a cascade, and what is refused before any model is asked."""

import pytest
import torch
from cascades import Recorder, agreeing, exact_models
from conftest import mixture

from composer import UNCONDITIONAL, Sampler
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
    SDEdit,
    Stage,
    TripleHybrid,
)
from composer_plugins.transforms import PatchPermute

# A plain last stage


def conditions_heard(plugins, given=None, **options):
    """What the last stage of a cascade is asked, and by what stack."""
    heard = []
    small, large = exact_models()
    last = Stage(large, [Recorder(heard)], None, 1, enlarge=agreeing, plain=True, **options)
    Cascade([Stage(small, num_inference_steps=1), last], plugins).sample(given)
    assert all(size is None for size, _, _ in heard)  # its own plugins are left as they are
    return [asked for _, _, asked in heard]


@pytest.mark.parametrize(
    ("plugins", "asked"),
    [
        ([Hybrid(1, 2)], [2]),
        ([CFG(3.0), TripleHybrid(1, 2, 3)], [3]),
        ([Hybrid(1, Hybrid(2, 3))], [3]),
    ],
)
def test_a_plain_stage_follows_the_finest_condition_alone(plugins, asked):
    assert conditions_heard(plugins) == asked


def test_a_plain_stage_follows_the_call_or_its_own_condition():
    assert conditions_heard([CFG(3.0)], 2) == [2]
    assert conditions_heard([], 2, condition=1) == [1]
    assert conditions_heard([Anagram({"identity": 1, "flip": 2})], condition=3) == [3]
    assert conditions_heard([Hybrid(1, 2)], UNCONDITIONAL) == [UNCONDITIONAL]


@pytest.mark.parametrize(
    "plugin",
    [
        Anagram({"identity": 1, "flip": 2}),
        Hybrid(1, Anagram({"identity": 1, "flip": 2})),
        Components(Bands(), (1, 2)),
    ],
)
def test_where_no_condition_is_the_finest_one_must_be_given(plugin):
    with pytest.raises(ValueError, match=r"stage 2 is plain and \w+ has several .*condition="):
        conditions_heard([plugin])


# Refused


class Unasked:
    """No model, and none that may be asked."""

    def __init__(self, backend):
        self.backend = backend

    def __getattr__(self, name):
        if name == "evaluate":
            return self.fail
        return getattr(self.backend, name)

    def fail(self, requests):
        raise AssertionError("the model was asked")


@pytest.mark.parametrize(
    ("condition", "plugins", "sentence"),
    [
        (3, [], r"stage 2: condition: a condition must be a component from 0 to 1, got 3"),
        (1, [Anagram({"identity": 0, "flip": 1})], r"stage 1: Sampler: condition=1 would replace"),
    ],
)
def test_what_a_later_stage_cannot_make_raises_before_the_first_runs(condition, plugins, sentence):
    first, second = (
        Unasked(mixture(shape=(1, size, size), components=count))
        for size, count in ((8, 4), (16, 2))
    )
    cascade = Cascade([Stage(first), Stage(second, enlarge=agreeing)], plugins)
    with pytest.raises(ValueError, match=sentence):
        cascade.sample(condition)


def plain(backend, **options):
    return Stage(backend, enlarge=agreeing, plain=True, **options)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda s, m: Cascade([]), TypeError, r"stages must be a list of Stage"),
        (lambda s, m: Cascade([Sampler(s)]), TypeError, r"stages must be a list of Stage"),
        (lambda s, m: Cascade([Stage(m), Stage(s)]), ValueError, "got 16x16 before 8x8. List"),
        (lambda s, m: Cascade([Stage(s), Stage(s)]), ValueError, "got 8x8 before 8x8. List"),
        (lambda s, m: Cascade([plain(s), Stage(m)]), ValueError, "only the last stage may be"),
        (
            lambda s, m: Stage(s, condition=1),
            ValueError,
            "condition must be None unless the stage is plain",
        ),
        (
            lambda s, m: Stage(s, enlarge=3),
            TypeError,
            "enlarge must be a function from images to a plugin",
        ),
        (lambda s, m: Stage("mnist"), TypeError, "backend must be a backend object"),
        (lambda s, m: Stage(s, [CFG]), TypeError, "got the class CFG"),
        (lambda s, m: Cascade([Stage(s)], [Inpaint]), TypeError, "got the class Inpaint"),
        (
            lambda s, m: Cascade([Stage(s), Stage(m)]),
            ValueError,
            r"stage 2: SuperResolution: GaussianMixtureBackend takes no low-resolution image",
        ),
        (
            lambda s, m: Cascade([Stage(s), Stage(m, enlarge=agreeing)], [CFG(2.0, negative=9)]),
            ValueError,
            "stage 1: CFG: negative",
        ),
        (
            lambda s, m: Cascade([Stage(s)], [SDEdit(torch.zeros(1, 16, 8))]),
            ValueError,
            "stage 1: SDEdit: image must have the proportions of 8x8, got 16x8. Crop it",
        ),
        (
            lambda s, m: Cascade([Stage(s), Stage(m, enlarge=lambda x: x)]),
            TypeError,
            "stage 2: Stage: enlarge must return a plugin, got Tensor",
        ),
    ],
)
def test_bad_cascades_raise(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make(*exact_models())


def test_a_view_that_is_another_at_the_next_size_raises():
    """28 pixels have no grid of 8, 112 have."""
    stages = [
        Stage(backend, enlarge=lambda x: DDNM(x, BlockMean(4)))
        for backend in exact_models((28, 112))
    ]
    with pytest.raises(ValueError, match=r"PatchPermute.* must be the same view at 112x112 as at"):
        Cascade(stages, [Anagram({"identity": 1, "patch_permute": 2})])
    Cascade(stages, [Anagram({"identity": 1, PatchPermute(7): 2})])
