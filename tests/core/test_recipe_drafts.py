"""A recipe is written when it is asked for, of what the arguments were at the call."""

import copy
import json
import pickle
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import composer
from composer import Register, Sampler, hookimpl
from composer.recipes import decode, draft, encode
from composer.solvers import DiffusersSolver
from composer.testing import IdentityBackend
from composer_plugins import (
    DDNM,
    Anagram,
    Conjunction,
    Inpaint,
    KnownPixels,
    SDEdit,
    Timesteps,
)
from composer_plugins.backends import mnist
from composer_plugins.transforms import Flip


@pytest.fixture(scope="module")
def backend():
    return composer.load_backend("mnist-ddpm")


def draft_of(sampler, condition=None, seeds=(3,)):
    return draft(sampler.stack, sampler.max_rows, condition, seeds)


TENSOR = torch.linspace(-1, 1, 784).reshape(1, 28, 28)
PICTURE = Image.new("L", (28, 28), 99)
ARRAY = np.linspace(-1, 1, 784, dtype=np.float32).reshape(1, 28, 28)
TIMES = [900.0, 400.0]
SCALES = {1: 2.0, 2: -0.5}
SCHEDULER = DDIMScheduler()


def stack_with(kind):
    """(the thing, the arguments of a Sampler that holds it, how to change it)."""
    if kind == "tensor":
        thing = TENSOR.clone()
        return thing, {"plugins": [SDEdit(thing)]}, lambda: thing.fill_(0.5)
    if kind == "tensor that an array shares":  # which no counter of torch's sees
        array = ARRAY.copy()
        thing = torch.from_numpy(array)
        return thing, {"plugins": [SDEdit(thing)]}, lambda: array.fill(0.5)
    if kind == "mask":
        thing = torch.eye(28)
        return thing, {"plugins": [DDNM(TENSOR, KnownPixels(thing))]}, thing.zero_
    if kind == "picture":
        plugin = Inpaint(PICTURE, torch.eye(28))
        thing = plugin.image  # a copy
        return thing, {"plugins": [plugin]}, lambda: thing.putpixel((3, 4), 5)
    if kind == "list":
        thing = list(TIMES)
        return thing, {"solver": Timesteps(thing)}, lambda: thing.__setitem__(1, 300.0)
    if kind == "dict":
        thing = dict(SCALES)
        return thing, {"plugins": [Conjunction(thing)]}, lambda: thing.update({3: 1.0})
    if kind == "views":
        thing = {"identity": 1, Flip(): 2}
        return thing, {"plugins": [Anagram(thing)]}, lambda: thing.pop("identity")
    solver = DiffusersSolver(SCHEDULER)
    change = {"clip_sample": False, "num_train_timesteps": 7}
    return solver, {"solver": solver}, lambda: solver.scheduler.register_to_config(**change)


KINDS = (
    "tensor",
    "tensor that an array shares",
    "mask",
    "picture",
    "list",
    "dict",
    "views",
    "scheduler",
)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_changed_after_the_call_is_not_in_the_recipe(backend, kind):
    _, arguments, change = stack_with(kind)
    sampler = Sampler(backend, num_inference_steps=2, **arguments)
    expected = json.dumps(draft_of(sampler).written())
    result = sampler.sample(seeds=[3])
    change()
    assert json.dumps(result.recipe) == expected
    # The change is one that the next recipe tells of.
    assert json.dumps(draft_of(sampler).written()) != expected


def test_a_call_encodes_no_picture(backend, monkeypatch):
    saved = []
    save = Image.Image.save
    monkeypatch.setattr(Image.Image, "save", lambda *a, **k: (saved.append(1), save(*a, **k))[1])
    sampler = Sampler(backend, [Inpaint(PICTURE, torch.eye(28))], num_inference_steps=1)
    result = sampler.sample(1)
    assert not saved
    assert result.recipe is result.recipe
    assert saved == [1]


