import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from composer import Sampler, get_transform
from composer_plugins import CFG, Anagram, GaussianBlur, Hybrid, TripleHybrid
from composer_plugins.transforms import Flip

VIEWS = ["identity", "flip", "rotate_180", "skew", "negative"]


def ask(backend, x, t, condition):
    return Sampler(backend).denoise(x, t, condition).prediction


@given(st.lists(st.sampled_from(VIEWS), min_size=1, max_size=4, unique=True), st.booleans())
def test_an_anagram_is_the_mean_over_views(names, weighted):
    """Written out from the paper's formula."""
    backend = mixture()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    count = len(names)
    weights = [2 * (i + 1) / (count * (count + 1)) for i in range(count)]
    if weighted:
        plugin = Anagram({n: i for i, n in enumerate(names)}, "weighted", weights)
    else:
        plugin, weights = Anagram({n: i for i, n in enumerate(names)}), [1 / count] * count
    expected = torch.zeros_like(x)
    for i, name in enumerate(names):
        view = get_transform(name)
        expected += weights[i] * view.inverse(ask(backend, view(x), 0.4, i))
    ours = Sampler(backend, [plugin]).denoise(x, 0.4).prediction
    torch.testing.assert_close(ours, expected)


def test_alternate_takes_one_view_a_step():
    backend = mixture()
    plugin = Anagram({"identity": 0, "flip": 1, "rotate_180": 2}, reduction="alternate")
    for state in Sampler(backend, [plugin], num_inference_steps=5).stream():
        view = get_transform(["identity", "flip", "rotate_180"][state.step % 3])
        estimate = state.estimate
        expected = view.inverse(ask(backend, view(estimate.x), estimate.t, state.step % 3))
        torch.testing.assert_close(estimate.prediction, expected)


def test_learned_variance_goes_with_the_views_and_bands(monkeypatch):
    backend = mixture()
    plain = type(backend).evaluate

    def evaluate(self, batch):
        """Return the image itself as the variance, so that the test can follow it."""
        return plain(self, batch)._replace(variance=batch.x)

    monkeypatch.setattr(type(backend), "evaluate", evaluate)
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    for plugin, expected in (
        (Anagram({"flip": 0}), x),
        (Anagram({"negative": 0}), -x),  # of -x, carried back as it is
        (Anagram({"identity": 0, "skew": 1}), x),
        (Hybrid(0, 1), x),
    ):
        variance = Sampler(backend, [plugin, CFG(3.0)]).denoise(x, 0.5).variance
        torch.testing.assert_close(variance, expected)


@given(st.floats(0.5, 4.0))
def test_a_hybrid_filters_two_estimates(sigma):
    backend = mixture(shape=(1, 16, 16))
    x = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    blur = GaussianBlur(sigma)
    low, high = ask(backend, x, 0.4, 0), ask(backend, x, 0.4, 1)
    ours = Sampler(backend, [Hybrid(0, 1, sigma)]).denoise(x, 0.4).prediction
    torch.testing.assert_close(ours, blur(low) + high - blur(high))


def test_a_triple_hybrid_has_three_bands():
    backend = mixture(shape=(1, 16, 16))
    x = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    fine, coarse = GaussianBlur(1.0), GaussianBlur(2.0)
    low, mid, high = (ask(backend, x, 0.4, k) for k in range(3))
    expected = coarse(fine(low)) + fine(mid) - coarse(fine(mid)) + high - fine(high)
    ours = Sampler(backend, [TripleHybrid(0, 1, 2)]).denoise(x, 0.4).prediction
    torch.testing.assert_close(ours, expected)


def test_the_blur_is_the_course_s_at_64_pixels():
    """Kernel 33, sigma 2, written out."""
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    places = torch.arange(-16, 17, dtype=torch.float64)
    row = torch.exp(-0.5 * (places / 2) ** 2)
    kernel = (row[:, None] * row) / row.sum() ** 2
    padded = F.pad(x, (16,) * 4, mode="reflect")
    expected = F.conv2d(padded, kernel.expand(3, 1, 33, 33), groups=3)
    torch.testing.assert_close(GaussianBlur(2.0)(x), expected)


def test_the_blur_scales_with_the_image():
    """The same picture at twice the size is blurred the same."""
    small = torch.zeros(1, 1, 64, 64)
    small[..., 24:40, 24:40] = 1
    large = small.repeat_interleave(2, -1).repeat_interleave(2, -2)
    blurred = F.avg_pool2d(GaussianBlur(3.0)(large), 2)
    torch.testing.assert_close(blurred, GaussianBlur(3.0)(small), rtol=0, atol=0.01)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.01, 50))
def test_the_blur_keeps_constants_at_any_size(height, width, sigma):
    x = torch.full((1, 2, height, width), 0.7, dtype=torch.float64)
    torch.testing.assert_close(GaussianBlur(sigma)(x), x)


def test_an_anagram_inside_a_band_and_a_band_inside_a_view():
    backend = mixture()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    flip, blur = Flip(), GaussianBlur(2.0)
    e = [ask(backend, x, 0.5, k) for k in range(4)]
    e_flipped = [flip(ask(backend, flip(x), 0.5, k)) for k in range(4)]
    band = Sampler(backend, [Hybrid(Anagram({"identity": 0, "flip": 1}), 2)]).denoise(x, 0.5)
    expected = blur((e[0] + e_flipped[1]) / 2) + e[2] - blur(e[2])
    torch.testing.assert_close(band.prediction, expected)
    view = Sampler(backend, [Anagram({"identity": Hybrid(0, 1), "flip": 2})]).denoise(x, 0.5)
    expected = (blur(e[0]) + e[1] - blur(e[1]) + e_flipped[2]) / 2
    torch.testing.assert_close(view.prediction, expected)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: Anagram({}), TypeError, "views must be a dict"),
        (lambda: Anagram([("flip", 1)]), TypeError, "views must be a dict"),
        (lambda: Anagram({"flp": 1}), LookupError, "Unknown transform 'flp'. Did you mean flip"),
        (lambda: Anagram({"flip": 1}, "median"), ValueError, "reduction must be one of"),
        (
            lambda: Anagram({"flip": 1}, "weighted"),
            ValueError,
            "weights must be given if and only if",
        ),
        (
            lambda: Anagram({"flip": 1}, "mean", [1.0]),
            ValueError,
            "weights must be given if and only if",
        ),
        (lambda: Anagram({"flip": 1}, "weighted", [0.5]), ValueError, "sum to 1"),
        (lambda: Anagram({"flip": 1}, "weighted", [0.5, 0.5]), ValueError, "1 numbers"),
        (lambda: Hybrid(1, 2, sigma=0), ValueError, "sigma must be a positive number"),
        (lambda: Hybrid(1, 2, sigma=float("nan")), ValueError, "Hybrid: sigma must be finite"),
        (lambda: Hybrid(1, 2, "1"), TypeError, "Hybrid: sigma must be a number"),
        (lambda: Anagram({"flip": 1}, [1]), ValueError, "reduction must be one of"),
        (lambda: Anagram({"flip": 1}, "weighted", 1.0), TypeError, "weights must be a list"),
        (lambda: TripleHybrid(1, 2, 3, sigmas=2), TypeError, "sigmas must be a list"),
        (lambda: TripleHybrid(1, 2, 3, sigmas=(1.0,)), ValueError, "two numbers"),
    ],
)
def test_bad_arguments_raise(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()
