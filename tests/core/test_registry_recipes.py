import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import mixture
from diffusers import DPMSolverMultistepScheduler
from PIL import Image

import composer
from composer import (
    UNCONDITIONAL,
    Register,
    Sampler,
    Transform,
    UnknownNameError,
    hookimpl,
)
from composer import registry as registry_module
from composer.solvers import DDIM, DiffusersSolver
from composer_plugins import CFG, Anagram, Hybrid, Inpaint, SDEdit
from composer_plugins.transforms import Flip, Skew


def same_again(sampler, condition=None, seeds=(3,)):
    result = sampler.sample(condition, seeds)
    recipe = json.loads(json.dumps(result.recipe))
    again = Sampler.from_recipe(recipe).sample(**composer.call_of(recipe))
    assert torch.equal(again.x, result.x)
    assert again.recipe == recipe
    return recipe


@pytest.fixture(scope="module")
def backend():
    return composer.load_backend("mnist-ddpm")


@pytest.mark.parametrize(
    "plugins",
    [
        [CFG(2.0, interval=(0.1, 0.9))],
        [Anagram({"identity": Hybrid(1, 2), Flip("horizontal"): 3, Skew(20): 4}), CFG(3.0)],
        [SDEdit(torch.zeros(1, 28, 28), i_start=1)],
        [Inpaint(Image.new("L", (28, 28), 99), torch.eye(28), "clean"), CFG(2.0)],
    ],
)
def test_a_recipe_makes_the_same_call_again(backend, plugins):
    condition = None if isinstance(plugins[0], Anagram) else 5
    same_again(Sampler(backend, plugins, num_inference_steps=2), condition)


@pytest.mark.parametrize("solver", [DDIM(0.5), DiffusersSolver(DPMSolverMultistepScheduler())])
def test_solvers_are_in_the_recipe(backend, solver):
    recipe = same_again(Sampler(backend, solver=solver, num_inference_steps=2), UNCONDITIONAL)
    assert recipe["call"] == {"condition": {"unconditional": True}, "seeds": [3]}


class Unregistered:
    @hookimpl
    def post_step(self, state): ...


def test_what_is_unregistered_is_refused(backend):
    result = Sampler(backend, [Unregistered()], num_inference_steps=1).sample(1)
    with pytest.raises(LookupError, match="Recipe: 'Unregistered' is not registered"):
        Sampler.from_recipe(result.recipe)
    result = Sampler(mixture(), num_inference_steps=1).sample(1)
    with pytest.raises(LookupError, match="backend 'GaussianMixtureBackend' is not registered"):
        Sampler.from_recipe(result.recipe)


@pytest.mark.parametrize(
    "change",
    [
        {"backend": {"name": "mnst"}},
        {"plugins": [{"plugin": "os.system", "options": {}}]},
        {"solver": {"scheduler": "AutoModel", "config": {}}},
        {"plugins": [{"plugin": "anagram", "options": {"views": {"pairs": [["flop", 1]]}}}]},
    ],
)
def test_a_recipe_that_names_anything_else_is_refused(backend, change):
    recipe = Sampler(backend, num_inference_steps=1).sample(1).recipe
    with pytest.raises(LookupError):
        Sampler.from_recipe({**recipe, **change})


@pytest.mark.parametrize("bad", [{}, [], "recipe", {"backend": {"name": "mnist"}}])
def test_what_is_no_recipe_is_refused(bad):
    with pytest.raises(ValueError, match="Recipe: it must be a dict with the keys"):
        Sampler.from_recipe(bad)


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Unknown backend 'mnits'. Did you mean mnist"):
        composer.load_backend("mnits")
    with pytest.raises(LookupError, match="Unknown transform 'zzz'. Known: .*, flip, "):
        composer.get_transform("zzz")


