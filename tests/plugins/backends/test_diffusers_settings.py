"""Every setting of every scheduler that load_backend("diffusers") reads: as diffusers' own loop
has it, in float64."""

import inspect

import diffusers
import pytest
import torch
from scheduled_unet import backend_of, between, folders_in

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


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return folders_in(tmp_path_factory)


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