def test_a_result_s_recipe_survives_copies_and_pickles(backend):
    thing = TENSOR.clone()
    result = Sampler(backend, [SDEdit(thing)], num_inference_steps=2).sample(1)
    copied, pickled = copy.deepcopy(result), pickle.dumps(result)
    thing.zero_()
    expected = result.recipe
    assert copied.recipe == expected
    assert pickle.loads(pickled).recipe == expected


@dataclass(frozen=True, eq=False)
class Holder:
    """Holds anything."""

    thing: Any = field(default=None)

    @hookimpl
    def post_step(self, state): ...


@pytest.fixture
def registry():
    register = Register("me")
    register.plugin("holder", Holder)
    return composer.installed().with_offers(register)


@pytest.mark.parametrize(
    "thing",
    [
        TENSOR,
        TENSOR.double(),
        TENSOR.bfloat16(),
        TENSOR[:, ::2, 3:],
        torch.tensor(3.0),
        torch.zeros(1, 28, 28)[:1].expand(4, 28, 28),
        torch.tensor([[True, False]]),
        ARRAY,
        ARRAY[:, ::-1],
        ARRAY.astype(">f8"),
        (np.arange(12).reshape(3, 4) * 9).astype(np.uint8),
        None,
        True,
        3,
        -0.5,
        "a word",
        (1, 2.5, None, "x", True),
        tuple(range(1000)),
        ((1, 2), ("a", TENSOR[0, 0])),
        {"a": 1, 2: (3,), None: {}},
    ],
    ids=lambda thing: f"{type(thing).__name__}",
)
def test_values_come_back(registry, thing):
    back = decode(json.loads(json.dumps(encode(Holder(thing), registry))), registry).thing
    assert_same(back, thing)


def assert_same(back, thing):
    if isinstance(thing, torch.Tensor):
        assert back.dtype == thing.dtype
        assert torch.equal(back, thing)
    elif isinstance(thing, np.ndarray):
        assert isinstance(back, np.ndarray)
        assert back.dtype == thing.dtype.newbyteorder("=")
        assert np.array_equal(back, thing)
    elif isinstance(thing, tuple):
        assert len(back) == len(thing)
        for one, other in zip(back, thing, strict=True):
            assert_same(one, other)
    else:
        assert back == thing


def test_what_cannot_be_written_is_unregistered_and_stops_no_call(registry):
    words = {"unregistered": "ndarray"}
    assert encode(Holder(np.array(["words"])), registry)["options"]["thing"] == words


def nest(levels, innermost=6):
    """Each plugin holds the next one twice, so that it has 2^levels places."""
    for _ in range(levels):
        innermost = Anagram({"identity": innermost, "flip": innermost})
    return innermost


def test_a_plugin_that_is_held_often_is_noted_once(registry):
    read = []

    class Counted(Holder):
        def __getattribute__(self, name):
            read.extend([name] * (name == "thing"))
            return super().__getattribute__(name)

    register = Register("me")
    register.plugin("counted", Counted)
    held, levels = 6, 7
    for _ in range(levels):
        held = Counted([held, held])
    encode(held, composer.installed().with_offers(register))
    assert len(read) == 2 * levels  # hasattr and getattr


def test_the_call_of_a_deep_nest_ends_and_its_recipe_is_one_sentence(backend, tmp_path):
    result = Sampler(backend, [nest(20)], num_inference_steps=1).sample(seeds=[3])
    with pytest.raises(ValueError, match=r"^Recipe: it has more than \d+ \w+\. Make it smaller\.$"):
        _ = result.recipe
    with pytest.warns(UserWarning, match="the pictures carry no recipe. Recipe: it has more than"):
        (file,) = result.save(tmp_path / "a.png")
    assert "composer" not in Image.open(file).info


def test_a_recipe_that_is_written_can_be_read(backend):
    for levels in range(1, 12):
        try:
            recipe = draft_of(Sampler(backend, [nest(levels)], num_inference_steps=1)).written()
        except ValueError:
            break
        again = Sampler.from_recipe(json.loads(json.dumps(recipe)), backend=backend)
        assert draft_of(again).written()["plugins"] == recipe["plugins"]
    assert levels > 6