def test_the_fixed_names_are_registered():
    offers = composer.installed().offers
    for kind, names in {
        "plugin": "cfg anagram hybrid inpaint sdedit",
        "backend": "mnist mnist-ddpm",
        "transform": "identity flip rotate_180 rotate_cw rotate_ccw skew negative patch_permute "
        "pixel_permute jigsaw inner_circle square_hinge",
        "solver": "euler ddim ddpm heun dpm_pp diffusers",
    }.items():
        for name in names.split():
            assert offers[kind, name].description


class Shift(Transform):
    """A third party's view."""

    def __call__(self, x):
        return x.roll(1, -1)

    def inverse(self, x):
        return x.roll(-1, -1)


def entry(name, load, distribution="third-party"):
    return SimpleNamespace(
        name=name, load=load, dist=SimpleNamespace(name=distribution, version="1.2")
    )


class Good:
    @staticmethod
    @hookimpl
    def register_plugins(register):
        register.transform("shift", Shift)


class Clashing:
    @staticmethod
    @hookimpl
    def register_plugins(register):
        register.transform("shift", Shift)
        register.plugin("cfg", CFG)


def fail():
    raise ImportError("no module named numpyy")


@pytest.fixture
def packages(monkeypatch):
    real = registry_module.entry_points

    def install(*entries):
        monkeypatch.setattr(
            registry_module, "entry_points", lambda group: [*real(group=group), *entries]
        )
        return registry_module.installed.__wrapped__()

    return install


def test_a_third_party_offers_names_and_a_broken_one_breaks_nothing(packages):
    registry = packages(
        entry("good", lambda: Good), entry("broken", fail), entry("clash", lambda: Clashing)
    )
    errors = {p.name: p.error for p in registry.packages}
    assert errors["builtin"] is None
    assert errors["good"] is None
    assert errors["broken"] == "ImportError: no module named numpyy"
    # All or nothing: the clash is refused whole.
    assert (
        "cfg' is already offered by diffusion-composer" in errors["clash"]
        or "shift" in errors["clash"]
    )
    assert registry.find("transform", "shift").factory is Shift
    assert registry.find("plugin", "cfg").factory is CFG


def test_what_came_with_the_library_is_first_whatever_the_name_of_another(packages):
    registry = packages(entry("aaa", lambda: Clashing))
    assert registry.find("plugin", "cfg").factory is CFG
    errors = {p.name: p.error for p in registry.packages}
    assert errors["builtin"] is None
    assert "cfg' is already offered by diffusion-composer" in errors["aaa"]


def test_packages_that_leave_or_offer_nothing_are_rows_with_an_error(packages):
    registry = packages(entry("leaves", sys.exit), entry("empty", SimpleNamespace))
    errors = {p.name: p.error for p in registry.packages}
    assert errors["leaves"].startswith("SystemExit")
    assert "offers nothing. Mark register_plugins" in errors["empty"]


class MuteError(Exception):
    """Says nothing, not even when asked."""

    def __str__(self):
        raise RuntimeError("no words")


class Beyond(BaseException):
    """No Exception, as pytest's Skipped and asyncio's CancelledError."""


def raising(error):
    def load():
        raise error

    return load


class Shy:
    """Raises when its hook is called, one name offered."""

    @hookimpl
    def register_plugins(self, register):
        register.transform("half", Shift)
        raise Beyond("not now")


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (raising(MuteError()), "MuteError: its message cannot be shown"),
        (raising(Beyond("far away")), "Beyond: far away"),
        (raising(GeneratorExit()), "GeneratorExit: "),
        (raising(SystemExit(9)), "SystemExit: 9"),
        (raising(ValueError("x" * 10**6)), "ValueError: xxxxx"),
        (raising(ValueError("\ud800")), "ValueError: ?"),
        (raising(MemoryError()), "MemoryError: "),
        (Shy, "Beyond: not now"),
    ],
)
def test_whatever_a_package_raises_is_its_row_and_nothing_else(packages, load, words):
    registry = packages(entry("bad", load), entry("good", lambda: Good))
    errors = {p.name: p.error for p in registry.packages}
    assert errors.pop("bad").startswith(words)
    assert set(errors.values()) == {None}
    assert all(len(p.error or "") < 1000 for p in registry.packages)
    assert registry.find("transform", "shift").factory is Shift
    assert ("transform", "half") not in registry.offers  # all or nothing


