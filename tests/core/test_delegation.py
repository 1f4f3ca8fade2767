"""Objects that delegate by ``__getattr__`` stand for what they delegate to, on every Python.

From 3.12 on isinstance of a runtime protocol asks no ``__getattr__``, so nothing may depend on it.
"""

from pathlib import Path

import pytest
import torch
from conftest import mixture

import composer
import composer_plugins
from composer import Sampler
from composer.arguments import lacking
from composer.authoring import resized
from composer.protocols import Backend, Solver
from composer.solvers import DDIM, DDPM, Euler, Heun
from composer_plugins import CFG, DDNM, Anagram, Bands, BlockMean, Components, SDEdit, Spaced
from composer_plugins.backends.with_weak import WithWeak
from composer_plugins.guidance.autoguidance import Autoguidance

BACKEND = mixture()
SMALL = torch.zeros(1, 1, 4, 4)


class Delegate:
    """Everything that another object has, and nothing of its own."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        if name == "inner":  # of a copy that has none yet
            raise AttributeError(name)
        return getattr(self.inner, name)


def sample(plugins=(), condition=1, solver=None, backend=BACKEND):
    return Sampler(backend, plugins, solver, 4).sample(condition).x


@pytest.mark.parametrize(
    "made",
    [
        lambda d: sample(backend=d(BACKEND)),
        lambda d: sample([Autoguidance(2.0)], backend=WithWeak(d(BACKEND), d(BACKEND))),
        *(lambda d, s=s: sample(solver=d(s)) for s in (Euler(), DDIM(), DDPM(), Heun())),
        lambda d: sample(solver=Spaced(d(DDPM()))),
        lambda d: sample([d(CFG(3.0))]),
        lambda d: sample([d(CFG(3.0)), d(Anagram({"identity": 0, "flip": 1}))], None),
        lambda d: sample([Components(d(Bands()), (0, 1))], None),
        lambda d: sample([DDNM(SMALL, d(BlockMean(2)))]),
    ],
)
def test_a_delegate_makes_the_same_image(made):
    assert torch.equal(made(Delegate), made(lambda thing: thing))


def test_a_delegate_is_resized():
    plugin = SDEdit(torch.zeros(1, 8, 8), strength=0.5)
    assert resized(Delegate(plugin), 16, 16).image.shape[-2:] == (16, 16)
    assert DDNM(SMALL, Delegate(BlockMean(2))).resized(16, 16).operator.factor == 4


@pytest.mark.parametrize(("protocol", "thing"), [(Backend, BACKEND), (Solver, Heun())])
def test_what_an_object_lacks_is_named(protocol, thing):
    members = [name for name in vars(protocol) if name[0] != "_"]
    assert lacking(thing, protocol) == lacking(Delegate(thing), protocol) == []
    assert lacking(object(), protocol) == lacking(type(thing), protocol) == members


def test_no_protocol_of_the_library_answers_isinstance():
    """So that no check can come to depend on it."""
    roots = [Path(package.__file__).parent for package in (composer, composer_plugins)]
    sources = {file: file.read_text() for root in roots for file in root.rglob("*.py")}
    assert [file for file, text in sources.items() if "runtime_checkable" in text] == []
