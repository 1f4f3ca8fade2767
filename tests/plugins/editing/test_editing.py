"""SDEdit and Inpaint."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import mixture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from composer import Sampler, hookimpl
from composer.solvers import DDIM
from composer_plugins import CFG, Inpaint, SDEdit
from composer_plugins.editing.inpaint import with_jumps

IMAGE = torch.linspace(-1, 1, 64, dtype=torch.float64).reshape(1, 8, 8)
HALF = torch.zeros(8, 8)
HALF[:, 4:] = 1
MODES = ["clean", "renoise", "repaint"]


class FirstX:
    """Records what the loop starts from."""

    @hookimpl
    def start(self, state):
        self.x, self.t, self.times = state.x, state.t, state.times


@given(st.floats(0.01, 1.0), st.integers(1, 30))
def test_sdedit_starts_where_diffusers_does(strength, steps):
    start = steps - min(int(steps * strength), steps)
    plugin = SDEdit(IMAGE, strength)
    if start == steps:
        with pytest.raises(ValueError, match="leaves none of the"):
            Sampler(mixture(), [plugin], num_inference_steps=steps)
        return
    first = FirstX()
    sampler = Sampler(mixture(), [plugin, first], num_inference_steps=steps)
    assert sampler.sample(1).stats.calls == steps - start
    assert first.times == sampler.times[start:]


def test_sdedit_starts_from_the_noised_image():
    first, backend = FirstX(), mixture()
    sampler = Sampler(backend, [SDEdit(IMAGE, i_start=6), first], num_inference_steps=10)
    sampler.sample(1, seeds=[5])
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    torch.testing.assert_close(first.x, 0.6 * IMAGE[None] + 0.4 * noise)


def test_little_noise_keeps_the_image_and_full_strength_forgets_it():
    backend = mixture()
    target = backend.means[0]
    gap = {}
    for i_start in (0, 19):
        sampler = Sampler(backend, [SDEdit(target, i_start=i_start)], num_inference_steps=20)
        gap[i_start] = (sampler.sample(1, seeds=range(4)).x - target).abs().mean().item()
    assert gap[19] < 0.15 < 0.5 < gap[0]


def test_one_image_a_seed():
    images = torch.stack([IMAGE, -IMAGE])
    sampler = Sampler(mixture(), [SDEdit(images, i_start=19)], num_inference_steps=20)
    both = sampler.sample(seeds=[1, 2]).x
    alone = Sampler(mixture(), [SDEdit(-IMAGE, i_start=19)], num_inference_steps=20)
    torch.testing.assert_close(both[1:], alone.sample(seeds=[2]).x)
    with pytest.raises(ValueError, match="SDEdit: 2 images for 3 seeds"):
        sampler.sample(seeds=[1, 2, 3])


@pytest.mark.parametrize("mode", MODES)
def test_a_mask_of_zeros_returns_the_input_exactly(mode):
    plugin = Inpaint(IMAGE, torch.zeros(8, 8), mode)
    x = Sampler(mixture(), [plugin, CFG(3.0)]).sample(1, seeds=[0, 1]).x
    assert torch.equal(x, IMAGE.expand(2, 1, 8, 8))


class StopsAndClips:
    """Ends the run early, and changes the whole image at the end."""

    @hookimpl
    def post_step(self, state):
        if state.step == 5:
            state.stop()

    @hookimpl
    def finish(self, state):
        state.x = state.x.clamp(-0.1, 0.1)


@pytest.mark.parametrize("after", [True, False])
def test_the_known_region_is_exact_however_a_run_ends(after):
    mask = torch.zeros(8, 8)
    mask[4:] = 1
    stack = [Inpaint(IMAGE, mask), StopsAndClips()]
    x = Sampler(mixture(), stack if after else stack[::-1]).sample(1, seeds=[0, 1]).x
    assert torch.equal(x[..., :4, :], IMAGE[..., :4, :].expand(2, 1, 4, 8))
    assert x[..., 4:, :].abs().max() <= 0.1


@pytest.mark.parametrize("mode", ["clean", "renoise"])
def test_a_mask_of_ones_changes_nothing(mode):
    plugin = Inpaint(IMAGE, torch.ones(8, 8), mode)
    x = Sampler(mixture(), [plugin]).sample(1).x
    assert torch.equal(x, Sampler(mixture()).sample(1).x)


@pytest.mark.parametrize("mode", MODES)
@given(seed=st.integers(0, 99))
def test_the_known_region_is_exact_at_the_end(mode, seed):
    mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(seed)).round()
    x = Sampler(mixture(), [Inpaint(IMAGE, mask, mode)], num_inference_steps=12).sample(1).x
    known = mask == 0
    assert torch.equal(x[0, 0, known], IMAGE[0, known])
    assert (x[0, 0, ~known] != IMAGE[0, ~known]).all()


def test_exact_whatever_later_plugins_do():
    class Spoiler:
        @hookimpl
        def post_step(self, state):
            state.x = state.x + 1

    x = Sampler(mixture(), [Inpaint(IMAGE, HALF), Spoiler()]).sample(1).x
    assert torch.equal(x[0, 0, :, :4], IMAGE[0, :, :4])


def test_each_mode_keeps_the_known_region_as_it_says():
    """clean: the image itself at every step; renoise: at the level of x, with fresh noise."""
    states = Sampler(mixture(), [Inpaint(IMAGE, HALF, "clean")]).stream(1)
    assert all(torch.equal(s.x[..., :4], IMAGE[None, ..., :4]) for s in states)
    backend = mixture(shape=(1, 64, 64))
    image, mask = torch.full((1, 64, 64), 0.5, dtype=torch.float64), torch.zeros(64, 64)
    mask[:, 32:] = 1
    noises = []
    sampler = Sampler(backend, [Inpaint(image, mask, "renoise")], num_inference_steps=10)
    for state in sampler.stream(1):
        alpha, sigma = backend.schedule.at(state.t)
        if sigma:
            noise = (state.x[..., :32] - alpha * 0.5) / sigma
            # 2048 unit normals: the mean and spread are within 0.15 but for one case in 10^10.
            assert abs(noise.mean()) < 0.15
            assert abs(noise.std() - 1) < 0.15
            noises.append(noise.flatten())
    assert np.abs(np.corrcoef(torch.stack(noises)) - np.eye(9)).max() < 0.15


def test_a_soft_mask_blends_once():
    mask = torch.full((8, 8), 0.25)
    sampler = Sampler(mixture(), [Inpaint(IMAGE, mask, "clean")], num_inference_steps=1)
    made = Sampler(mixture(), [FirstBlend(mask)], num_inference_steps=1)
    torch.testing.assert_close(sampler.sample(1).x, made.sample(1).x)


class FirstBlend:
    """The formula of the soft mask for one step, written out."""

    def __init__(self, mask):
        self.mask = mask.double()

    @hookimpl
    def start(self, state):
        state.x = self.mask * state.x + (1 - self.mask) * IMAGE

    @hookimpl
    def post_step(self, state):
        state.x = self.mask * state.x + (1 - self.mask) * IMAGE


@pytest.mark.parametrize(
    ("plan", "calls"), [((20, 5, 4), 65), ((50, 10, 2), 90), ((250, 10, 10), 2410)]
)
def test_repaint_makes_the_published_number_of_calls(plan, calls):
    steps, jump_length, resamples = plan
    times = with_jumps([1 - i / steps for i in range(steps + 1)], jump_length, resamples)
    assert sum(b < a for a, b in pairwise(times)) == calls


def schedule_jump(steps, jump_length, resamples):
    """get_schedule_jump as RePaint's appendix describes it: walk down, at marks walk up again."""
    left = dict.fromkeys(range(0, steps - jump_length, jump_length), resamples - 1)
    t, walk = steps, []
    while t >= 1:
        t -= 1
        walk.append(t)
        if left.get(t, 0) > 0:
            left[t] -= 1
            for _ in range(jump_length):
                t += 1
                walk.append(t)
    return [*walk, -1]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 5))