def test_ctrl_c_is_no_package_s(packages):
    with pytest.raises(KeyboardInterrupt):
        packages(entry("slow", raising(KeyboardInterrupt())))


class Damaged:
    """A distribution without metadata."""

    @property
    def name(self):
        raise TypeError("no METADATA")

    version = name


def test_a_package_without_metadata_is_a_row(packages):
    bad = SimpleNamespace(name="bad", load=lambda: Good, dist=Damaged())
    row = next(p for p in packages(bad).packages if p.name == "bad")
    assert row.distribution == row.version == "unknown"
    assert row.error == "TypeError: no METADATA"


def test_what_a_package_prints_while_it_loads_goes_to_stderr(packages, capsys):
    packages(entry("loud", lambda: print("hello") or Good))
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello\n")


def test_an_allow_list_chooses_what_is_loaded(packages, monkeypatch):
    monkeypatch.setenv("COMPOSER_PLUGINS", "")
    assert packages(entry("good", lambda: Good)).packages == ()
    monkeypatch.setenv("COMPOSER_PLUGINS", "good")
    assert [p.name for p in packages(entry("good", lambda: Good)).packages] == ["good"]


def test_a_name_is_offered_once():
    register = Register("someone")
    register.plugin("cfg", CFG)
    with pytest.raises(ValueError, match="plugin 'cfg' is already offered by"):
        composer.installed().with_offers(register)


@pytest.mark.parametrize(
    ("name", "factory", "words"),
    [
        (None, Flip, "must be a word, got None"),
        ("", Flip, "must be a word, got ''"),
        ("five", 5, "'five' must be a class, .* got 5"),
    ],
)
def test_what_is_no_offer_is_refused(name, factory, words):
    register = Register("someone")
    with pytest.raises(TypeError, match=words):
        register.transform(name, factory)
    assert not register.offers


def test_an_own_registry_serves_a_recipe(backend):
    register = Register("me")
    register.transform("shift", Shift)
    registry = composer.installed().with_offers(register)
    recipe = Sampler(backend, [Anagram({"identity": 1})], num_inference_steps=1).sample().recipe
    view = {"transform": "shift", "options": {}}
    recipe["plugins"][0]["options"]["views"] = {"pairs": [[view, 1]]}
    sampler = Sampler.from_recipe(recipe, registry)
    assert isinstance(next(iter(sampler.plugins[0].views)), Shift)


@pytest.mark.parametrize(
    "plugins",
    [
        [{"plugin": "cfg", "options": {"scael": 2.0}}],
        [{"plugin": "cfg", "options": []}],
        [{"plugin": "cfg", "options": {"scale": {"tensor": "AAAA"}}}],
        [{"plugin": "sdedit", "options": {"image": {"image": "AAAA"}}}],
        [{"pairs": 3}],
    ],
)
def test_a_malformed_recipe_is_a_sentence(backend, plugins):
    recipe = Sampler(backend, num_inference_steps=1).sample(1).recipe
    with pytest.raises(ValueError, match="^Recipe: "):
        Sampler.from_recipe({**recipe, "plugins": plugins})


def test_a_recipe_without_its_call_says_so():
    for bad in ({}, None, {"call": [1]}):
        with pytest.raises(ValueError, match="no call with condition and seeds"):
            composer.call_of(bad)


def test_numbers_of_numpy_are_written_as_numbers(backend):
    plugins = [CFG(np.float32(2.0))]
    recipe = Sampler(backend, plugins, num_inference_steps=1).sample(np.int64(3)).recipe
    assert recipe["call"]["condition"] == 3
    assert Sampler.from_recipe(json.loads(json.dumps(recipe))).plugins[0].scale == 2.0
