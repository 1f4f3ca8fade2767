"""Nothing in the loop waits for the device: what a run reads does not grow with its steps."""

import pytest
import torch
from conftest import mixture
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from composer import Sampler, hookimpl
from composer.solvers import DDIM, DDPM, DiffusersSolver, DPMSolverPP, Euler, Heun
from composer.testing.reads import Reads
from composer_plugins import CFG, AdamsBashforth, Anagram, Hybrid, Inpaint, SDEdit, UniPC

IMAGE, MASK = torch.zeros(1, 8, 8), torch.eye(8)
VIEWS = {"identity": 0, "rotate_180": 1}
SOLVERS = {
    "Euler": Euler(),
    "DDIM": DDIM(),
    "DDIM, eta": DDIM(0.5),
    "DDPM": DDPM(),
    "DPM-Solver++": DPMSolverPP(),
    "Heun": Heun(),
    "Adams-Bashforth": AdamsBashforth(3),
    "UniPC": UniPC(3),
    "diffusers' DDIM": DiffusersSolver(DDIMScheduler(clip_sample=False)),
    "diffusers' DPM-Solver": DiffusersSolver(DPMSolverMultistepScheduler()),
    "diffusers' flow": DiffusersSolver(FlowMatchEulerDiscreteScheduler()),
}
STACKS = {
    "CFG": [CFG(3.0)],
    "Anagram": [Anagram(VIEWS, "weighted", [(0.2, 0.8), (0.8, 0.2)]), CFG(3.0)],
    "Anagram, rectified": [CFG(3.0), Anagram(VIEWS, rectification=0.5)],
    "Anagram, alternate": [Anagram(VIEWS, "alternate")],
    "Hybrid": [Hybrid(Anagram(VIEWS), 2), CFG(3.0)],
    "Inpaint": [Inpaint(IMAGE, MASK)],
    "Inpaint, clean": [Inpaint(IMAGE, MASK, "clean")],
    "SDEdit": [SDEdit(IMAGE, 0.9)],
}


def reads(run, *images):
    with Reads(*images) as seen:
        run()
    return seen.counts


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("stack", STACKS)
def test_a_run_reads_once_however_many_its_steps(stack, solver):
    for steps in (3, 4):
        sampler = Sampler(mixture(components=3), STACKS[stack], SOLVERS[solver], steps)
        assert reads(sampler.sample) == {"tolist": 1}


def test_a_stream_reads_at_its_end_and_not_before():
    sampler = Sampler(mixture(), [Anagram(VIEWS), CFG(3.0)], num_inference_steps=4)
    assert reads(lambda: next(sampler.stream())) == {}
    assert reads(lambda: [*sampler.stream()]) == {"tolist": 1}


def test_jumps_read_nothing():
    plugins = [Inpaint(IMAGE, MASK, "repaint", jump_length=2)]
    for steps in (4, 8):
        sampler = Sampler(mixture(), plugins, num_inference_steps=steps)
        assert reads(sampler.sample) == {"tolist": 1}


READING = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.sum() > 0),
    "float": lambda x: float(x.mean()),
    "a branch": lambda x: 1 if x.norm() > 2 else 0,
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "array": lambda x: memoryview(x.numpy()),
    "cpu": lambda x: x.cpu(),
    "equal": lambda x: torch.equal(x, x),
    "allclose": lambda x: torch.allclose(x, x),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "mask": lambda x: x[x > 0],
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
}


class Looks:
    def __init__(self, look):
        self.look = look

    @hookimpl
    def post_step(self, state):
        self.look(state.x)


@pytest.mark.parametrize("look", READING)
def test_what_reads_is_counted_once_a_step(look):
    """The power of the tests above."""
    sampler = Sampler(mixture(), [Looks(READING[look])], num_inference_steps=3)
    assert reads(sampler.sample).total() == 3 + 1


@given(st.sampled_from(sorted(READING)), st.booleans())
def test_tables_are_no_images_and_what_is_given_is(look, given_too):
    table = torch.arange(4.0)
    assert bool(reads(lambda: READING[look](table + 1), *[table] * given_too)) == given_too