def test_repaint_walks_the_published_path(steps, jump_length, resamples):
    """Ours jumps back in one go where the paper's walks up; the stops on the way down agree."""
    ours = with_jumps([float(steps - 1 - i) for i in range(steps + 1)], jump_length, resamples)
    theirs = schedule_jump(steps, jump_length, resamples)

    def descents(walk):
        return [(a, b) for a, b in pairwise(walk) if b < a]

    assert descents(ours) == descents(theirs)


def test_repaint_counts_its_calls_and_steps():
    plugin = Inpaint(IMAGE, HALF, "repaint", jump_length=5, resamples=4)
    stats = Sampler(mixture(), [plugin], num_inference_steps=20).sample(1).stats
    assert stats.calls == 65


def test_inpainting_finds_the_image_that_fits():
    """Half of one of four known images determines the other half."""
    backend = mixture()
    for mode in ("renoise", "repaint"):
        plugin = Inpaint(backend.means[2], HALF, mode)
        x = Sampler(backend, [plugin], DDIM(), num_inference_steps=50).sample(seeds=range(8)).x
        gap = (x - backend.means[2])[..., 4:].flatten(1).pow(2).mean(1).sqrt()
        assert (gap < 2 * backend.stds[2]).float().mean() >= 0.75, mode


def test_pictures_are_images_and_masks():
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    mask = Image.fromarray((HALF.numpy() * 255).astype(np.uint8))
    x = Sampler(mixture(), [Inpaint(picture, mask)]).sample(1)
    left = np.asarray(x.images[0])[:, :4]
    assert np.array_equal(left, np.asarray(picture)[:, :4])


