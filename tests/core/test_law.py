"""The law of composition: over f(x) = x every lawful stack returns x."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from composer import UNCONDITIONAL, Sampler
from composer.predictions import PREDICTIONS
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.testing import IdentityBackend
from composer_plugins import CFG, Anagram, Components, GaussianBlur, Hybrid, TripleHybrid

VIEWS = ["identity", "flip", "rotate_180", "rotate_cw", "rotate_ccw", "skew", "negative"]
digits = st.integers(0, 9)
sigmas = st.floats(0.3, 4.0)


def anagrams(conditions):
    return st.builds(
        Anagram,
        st.dictionaries(st.sampled_from(VIEWS), conditions, min_size=1, max_size=4),
        st.sampled_from(["mean", "alternate"]),
    )


def hybrids(conditions):
    two = st.builds(Hybrid, conditions, conditions, sigmas)
    three = st.builds(TripleHybrid, conditions, conditions, conditions, st.tuples(sigmas, sigmas))
    return two | three


deciders = st.recursive(digits, lambda inner: anagrams(inner) | hybrids(inner), max_leaves=6)
guidances = st.lists(
    st.builds(CFG, st.floats(-2, 8), st.sampled_from([(0.0, 1.0), (0.3, 0.7)])), max_size=2
)


@st.composite
def stacks(draw):
    """Up to two guidances on either side of at most one nest of views and bands."""
    decider = draw(deciders)
    outer, inner = draw(guidances), draw(guidances)
    middle = [] if isinstance(decider, int) else [decider]
    return [*outer, *middle, *inner]


@given(stacks(), st.sampled_from([8, 28]), st.sampled_from([0.0, 0.3, 0.9]), st.integers(0, 99))
def test_every_lawful_stack_returns_x(stack, size, t, seed):
    backend = IdentityBackend((1, size, size))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 1, size, size, generator=generator, dtype=torch.float64)
    estimate = Sampler(backend, stack).denoise(x, t)
    torch.testing.assert_close(estimate.prediction, x, rtol=1e-8, atol=1e-8)
    assert estimate.x is x


@given(stacks(), st.sampled_from(sorted(PREDICTIONS)))
def test_the_law_holds_at_every_step_of_a_run(stack, kind):
    """So the whole run equals the run without plugins."""
    backend = IdentityBackend((1, 8, 8), DiscreteSchedule.linear(), PREDICTIONS[kind])
    with_stack = Sampler(backend, stack, num_inference_steps=4).sample(seeds=[1]).x
    plain = Sampler(backend, num_inference_steps=4).sample(seeds=[1]).x
    scale = plain.abs().max().item()
    torch.testing.assert_close(with_stack, plain, rtol=1e-7, atol=1e-7 * scale)


def test_a_broken_law_is_seen():
    """The test above can fail: a part applied twice is not the identity."""
    blur = GaussianBlur(2.0)

    class Twice(Hybrid):
        @property
        def parts(self):
            return blur, blur

    x = torch.randn(1, 1, 28, 28, dtype=torch.float64)
    estimate = Sampler(IdentityBackend(), [Twice(1, 2)]).denoise(x, 0.5)
    assert (estimate.prediction - x).abs().max() > 0.1


def test_decompositions_that_do_not_sum_to_the_identity_are_refused():
    blur = GaussianBlur(2.0)
    with pytest.raises(ValueError, match="Components: the parts do not sum to the identity"):
        Sampler(IdentityBackend(), [Components((blur, blur), (1, 2))])
    Sampler(IdentityBackend(), [Components((blur, lambda x: x - blur(x)), (1, 2))])


def test_decompositions_that_are_not_linear_are_refused():
    parts = (torch.tanh, lambda x: x - torch.tanh(x))
    with pytest.raises(ValueError, match="not linear"):
        Sampler(IdentityBackend(), [Components(parts, (1, 2))])


def test_conditions_must_match_parts():
    with pytest.raises(ValueError, match="conditions must be 2, one per part, got 1"):
        Components((GaussianBlur(1.0), GaussianBlur(2.0)), (1,))


@given(st.floats(-2, 8), st.floats(-2, 8))
def test_guidance_inside_guidance_multiplies_scales(one, other):
    from conftest import mixture

    backend = mixture(FlowSchedule())
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    nested = Sampler(backend, [CFG(one), CFG(other)]).denoise(x, 0.5, 1).prediction
    single = Sampler(backend, [CFG(one * other)]).denoise(x, 0.5, 1).prediction
    torch.testing.assert_close(nested, single, rtol=1e-6, atol=1e-6)


@given(deciders.filter(lambda d: not isinstance(d, int)), st.floats(0, 8))
def test_guidance_commutes_with_views_and_bands(decider, scale):
    """CFG inside and CFG outside give the same estimate."""
    from conftest import mixture

    backend = mixture(FlowSchedule(), components=10)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    inside = Sampler(backend, [decider, CFG(scale)]).denoise(x, 0.4).prediction
    outside = Sampler(backend, [CFG(scale), decider]).denoise(x, 0.4).prediction
    torch.testing.assert_close(inside, outside, rtol=1e-6, atol=1e-6)


def test_scale_one_is_conditional_and_zero_unconditional():
    from conftest import mixture

    backend = mixture()
    for scale, condition in ((1.0, 2), (0.0, UNCONDITIONAL)):
        guided = Sampler(backend, [CFG(scale)]).sample(2, seeds=[1, 2]).x
        assert torch.equal(guided, Sampler(backend).sample(condition, seeds=[1, 2]).x)


@given(st.integers(1, 4), st.integers(0, 3), st.floats(0, 6))
def test_identity_views_are_plain_guidance(count, digit, scale):
    from conftest import mixture

    from composer_plugins.transforms import Identity

    class Another(Identity):
        """An identity of another type, so that the views are several."""

        def __init__(self, k):
            object.__setattr__(self, "k", k)

        def __eq__(self, other):
            return isinstance(other, Another) and self.k == other.k

        def __hash__(self):
            return hash(self.k)

    backend = mixture()
    views = {Another(k): digit for k in range(count)}
    sampler = Sampler(backend, [Anagram(views), CFG(scale)], num_inference_steps=3)
    plain = Sampler(backend, [CFG(scale)], num_inference_steps=3)
    result = sampler.sample(seeds=[4])
    torch.testing.assert_close(result.x, plain.sample(digit, seeds=[4]).x)
    assert result.stats.evaluated == plain.sample(digit, seeds=[4]).stats.evaluated


def fails(x):
    raise KeyError("lost")


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (fails, r"Components: .*failed on images of \(1, 8, 8\) \(KeyError: 'lost'\)"),
        (lambda x: None, "Components: .*returns NoneType for images"),
        (
            lambda x: x[..., :4],
            r"Components: .*returns images \(3, 1, 8, 4\) .* for images \(3, 1, 8, 8\)",
        ),
    ],
)
def test_a_part_that_breaks_is_named(part, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sampler(IdentityBackend((1, 8, 8)), [Components([part, lambda x: x], [1, 2])])
