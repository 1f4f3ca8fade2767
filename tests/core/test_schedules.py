import math
import pickle
import statistics
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from device_without_float64 import DEVICE, DeviceWithoutFloat64
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from composer import Sampler, hookimpl
from composer.schedules import DiscreteSchedule, FlowSchedule, ancestral_variance, renoise
from composer.solvers import DDIM, DDPM, DPMSolverPP, Euler, Heun
from composer.testing import GaussianMixtureBackend
from composer_lab.training.data import stratified
from composer_plugins import CFG, Particles, SDEdit, Timesteps


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 7, 10, 50, 333, 1000])
def test_times_are_those_of_diffusers(spacing, steps):
    if (spacing, steps) == ("linspace", 1):
        # Of the two ends of [0, 999] diffusers keeps the clean one; one step must start in noise.
        assert DiscreteSchedule.linear(spacing=spacing).times(1) == [999.0, -1.0]
        return
    reference = DDPMScheduler(timestep_spacing=spacing, clip_sample=False)
    reference.set_timesteps(steps)
    times = DiscreteSchedule.linear(spacing=spacing).times(steps)
    assert times == [*map(float, reference.timesteps), -1.0]


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_trailing_times_are_rounded_exactly(train, steps):
    """Of fractions, halves to even; diffusers' sum of float strides is off at 48 of 1000."""
    steps = min(steps, train)
    exact = [round(Fraction(train * (steps - i), steps)) - 1 for i in range(steps)]
    assert DiscreteSchedule.linear(train).times(steps) == [*exact, -1]


@given(st.lists(st.integers(0, 999), min_size=1, max_size=5))
def test_the_forward_process_is_that_of_diffusers(times):
    x0, noise = torch.randn(2, len(times), 1, 4, 4)
    t = torch.tensor(times)
    ours = DiscreteSchedule.linear().add_noise(x0, noise, t)
    torch.testing.assert_close(ours, DDPMScheduler().add_noise(x0, noise, t))