FLAT = torch.zeros(1, 8, 8)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: SDEdit(FLAT, strength=0.0), ValueError, r"strength must be in \(0, 1\]"),
        (lambda: SDEdit(FLAT, strength=1.5), ValueError, r"strength must be in \(0, 1\]"),
        (lambda: SDEdit(FLAT, strength=float("nan")), ValueError, "strength must be"),
        (lambda: SDEdit(FLAT, i_start=-1), ValueError, "i_start must be an integer of at least 0"),
        (lambda: SDEdit(FLAT, i_start=2.0), TypeError, "i_start must be an integer"),
        (lambda: SDEdit(FLAT, "1"), TypeError, "strength must be a number"),
        (lambda: SDEdit(Image.new("F", (8, 8), 1.5)), ValueError, "SDEdit: image must hold fract"),
        (lambda: Inpaint(FLAT, Image.new("I", (8, 8), -1)), ValueError, "Inpaint: mask must hold"),
        (lambda: SDEdit(FLAT, fit="contain"), ValueError, "SDEdit: fit must be one of"),
        (lambda: SDEdit(FLAT, 0.5, 3), ValueError, "exclude each other"),
        (lambda: SDEdit(FLAT.int()), TypeError, "floating-point"),
        (lambda: SDEdit("cat.png"), FileNotFoundError, "got 'cat.png'. There is no such file"),
        (lambda: SDEdit(5), TypeError, "must be a PIL image, the path of one, .* got int"),
        (lambda: SDEdit(FLAT + 100), ValueError, r"must lie in \[-1, 1\]"),
        (lambda: SDEdit(FLAT * float("nan")), ValueError, r"must lie in \[-1, 1\]"),
        (lambda: SDEdit(FLAT[0]), ValueError, r"\(C, H, W\)"),
        (lambda: Inpaint(FLAT, HALF + 0.5), ValueError, r"mask must lie in \[0, 1\]"),
        (lambda: Inpaint(FLAT, -HALF), ValueError, r"mask must lie in \[0, 1\]"),
        (lambda: Inpaint(FLAT, FLAT), ValueError, r"mask must have the shape \(H, W\)"),
        (lambda: Inpaint(FLAT, HALF.int()), TypeError, "mask must be"),
        (lambda: Inpaint(FLAT, HALF, "paint"), ValueError, "mode must be one of"),
        (lambda: Inpaint(FLAT, HALF, resamples=0), ValueError, "at least 1"),
    ],
)
def test_bad_arguments_raise(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()


@pytest.mark.parametrize(
    ("plugin", "sentence"),
    [
        (
            SDEdit(torch.zeros(3, 8, 8)),
            "SDEdit: image must have the backend's 1 channel.*got 3. Convert it",
        ),
        (
            SDEdit(torch.zeros(1, 8, 9)),
            "image must have the backend's size 8x8, got 8x9. Give fit='crop', 'pad'",
        ),
        (SDEdit(FLAT, i_start=20), "leaves none of the 20 steps"),
        (Inpaint(torch.zeros(1, 9, 8), HALF), "Inpaint: image must have the backend's size 8x8"),
        (
            Inpaint(FLAT, torch.zeros(9, 9)),
            "Inpaint: mask must have the backend's size 8x8, got 9x9. Give fit=",
        ),
        (
            Inpaint(torch.zeros(1, 8, 12), torch.zeros(16, 16), fit="crop"),
            "Inpaint: mask must have the proportions of its image, 8x12, or be 8x8, got 16x16",
        ),
    ],
)
def test_what_does_not_fit_the_backend_raises_when_built(plugin, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sampler(mixture(), [plugin])


def test_two_repaints_raise():
    plans = [Inpaint(FLAT, HALF, "repaint"), Inpaint(FLAT, 1 - HALF, "repaint")]
    with pytest.raises(ValueError, match="two Inpaint in one stack both plan jumps"):
        Sampler(mixture(), plans)


def test_repaint_without_room_for_a_jump_raises():
    sampler = Sampler(mixture(), [Inpaint(FLAT, HALF, "repaint")], num_inference_steps=5)
    with pytest.raises(ValueError, match="5 steps leave no room for a jump of jump_length=5"):
        sampler.sample(1)
