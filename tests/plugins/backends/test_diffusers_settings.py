"""Every setting of every scheduler that load_backend("diffusers") reads: as diffusers' own loop
has it, in float64."""

import copy
import dataclasses
import inspect

import diffusers
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMParallelScheduler,
    DDPMScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    IPNDMScheduler,
    KDPM2DiscreteScheduler,
    PNDMScheduler,
    UnCLIPScheduler,
    UniPCMultistepScheduler,
)
from tiny_unet import SEEDS, generators, load, write

from composer import Sampler
from composer.solvers import DDIM, DDPM, DiffusersSolver
from composer_plugins import Langevin, LanPaint

STEPS = 5
SETTINGS = {
    "prediction_type": ["sample", "v_prediction"],
    "timestep_spacing": ["linspace", "leading", "trailing"],
    "clip_sample": [True, False],
    "thresholding": [True],
    "set_alpha_to_one": [True, False],
    "variance_type": ["fixed_small", "fixed_small_log", "fixed_large", "learned_range"],
    "use_karras_sigmas": [True],
    "use_exponential_sigmas": [True],
    "use_beta_sigmas": [True],
    "use_lu_lambdas": [True],
    "final_sigmas_type": ["sigma_min"],
    "solver_order": [1, 3],
    "solver_type": ["midpoint", "heun", "bh2"],
    "lower_order_final": [True, False],
    "euler_at_final": [True],
    "lambda_min_clipped": [-5.1],
    "disable_corrector": [[0, 1]],
    "skip_prk_steps": [True],
}
"""Each alone, where it is not the default."""
TOGETHER = [
    {
        **{"num_train_timesteps": 500, "beta_start": 0.001, "beta_end": 0.01, "steps_offset": 1},
        **{"beta_schedule": "scaled_linear", "timestep_spacing": "leading"},
    },
    {"trained_betas": torch.linspace(0.001, 0.03, 1000).tolist()},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"clip_sample": True, "clip_sample_range": 0.5},
    {"original_inference_steps": 20, "timestep_scaling": 1.0},
    {"snr_shift_scale": 1.0},
    {"predictor_order": 3, "corrector_order": 3},
    {"predictor_order": 1, "corrector_order": 1},
    {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.7},
    {
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    },
    {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 20.0},
    {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"},
    {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    {"algorithm_type": "sde-dpmsolver++"},
    {"algorithm_type": "noise_prediction"},
    {"predict_x0": False, "final_sigmas_type": "sigma_min"},
    {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
]
DRIVEN = [
    *("CogVideoXDDIM", "DDIMParallel", "DDIM", "DDPMParallel", "DDPM", "DEISMultistep"),
    *("DPMSolverMultistep", "DPMSolverSinglestep", "EulerAncestralDiscrete", "EulerDiscrete"),
    *("HeunDiscrete", "KDPM2AncestralDiscrete", "KDPM2Discrete", "LCM", "LMSDiscrete", "PNDM"),
    *("SASolver", "TCD", "UnCLIP", "UniPCMultistep"),
]
ELSEWHERE = {
    "flow_shift": "of use_flow_sigmas",
    "interpolation_type": "differs on purpose, below",
    "timestep_type": "continuous times are refused",
    "use_dynamic_shifting": "asks for mu, and is refused",
    "use_flow_sigmas": "another path, and is refused",
    **dict.fromkeys(("shift_terminal", "time_shift_type"), "of use_flow_sigmas"),
    **dict.fromkeys(("solver_p", "tau_func"), "an object, which no file holds"),
}


def kind_of(name):
    return getattr(diffusers, f"{name}Scheduler")


def known(kind):
    return set(inspect.signature(kind.__init__).parameters) - {"self"}


def variants(kind):
    """One setting changed at a time, and some together, as far as the scheduler can be so."""
    single = [{name: v} for name, values in SETTINGS.items() for v in values]
    defaults = {n: p.default for n, p in inspect.signature(kind.__init__).parameters.items()}
    for changed in [{}, *single, *TOGETHER]:
        if not set(changed) <= known(kind) or (changed and changed.items() <= defaults.items()):
            continue
        try:
            yield changed, kind(**changed)
        except (NotImplementedError, ValueError):
            continue


def by_hand(scheduler, unet, steps):
    """The loop of diffusers' pipelines, in float64, before the image is clamped for PIL."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    draws, accepted = generators(), inspect.signature(scheduler.step).parameters
    shape = 1, unet.config.in_channels, 8, 8
    x = torch.cat([torch.randn(shape, generator=g, dtype=torch.float64) for g in draws])
    x = x * scheduler.init_noise_sigma
    for k, t in enumerate(scheduler.timesteps):
        following = scheduler.timesteps[k + 1 :]
        further = {
            "generator": draws,
            "prev_timestep": following[0] if len(following) else None,
            "use_clipped_model_output": True,
        }
        further = {name: value for name, value in further.items() if name in accepted}
        with torch.no_grad():
            out = unet(scheduler.scale_model_input(x, t), t).sample
        if "variance_type" not in vars(scheduler):  # or SA draws as much noise for the variance
            out = out[:, : x.shape[1]]
        x = scheduler.step(out, t, x, **further).prev_sample
    return x


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of a UNet, and of one that learned a variance."""
    return {
        channels: write(tmp_path_factory.mktemp(f"unet{channels}"), out_channels=channels)
        for channels in (3, 6)
    }


def backend_of(folders, scheduler):
    """A model with the scheduler that a file of it gives, in float64."""
    learned = scheduler.config.get("variance_type") == "learned_range"
    folder = folders[6 if learned else 3]
    scheduler.save_pretrained(folder / "scheduler")
    backend = load(folder)
    return dataclasses.replace(backend, unet=backend.unet.double(), dtype=torch.float64)


def between(backend, scheduler, steps=STEPS):
    """The difference between this library's images and diffusers', in units of the image."""
    ours = Sampler(backend, num_inference_steps=steps).sample(seeds=SEEDS).x
    theirs = by_hand(scheduler, backend.unet, steps)
    assert theirs[0].sub(theirs[1]).abs().mean() > 0.05  # the seeds matter
    return (ours - theirs).abs().max().item() / max(1.0, theirs.std().item())


UNKNOWN = {
    "EulerAncestralDiscrete": {"sample"},
    "KDPM2AncestralDiscrete": {"sample", "squaredcos_cap_v2"},
    "KDPM2Discrete": {"sample"},
    "PNDM": {"sample"},
    "UnCLIP": {"v_prediction", "fixed_small", "fixed_large"},
}
"""What a scheduler takes as a setting and cannot do: a step raises, or its times are NaN."""
ON_PURPOSE = {"DDIM": {"trailing", "linspace"}}
"""Which tests of test_diffusers_backend show."""
LOOSE = {
    "HeunDiscrete": 3e-5,  # of steps from a sigma of 14
    # With Karras' sigmas they round every second time up past the one before.
    **dict.fromkeys(("KDPM2AncestralDiscrete", "KDPM2Discrete"), 1e-3),
}


@pytest.mark.parametrize("name", DRIVEN)
def test_every_setting_is_honoured(folders, name):
    other = UNKNOWN.get(name, set()) | ON_PURPOSE.get(name, set())
    for changed, scheduler in variants(kind_of(name)):
        if other & {str(value) for value in changed.values()}:
            continue
        if name == "UniPCMultistep" and changed == {"lower_order_final": False}:
            continue
        difference = between(backend_of(folders, scheduler), scheduler)
        loose = name == "HeunDiscrete" or "use_karras_sigmas" in changed
        assert difference < (LOOSE.get(name, 1e-5) if loose else 1e-5), changed


def test_no_setting_of_diffusers_is_overlooked():
    """A new one of a new diffusers fails here, until it is tried or told of."""
    tried = {*SETTINGS, *ELSEWHERE, *(name for together in TOGETHER for name in together)}
    for name in DRIVEN:
        assert known(kind_of(name)) <= tried, name


@pytest.mark.parametrize("name", UNKNOWN)
def test_predictions_that_a_scheduler_does_not_take_are_refused_when_loaded(folders, name):
    for kind in UNKNOWN[name] & {"sample", "v_prediction"}:
        scheduler = kind_of(name)(prediction_type=kind)
        if "clip_sample" in known(kind_of(name)):
            continue  # it is handed the clipped image, and need not read the network's output
        with pytest.raises(ValueError, match=f"{name}Scheduler knows no prediction_type='{kind}'"):
            backend_of(folders, scheduler)


def test_a_last_time_other_than_the_image_s_is_honoured(folders):
    """The default DDIM was off by .0017 here."""
    scheduler = DDIMScheduler(set_alpha_to_one=False)
    backend = backend_of(folders, scheduler)
    assert between(backend, scheduler) < 1e-6
    ours = dataclasses.replace(backend, default_solver=DDIM())
    assert between(ours, scheduler) > 1e-5
    assert backend_of(folders, DDIMScheduler()).default_solver == DDIM()


def test_a_word_of_another_scheduler_in_the_file_changes_nothing(folders):
    """``from_config`` keeps all that stood in the other's."""
    scheduler = EulerDiscreteScheduler.from_config(
        DDPMScheduler(clip_sample=True, thresholding=True).config
    )
    assert scheduler.config.clip_sample
    assert scheduler.config.thresholding
    backend = backend_of(folders, scheduler)
    assert backend.clip is None
    assert between(backend, scheduler) < 1e-6


def test_a_scheduler_thresholds_once(folders):
    """In the backend, for any solver; not again in the solver, where it thresholds what is."""
    scheduler = kind_of("DPMSolverSinglestep")(thresholding=True, sample_max_value=1.5)
    backend = backend_of(folders, scheduler)
    assert not backend.default_solver.scheduler.config.thresholding
    assert between(backend, scheduler) < 1e-5


def test_logarithms_of_variances_are_those_variances(folders):
    """fixed_large_log is NaN in diffusers: it takes the square root of a logarithm."""
    for kind in (DDPMScheduler, DDPMParallelScheduler):
        backend = backend_of(folders, kind(variance_type="fixed_large_log"))
        assert backend.default_solver == DDPM("fixed_large")


@pytest.mark.parametrize("solver", [EDMEulerScheduler, FlowMatchEulerDiscreteScheduler])
def test_learned_time_embeddings_are_asked_for_their_nearest_time(tmp_path, solver):
    """Schedulers of other paths ask at times between the first and the image's."""
    write(tmp_path, time_embedding_type="learned", num_train_timesteps=1000)
    backend, seen = load(tmp_path), []
    backend.unet.time_proj.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    sampler = Sampler(backend, [], DiffusersSolver(solver()), 30)
    assert sampler.times[-2] < -0.5
    assert sampler.sample().x.isfinite().all()
    assert torch.cat(seen).tolist() == [max(0, round(t)) for t in sampler.times[:-1]]


@pytest.mark.parametrize("walker", [Langevin(1), LanPaint(torch.zeros(3, 8, 8), torch.ones(8, 8))])
@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler(set_alpha_to_one=False),
        DDPMScheduler(),
        EulerAncestralDiscreteScheduler(),
        EulerDiscreteScheduler(use_karras_sigmas=True),
        UnCLIPScheduler(),
        UniPCMultistepScheduler(use_karras_sigmas=True, beta_schedule="squaredcos_cap_v2"),
    ],
    ids=lambda s: type(s).__name__,
)
def test_a_model_s_own_scheduler_walks(folders, scheduler, walker):
    backend = backend_of(folders, scheduler)
    result = Sampler(backend, [walker], num_inference_steps=4).sample(seeds=[0])
    assert result.stats.calls == 4 + 3 * walker.steps
    assert result.x.isfinite().all()