@pytest.mark.parametrize(
    ("x0", "noise", "t", "sentence"),
    [
        (
            torch.ones(1, 1, 2, 2, dtype=torch.uint8),
            torch.zeros(1, 1, 2, 2),
            0.5,
            "x0 must be a floating-point tensor, got a tensor of torch.uint8",
        ),
        (torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 3), 0.5, r"the same \(C, H, W\)"),
        (torch.zeros(2, 1, 2, 2), torch.zeros(3, 1, 2, 2), 0.5, "one per image, got 2, 3 and 1"),
        (torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), torch.zeros(3), "got 2, 2 and 3"),
    ],
)
def test_what_does_not_fit_is_not_noised(x0, noise, t, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        FlowSchedule().add_noise(x0, noise, t)


def test_one_time_serves_a_whole_batch():
    x0, noise = torch.randn(2, 3, 1, 4, 4)
    for schedule, t in ((FlowSchedule(), 0.25), (DiscreteSchedule.linear(), 250)):
        each = schedule.add_noise(x0, noise, torch.full((3,), t))
        assert torch.equal(schedule.add_noise(x0, noise, t), each)


def test_the_ends_are_noise_and_image(schedule):
    first, *_, last = schedule.times(10)
    assert schedule.noise_level(first) > 0.99
    assert schedule.at(last) == (1.0, 0.0)


def test_the_course_schedule_does_not_end_in_noise():
    """The trap: alpha_bar at T = 300 is 0.048, so x_T is no noise; ours is 4e-5."""
    course = DiscreteSchedule.linear(num_train_timesteps=300)
    assert course.alphas_cumprod[-1].item() == pytest.approx(0.048, abs=2e-3)
    assert DiscreteSchedule.linear().alphas_cumprod[-1] < 1e-4


@given(st.floats(0.0, 0.99))
def test_time_at_inverts_noise_level(level):
    for schedule in (FlowSchedule(), DiscreteSchedule.linear()):
        assert schedule.noise_level(schedule.time_at(level)) == pytest.approx(level, abs=1e-9)


@given(st.integers(2, 40))
def test_levels_fall_along_every_plan(steps):
    for schedule in (FlowSchedule(), DiscreteSchedule.linear()):
        levels = [schedule.noise_level(t) for t in schedule.times(steps)]
        assert levels == sorted(levels, reverse=True)


@given(st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_a_jump_back_lands_on_the_path(one, other):
    """x_t -> x_s by renoising has the amplitudes (alpha_s, sigma_s), for both kinds of path."""
    clean, noisy = min(one, other), max(one, other)
    for schedule in (FlowSchedule(), DiscreteSchedule.linear()):
        t, s = schedule.time_at(clean), schedule.time_at(noisy)
        alpha_t, sigma_t = schedule.at(t)
        alpha_s, sigma_s = schedule.at(s)
        unit, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        shrink = renoise(schedule, unit, zero, t, s).item()
        spread = renoise(schedule, zero, unit, t, s).item()
        assert shrink * alpha_t == pytest.approx(alpha_s)
        assert (shrink * sigma_t) ** 2 + spread**2 == pytest.approx(sigma_s**2)


def test_the_flow_jump_is_the_published_formula():
    """x_s = (s/t) x_t + sqrt((1-s)^2 - (s/t)^2 (1-t)^2) noise."""
    x, noise = torch.randn(2, 4, dtype=torch.float64)
    t, s = 0.7, 0.4
    expected = (s / t) * x + ((1 - s) ** 2 - (s / t) ** 2 * (1 - t) ** 2) ** 0.5 * noise
    torch.testing.assert_close(renoise(FlowSchedule(), x, noise, t, s), expected)


def test_ancestral_variance_of_neighbours_is_beta():
    schedule, betas = DiscreteSchedule.linear(), torch.linspace(1e-4, 0.02, 1000).double()
    for t in (1, 10, 500, 999):
        variance = ancestral_variance(*schedule.at(t), *schedule.at(t - 1))
        assert variance == pytest.approx(betas[t].item(), rel=1e-5)


@given(st.integers(1, 64), st.integers(0, 2**31))
def test_training_times_fall_one_in_each_part(count, seed):
    places = stratified(count, torch.Generator().manual_seed(seed))
    assert torch.equal((places * count).floor().clamp(max=count - 1).long(), torch.arange(count))
    assert torch.equal(FlowSchedule().training_times(places), places)
    discrete = DiscreteSchedule.linear().training_times(places)
    assert torch.equal(discrete, discrete.floor())
    assert 0 <= discrete.min() <= discrete.max() <= 999


@pytest.mark.parametrize(
    "bad",
    [[0.5, 0.9], [-0.1], [1.5], [[0.5]], []],
    ids=["grows", "negative", "above", "2d", "empty"],
)
def test_a_table_that_is_no_schedule_is_refused(bad):
    with pytest.raises(ValueError, match="alphas_cumprod"):
        DiscreteSchedule(bad)


def test_more_steps_than_times_are_refused():
    with pytest.raises(ValueError, match="num_inference_steps must be at most 1000, .* got 1001"):
        DiscreteSchedule.linear().times(1001)


def test_a_schedule_may_end_in_pure_noise():
    """As diffusers' rescale_betas_zero_snr makes it."""
    schedule = DiscreteSchedule([0.9, 0.4, 0.0])
    assert schedule.at(2) == (0.0, 1.0)
    assert schedule.time_at(1.0) == 2.0


def test_training_times_never_leave_the_schedule():
    """In float32, (63 + rand) / 64 rounds to 1 for this seed, and so to time 1000 of 1000."""
    places = stratified(64, torch.Generator().manual_seed(141668))
    assert DiscreteSchedule.linear().training_times(places).max() <= 999
    assert DiscreteSchedule.linear().training_times(torch.ones(1)) == 999


@given(st.floats(-2, 2), st.floats(0.2, 2), st.integers(0, 2**31))
def test_logit_normal_times_are_normal_quantiles(mean, spread, seed):
    """Each of n strata holds one draw, so the k-th lies between the quantiles (k - 1)/n and k/n."""
    count = 16
    places = stratified(count, torch.Generator().manual_seed(seed), (mean, spread))
    normal = statistics.NormalDist(mean, spread)
    shares = [normal.cdf(math.log(p / (1 - p))) for p in places.tolist()]
    assert all(
        k / count - 1e-9 <= share <= (k + 1) / count + 1e-9 for k, share in enumerate(shares)
    )


def test_an_offset_beyond_the_schedule_is_refused():
    with pytest.raises(ValueError, match="steps_offset=1 plans time 1000 of 1000"):
        DiscreteSchedule(DiscreteSchedule.linear().alphas_cumprod, "leading", 1).times(1000)


SCHEDULES = (FlowSchedule(), DiscreteSchedule.linear(), DiscreteSchedule([0.9, 0.4, 0.0]))


@given(st.floats(0, 1), st.booleans())
def test_amplitudes_of_one_time_are_those_of_tensors(place, whole):
    """Two ways to the same numbers: plain arithmetic, and the tensors of training."""
    for schedule in SCHEDULES:
        noisy, clean = schedule.time_at(1.0), schedule.time_at(0.0)
        t = clean + place * (noisy - clean)
        t = float(round(t)) if whole else t
        tensors = schedule.alpha_sigma(torch.tensor(t, dtype=torch.float64))
        assert schedule.at(t) == pytest.approx([v.item() for v in tensors], rel=1e-11, abs=1e-15)


class NoOperation(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} was called")


def test_amplitudes_of_one_time_take_no_tensor_and_are_not_kept():
    """Every step asks a dozen times, at times that differ from run to run."""
    for schedule in SCHEDULES:
        noisy, clean = schedule.time_at(1.0), schedule.time_at(0.0)
        size = len(pickle.dumps(schedule))
        with NoOperation():
            for place in range(100):
                schedule.at(clean + place / 99 * (noisy - clean))
        assert len(pickle.dumps(schedule)) == size


@pytest.mark.parametrize("t", [-1.5, 1.5, math.nan, math.inf])
def test_amplitudes_outside_of_the_path_are_refused(t):
    for schedule in (FlowSchedule(), DiscreteSchedule([0.9])):
        with pytest.raises(ValueError, match="times must be in"):
            schedule.at(t)


@pytest.mark.parametrize(
    "t", [0.25, torch.tensor(0.25), torch.tensor([0.25, 0.5])], ids=["number", "tensor", "each"]
)
def test_the_forward_process_makes_no_float64_on_a_device(t):
    x0, noise = torch.randn(2, 2, 1, 4, 4)
    for schedule in SCHEDULES:
        expected = schedule.add_noise(x0, noise, t)
        with DeviceWithoutFloat64():
            made = schedule.add_noise(x0.to(DEVICE), noise.to(DEVICE), t)
            assert made.device == DEVICE
            assert torch.equal(made.cpu(), expected)
        with DeviceWithoutFloat64(), pytest.raises(TypeError, match="no float64"):
            schedule.add_noise(x0.double().to(DEVICE), noise.to(DEVICE), t)


WIDE = FlowSchedule(noise_scale=2.0, shift=3.0, last=0.001)


@given(st.floats(0, 1), st.floats(0.1, 10))
def test_a_wide_flow_has_the_noise_level_of_its_times(t, scale):
    schedule = FlowSchedule(noise_scale=scale)
    alpha, sigma = schedule.at(t)
    assert (alpha, sigma) == (t, scale * (1 - t))
    level = schedule.noise_level(t)
    assert 0 <= level <= 1
    assert schedule.time_at(level) == pytest.approx(t, abs=1e-9)
    tensors = schedule.alpha_sigma(torch.tensor([t], dtype=torch.float64))
    assert torch.cat(tensors).tolist() == [alpha, sigma]


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 4, 12, 28])
def test_the_plan_of_a_shifted_flow_is_that_of_diffusers(shift, steps):
    """Which shifts the least noise level twice."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    ours = FlowSchedule(shift=shift, last=scheduler.sigma_min).times(steps)
    theirs = [1 - sigma for sigma in scheduler.sigmas.double().tolist()]
    assert ours == pytest.approx(theirs, abs=1e-7)
    assert ours[0] == 0
    assert ours[-1] == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"noise_scale": 0}, "FlowSchedule: noise_scale must be a positive number"),
        ({"shift": -1.0}, "FlowSchedule: shift must be a positive number"),
        ({"last": 1.0}, r"FlowSchedule: last must be in \(0, 1\), got 1"),
    ],
)
def test_a_flow_of_no_width_is_none(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        FlowSchedule(**options)


@pytest.mark.parametrize(
    "plugins",
    [[], [SDEdit(torch.full((1, 8, 8), 0.3), strength=1.0)], [Particles(lambda x: x[:, 0, 0, 0])]],
    ids=["noise", "edited", "candidates"],
)
def test_a_run_begins_in_noise_as_wide_as_its_path(plugins):
    """Chi-square: of 64 n numbers the mean square lies within 5 standard errors but for 6e-7."""
    backend, count = GaussianMixtureBackend(torch.zeros(1, 1, 8, 8), [0.5], schedule=WIDE), 40
    unit = replace(backend, schedule=FlowSchedule())
    begun = []

    class Begins:
        @hookimpl(trylast=True)
        def start(self, state):
            begun.append(state.x)

    for model in (backend, unit):
        sampler = Sampler(model, [*plugins, Begins()], num_inference_steps=1)
        sampler.sample(seeds=range(count))
    wide, narrow = begun
    torch.testing.assert_close(wide, 2 * narrow, rtol=1e-12, atol=1e-12)
    square = narrow.square().mean().item()
    assert abs(square - 1) < 5 * math.sqrt(2 / narrow.numel())


@pytest.mark.parametrize("solver", [Euler(), DDIM(), DDIM(1.0), DDPM(), Heun(), DPMSolverPP()])
def test_solvers_follow_a_wide_path_to_the_distribution(solver):
    """N(.2, .4^2): of 25,600 numbers the mean lies within 5 standard errors, but for 6e-7, and the
    bias of 100 steps, which the closed form of a Gaussian bounds."""
    means = torch.full((1, 1, 8, 8), 0.2, dtype=torch.float64)
    backend = GaussianMixtureBackend(means, [0.4], schedule=FlowSchedule(noise_scale=2.0))
    x = Sampler(backend, solver=solver, num_inference_steps=100).sample(seeds=range(400)).x
    assert abs(x.mean().item() - 0.2) < 5 * 0.4 / math.sqrt(x.numel()) + 0.002
    assert abs(x.std().item() - 0.4) < 5 * 0.4 / math.sqrt(2 * x.numel()) + 0.02


def test_every_width_is_one_path_reparametrised():
    """Deterministic samplers commute with the change of variables between two paths: at equal noise
    levels Heun's method, taken along u = x / (alpha + sigma), visits the same u."""
    means = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    one = GaussianMixtureBackend(means, [0.3] * 3)
    wide = replace(one, schedule=FlowSchedule(noise_scale=2.0))
    times = FlowSchedule().times(6)
    levels = [FlowSchedule().noise_level(t) for t in times]
    same = Timesteps([wide.schedule.time_at(level) for level in levels[:-1]], Heun())
    a = Sampler(one, [CFG(2.0)], Heun(), num_inference_steps=6).sample(1, seeds=[0, 1]).x
    b = Sampler(wide, [CFG(2.0)], same, num_inference_steps=6).sample(1, seeds=[0, 1]).x
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
