"""Recipes that version 0.1 wrote are read, and say the same when they are written again."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import mixture
from PIL import Image
from safetensors.torch import load

import composer
from composer import Sampler, UnknownNameError
from composer.recipes import describe
from composer.recipes.schedulers import SCHEDULERS
from composer.schedules import DiscreteSchedule

pytestmark = pytest.mark.filterwarnings("ignore:Recipe. composer '0.1.0' wrote it")
FOLDER = Path(__file__).parent / "recipes_0_1"
FILES = sorted(FOLDER.glob("*.json"))


def old(name):
    return json.loads((FILES[0].parent / f"{name}.json").read_text())


class Upscaler:
    """What the recipe of ``super_resolution`` needs of a model of DeepFloyd's second stage."""

    def __init__(self):
        self.model = mixture(shape=(3, 32, 32))
        self.low_res_schedule = DiscreteSchedule.linear()

    def __getattr__(self, name):
        return getattr(self.model, name)

    def encode(self, condition):
        return condition


OWN = {"super_resolution": Upscaler}


def read(name):
    return Sampler.from_recipe(old(name), backend=OWN[name]() if name in OWN else None)


def values(node):
    """The numbers of a picture or a tensor, whatever holds them: masks may be of bool or float."""
    if "tensor" in node:
        return load(base64.b64decode(node["tensor"]))[""].double().flatten()
    picture = Image.open(io.BytesIO(base64.b64decode(node["image"])))
    return torch.from_numpy(np.asarray(picture) / 255).flatten()


def lost(before, after, place="recipe"):
    """The places at which a recipe says something that another does not."""
    if isinstance(before, dict) and isinstance(after, dict):
        if isinstance(before.get("image") or before.get("tensor"), str):
            return [] if torch.equal(values(before), values(after)) else [place]
        kept = {k: v for k, v in before.items() if not k.startswith("_")}  # diffusers' remarks
        missing = [f"{place}/{key}" for key in kept.keys() - after.keys()]
        shared = kept.keys() & after.keys()
        return missing + [p for k in shared for p in lost(kept[k], after[k], f"{place}/{k}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [p for i, (b, a) in pairs for p in lost(b, a, f"{place}/{i}")]
    return [] if before == after and type(before) is type(after) else [place]


@pytest.mark.parametrize("name", [file.stem for file in FILES])
def test_an_old_recipe_is_read_and_means_the_same(name):
    recipe, sampler = old(name), read(name)
    again = describe(sampler.stack, sampler.max_rows, **composer.call_of(recipe))
    ignored = {"composer", "backend"} if name in OWN else {"composer"}
    assert lost({k: v for k, v in recipe.items() if k not in ignored}, again) == []


def test_every_name_of_version_0_1_is_known_and_in_an_old_recipe():
    kept = "".join(file.read_text() for file in FILES)
    for line in (FOLDER / "names.txt").read_text().splitlines():
        kind, name = line.split()
        assert (kind, name) in composer.installed().offers
        assert f'"{kind}": "{name}"' in kept or f'"{name}"' in kept, (kind, name)


def test_the_list_of_schedulers_is_what_diffusers_solver_drives():
    import diffusers
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    from composer.solvers import DiffusersSolver

    driven = set()
    for name in dir(diffusers):
        kind = getattr(diffusers, name) if name.endswith("Scheduler") else None
        if isinstance(kind, type) and issubclass(kind, SchedulerMixin):
            try:
                DiffusersSolver(kind())
            except (TypeError, ValueError):
                continue
            driven.add(name)
    there = {name for name in SCHEDULERS if hasattr(diffusers, name)}
    assert driven == there


def test_a_scheduler_that_is_not_listed_raises_before_diffusers_is_asked():
    for name in ("ScoreSdeVeScheduler", "StableDiffusionPipeline", "os", "", None, [], 3):
        solver = {"solver": "diffusers", "options": {"scheduler": {"scheduler": name}}}
        with pytest.raises(UnknownNameError, match="Unknown scheduler"):
            Sampler.from_recipe({**old("plain"), "solver": solver})


def test_a_setting_that_the_scheduler_lacks_is_left_out_with_a_warning():
    config = {"num_train_timesteps": 500, "from_the_future": 1, "_class_name": "EulerScheduler"}
    scheduler = {"scheduler": "DDIMScheduler", "config": config}
    solver = {"solver": "diffusers", "options": {"scheduler": scheduler}}
    with pytest.warns(UserWarning, match=r"DDIMScheduler .* has no settings \['from_the_future'\]"):
        sampler = Sampler.from_recipe({**old("plain"), "solver": solver})
    assert sampler.solver.scheduler.config.num_train_timesteps == 500


def test_a_recipe_of_another_minor_version_comes_with_a_warning(recwarn):
    ours = composer.__version__
    major, minor, _ = ours.split(".")
    for same in (ours, f"{major}.{minor}.99", None):
        Sampler.from_recipe({**old("plain"), "composer": same})
    assert not recwarn.list
    older, newer, later = "0.1.0", f"{major}.{int(minor) + 7}.0", f"{int(major) + 1}.{minor}.0"
    for other in (older, newer, later, "x" * 5000):
        with pytest.warns(UserWarning, match=f"wrote it, and composer '{ours}' reads it") as caught:
            Sampler.from_recipe({**old("plain"), "composer": other})
        assert len(str(caught[0].message)) < 300
        assert caught[0].filename == __file__


def test_old_tensors_are_the_same_numbers():
    region = read("repaint").plugins[0]
    assert torch.equal(region.image, torch.linspace(-1, 1, 784).reshape(1, 28, 28))