@pytest.mark.parametrize("kind", [KDPM2DiscreteScheduler, PNDMScheduler])
def test_a_model_s_own_scheduler_of_several_evaluations_says_that_it_cannot_walk(folders, kind):
    backend = backend_of(folders, kind())
    with pytest.raises(ValueError, match=r"several times a step .* use Heun\(\)"):
        Sampler(backend, [Langevin(1)], num_inference_steps=6).sample()


def test_betas_of_1_before_the_last_are_refused(folders):
    """Without a signal no step is defined; they were divisions by zero in the first step."""
    betas = [0.1] * 5 + [1.0] + [0.1] * 4
    with pytest.raises(ValueError, match="make every beta but the last less than 1"):
        backend_of(folders, DDPMScheduler(num_train_timesteps=10, trained_betas=betas))
    last = DDPMScheduler(num_train_timesteps=10, trained_betas=[0.1] * 9 + [1.0])
    x = Sampler(backend_of(folders, last), [], DDIM(1.0), 10).sample().x
    assert x.isfinite().all()


def test_times_that_are_not_those_of_the_levels_are_not_taken(folders):
    """Of log_linear levels diffusers tells the network the times of linear ones."""
    backend = backend_of(folders, EulerDiscreteScheduler(interpolation_type="log_linear"))
    plan, sampler = EulerDiscreteScheduler(interpolation_type="log_linear"), Sampler(backend)
    plan.set_timesteps(20)
    levels = [backend.schedule.noise_level(t) for t in sampler.times[:-1]]
    assert levels == pytest.approx([float(s / (1 + s)) for s in plan.sigmas[:20]], abs=1e-6)
    assert max(abs(t - s) for t, s in zip(sampler.times, plan.timesteps, strict=False)) > 100


def test_ipndm_and_its_kind_have_no_betas_to_read(folders):
    IPNDMScheduler().save_pretrained(folders[3] / "scheduler")
    with pytest.raises(ValueError, match="IPNDMScheduler .* use a DDPMScheduler"):
        load(folders[3])