VALUES = st.recursive(
    st.integers(-9, 9) | st.text(max_size=3) | st.just(TENSOR) | st.just(PICTURE),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(VALUES)
def test_a_shared_value_is_written_as_two_equal_values(value):
    register = Register("me")
    register.plugin("holder", Holder)
    registry = composer.installed().with_offers(register)
    shared = encode([Holder(value)] * 2, registry)
    apart = encode([Holder(value), Holder(copy.deepcopy(value))], registry)
    assert shared == apart
    shared[0]["options"]["thing"] = "changed"  # one place alone
    assert shared[1] == apart[1]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pictures_come_back_with_the_way_they_are_held(registry, mode):
    picture = Image.fromarray((np.arange(30 * 20 * 3) % 256).astype("uint8").reshape(30, 20, 3))
    picture = picture.convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)
    picture.getexif()[0x0112] = 6  # lay it on its side
    back = decode(json.loads(json.dumps(encode(Holder(picture), registry))), registry).thing
    assert (back.mode, back.size) == (picture.mode, picture.size)
    assert np.array_equal(np.asarray(back), np.asarray(picture))
    assert back.getexif()[0x0112] == 6


def test_options_of_a_backend_are_written_by_name(tmp_path):
    register = Register("me")
    made = composer.load_backend("mnist")
    register.backend("mine", lambda place, dtype, device, size: copy.copy(made))
    registry = composer.installed().with_offers(register)
    from composer.registry import load_from

    options = {"place": tmp_path, "dtype": torch.float32, "device": torch.device("cpu")}
    backend = load_from(registry, "mine", {**options, "size": (2, 3)})
    written = draft(Sampler(backend).stack).written()["backend"]
    plain = {"place": str(tmp_path), "dtype": "float32", "device": "cpu", "size": [2, 3]}
    assert written == {"name": "mine", "options": plain}


def test_a_backend_with_slots_loads_and_is_named_by_its_class(monkeypatch):
    from composer.registry import load_from

    mixture = IdentityBackend((1, 8, 8))
    names = ("schedule", "prediction", "shape", "device", "dtype", "default_solver")

    class Slotted:
        __slots__ = (*names, "encode", "evaluate")

        def __init__(self):
            for name in self.__slots__:
                setattr(self, name, getattr(mixture, name))

    register = Register("me")
    register.backend("slotted", Slotted)
    backend = load_from(composer.installed().with_offers(register), "slotted", {})
    written = draft(Sampler(backend).stack).written()["backend"]
    assert written == {"unregistered": Slotted.__qualname__}


def test_a_nest_that_python_cannot_follow_samples_and_its_recipe_says_why(backend):
    condition = 3
    for _ in range(400):
        condition = Conjunction({condition: 1.0, 4: 1.0})
    written = draft_of(Sampler(backend), condition)
    with pytest.raises(ValueError, match="Recipe: it has more than 64 levels"):
        written.written()


@pytest.mark.parametrize("one", [torch.tensor(3), torch.tensor(3, dtype=torch.uint8)])
def test_a_tensor_of_one_number_is_that_number_in_a_recipe(backend, one):
    sampler = Sampler(backend, num_inference_steps=1)
    single, several = sampler.sample(one, seeds=[0]), sampler.sample([one, 4], seeds=[0, 1])
    assert single.recipe["call"]["condition"] == 3
    assert several.recipe["call"]["condition"] == {"each": [3, 4]}
    assert single.x.equal(sampler.sample(3, seeds=[0]).x)


def test_a_recipe_does_not_tell_whose_home_a_model_is_in(backend, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(Path(mnist.__file__).parent / "weights" / "flow", tmp_path / "a" / "model")
    mine = composer.load_backend("mnist", weights=str(tmp_path / "a" / "model"))
    recipe = Sampler(mine, num_inference_steps=1).sample(3, seeds=[0]).recipe
    assert recipe["backend"]["options"] == {"weights": "~/a/model"}
    assert str(tmp_path) not in json.dumps(recipe)
    again = Sampler.from_recipe(recipe, trust=["weights"]).sample(**composer.call_of(recipe))
    assert again.recipe == recipe
