"""What a recipe from a stranger opens, and what the caller allows with ``trust=``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import mixture
from PIL import Image

import composer
from composer import Register, Sampler, hookimpl
from composer.solvers import Heun
from composer_plugins import CFG, Particles

OLD = Path(__file__).parent / "recipes_0_1"
PLAIN = json.loads((OLD / "plain.json").read_text())

# Runs in a process of its own, for an audit hook cannot be removed. It prints what reading each
# recipe did that may be seen from outside: files, names, processes, modules.
SPY = """
import json, sys
import composer, composer_plugins
from composer import Sampler

composer.installed()
import composer.pictures
for name in ("mnist", "mnist-ddpm", "nouns"):
    composer.load_backend(name)  # what the first picture and the first weights import
seen = None
WATCHED = ("open", "import", "os.", "shutil.", "socket.", "subprocess.", "tempfile.", "glob.",
           "urllib.", "http.", "ctypes.", "pathlib.", "webbrowser.")

def hook(event, arguments):
    if seen is not None and event.startswith(WATCHED):
        seen.append([event, str(arguments[0]) if arguments else ""])

sys.addaudithook(hook)
for recipe in json.load(sys.stdin):
    seen, said = [], ""
    try:
        sampler = Sampler.from_recipe(recipe)
        composer.call_of(recipe)
    except Exception as error:
        said = type(error).__name__ + ": " + str(error)
    found, seen = seen, None
    print(json.dumps({"seen": found, "said": said}))
"""


def watched(recipes):
    """What reading each recipe did, and what it raised."""
    done = subprocess.run(
        [sys.executable, "-c", SPY],
        input=json.dumps(recipes),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return list(zip(recipes, lines, strict=True))


def with_backend(name, **options):
    return {**PLAIN, "backend": {"name": name, "options": options}}


def with_plugin(name, **options):
    return {**PLAIN, "plugins": [{"plugin": name, "options": options}]}


def with_scheduler(name, **config):
    scheduler = {"scheduler": name, "config": config}
    return {**PLAIN, "solver": {"solver": "diffusers", "options": {"scheduler": scheduler}}}


def hostile(place):
    """Recipes that name ``place``, a file or a folder or a model, wherever one could."""
    score = {"score": "reads_as", "options": {"views": {"pairs": [[place, 3]]}}}
    return [
        with_backend("mnist", weights=place),
        with_backend("mnist-ddpm", weights=place, dtype="float16"),
        with_backend("nouns", weights=place),
        with_backend("with_weak", weak_weights=place),
        with_backend("with_weak", main="deepfloyd"),
        with_backend("with_weak", weak="diffusers"),
        with_backend("diffusers", model=place),
        with_backend("diffusers", model=place, use_safetensors=False),
        with_backend("diffusers", model=place, revision="main", scheduler=place),
        with_backend("deepfloyd"),
        with_backend("deepfloyd", model=place),
        with_backend("deepfloyd", embeddings=place, local_files_only=True),
        with_backend("deepfloyd", stage=3),
        with_backend(place),
        with_backend("mnist", device=place),
        with_backend("mnist", dtype=place),
        with_plugin("sdedit", image=place),
        with_plugin("inpaint", image=place, mask=place),
        with_plugin("lanpaint", image=place, mask=place),
        with_plugin("reference", image=place),
        with_plugin("super_resolution", image=place),
        with_plugin("ddnm", measurement=place, operator={"decomposition": "gray"}),
        with_plugin("components", parts={"decomposition": "masks", "options": {"masks": [place]}}),
        with_plugin("anagram", views={"pairs": [[place, 1]]}),
        with_plugin("particles", score=score),
        with_plugin("particles", score=place),
        with_plugin(place),
        with_scheduler(place),
        with_scheduler("ScoreSdeVeScheduler"),
        with_scheduler("StableDiffusionPipeline"),
        {**PLAIN, "solver": place},
        {**PLAIN, "plugins": place},
        {**PLAIN, "backend": place},
        {**PLAIN, "call": place},
    ]


@pytest.fixture(scope="module")
def spied(tmp_path_factory):
    """(recipe, what was seen) of hostile recipes, and of others."""
    place = tmp_path_factory.mktemp("hostile")
    picture, folder = place / "there.png", place / "folder"
    Image.new("L", (28, 28)).save(picture)
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    places = (str(picture), str(folder), str(place / "nowhere"), "owner/name", "~/.cache")
    enemies = [recipe for place in places for recipe in hostile(place)]
    friends = [PLAIN, with_scheduler("DDIMScheduler", num_train_timesteps=500)]
    friends += [json.loads((OLD / f"{name}.json").read_text()) for name in ("inpaint", "repaint")]
    lines = watched([*enemies, *friends])
    return lines[: len(enemies)], lines[len(enemies) :]


def test_a_hostile_recipe_opens_resolves_imports_and_writes_nothing(spied):
    for recipe, line in spied[0]:
        others = [(event, name) for event, name in line["seen"] if not is_harmless(event, name)]
        assert not others, recipe
        error, _, sentence = line["said"].partition(": ")
        assert error in ("ValueError", "TypeError", "LookupError", "UnknownNameError"), line
        assert 0 < len(sentence) < 1500


def test_a_recipe_without_an_enemy_opens_the_shipped_weights_alone(spied):
    for _, line in spied[1]:
        assert line["said"] == ""
        more = {"diffusers", "scipy", "defusedxml"}  # what a scheduler and a picture need
        others = [(e, name) for e, name in line["seen"] if not is_harmless(e, name, more)]
        assert not others
        assert any(name.endswith("path.json") for _, name in line["seen"])  # of the weights


OWN = ("composer", "composer_plugins", "PIL", "safetensors", "numpy")
LIBRARY = Path(composer.__file__).parent.parent
PLACES = (LIBRARY / "composer", LIBRARY / "plugins", Path(sys.prefix), Path(sys.base_prefix))


def is_harmless(event, name, more=()):
    """Whether an event imports a module of the list or of Python, or reads a file of a package."""
    if event == "import":
        return name.partition(".")[0] in {*OWN, *more, *sys.stdlib_module_names}
    path = Path(name)
    return event in ("open", "os.listdir") and any(path.is_relative_to(place) for place in PLACES)


def test_messages_do_not_tell_whether_a_path_exists(tmp_path):
    there, nowhere = tmp_path / "aaaaa", tmp_path / "bbbbb"
    there.mkdir()
    for one, other in zip(hostile(str(there)), hostile(str(nowhere)), strict=True):
        assert said(one).replace("aaaaa", "bbbbb") == said(other)


def said(recipe):
    try:
        Sampler.from_recipe(recipe)
        composer.call_of(recipe)
    except (ValueError, TypeError, LookupError) as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("it was read")


@pytest.fixture
def registry():
    """With a backend that declares one of its options safe, and one that declares nothing."""
    loaded = []

    def load(size=8, place="", **others):
        loaded.append((size, place))
        return mixture(shape=(1, size, size))

    def undeclared(size=8):
        return load(size, "undeclared")

    register = Register("me")
    register.backend("declared", load, safe_options=("size",))
    register.backend("undeclared", undeclared)
    registry = composer.installed().with_offers(register)
    return registry, loaded


def test_trust_names_what_a_recipe_may_set(registry):
    registry, loaded = registry
    safe, place = with_backend("declared", size=6), with_backend("declared", size=6, place="x")
    assert Sampler.from_recipe(safe, registry).backend.shape == (1, 6, 6)
    for allowed in ("place", ["place"], {"place", "other"}, True, "backend", ["backend"]):
        loaded.clear()
        Sampler.from_recipe(place, registry, trust=allowed)
        assert loaded == [(6, "x")]
    loaded.clear()
    for other in ((), False, None, "size", ["plac"], "declared"):
        with pytest.raises(
            ValueError, match=r"sets place of backend 'declared'.*trust=\['place'\]"
        ):
            Sampler.from_recipe(place, registry, trust=other)
    assert not loaded


def test_a_backend_that_declares_nothing_needs_all_the_trust(registry):
    registry, loaded = registry
    for recipe in (with_backend("undeclared"), with_backend("undeclared", size=6)):
        for some in ((), "size"):
            with pytest.raises(ValueError, match="'undeclared' may read files .* trust=True"):
                Sampler.from_recipe(recipe, registry, trust=some)
        assert not loaded
        Sampler.from_recipe(recipe, registry, trust=True)
        assert loaded.pop()


def test_a_package_declares_options_that_there_are():
    with pytest.raises(
        ValueError, match="safe_options of backend 'mine' must be among .* got 'sise'"
    ):
        Register("me").backend("mine", lambda size: mixture(), safe_options=("sise",))


@pytest.mark.parametrize(
    "name", sorted(n for k, n in composer.installed().offers if k == "backend")
)
def test_the_shipped_backends_declare_no_path_and_no_switch_of_loading_safe(name):
    """Written out, so that a new option is looked at: safe are places, dtypes and plain numbers."""
    expected = {
        "mnist": {"device", "dtype", "share"},
        "mnist-ddpm": {"device", "dtype", "share"},
        "mnist-few-step": {"device", "dtype", "share"},
        "mnist-latent": {"device", "dtype"},
        "nouns": {"device", "dtype"},
        "with_weak": set(),
        "canvas": {"size", "overlap", "wrap", "window"},
        "diffusers": {"device", "dtype", "unconditional_label"},
        "deepfloyd": None,
        "latent": None,
        "prx": None,
    }
    safe = composer.installed().find("backend", name).safe_options
    assert (safe if safe is None else set(safe)) == expected[name]


# Objects in place of what the recipe names.


class Metrics:
    """A plugin that no package offers."""

    @hookimpl
    def post_step(self, state): ...


def test_a_backend_of_one_s_own_serves_a_recipe():
    mine = mixture()
    recipe = Sampler(mine, [CFG(2.0)], num_inference_steps=2).sample(1, seeds=[5]).recipe
    with pytest.raises(LookupError, match="'GaussianMixtureBackend' is not registered.*backend="):
        Sampler.from_recipe(recipe)
    again = Sampler.from_recipe(recipe, backend=mine)
    first = Sampler(mine, [CFG(2.0)], num_inference_steps=2).sample(1, seeds=[5])
    assert torch.equal(again.sample(**composer.call_of(recipe)).x, first.x)
    # In place of a registered one too, which then is not loaded, whatever its options.
    own = Sampler.from_recipe(with_backend("deepfloyd", model="owner/name"), backend=mine)
    assert own.backend is mine
    with pytest.raises(TypeError, match=r"load_backend\('mnist'\)"):
        Sampler.from_recipe(PLAIN, backend="mnist")


def test_objects_stand_for_what_is_unregistered():
    def score(x):
        return x.mean((1, 2, 3))

    metrics, mine = Metrics(), mixture()
    stack = [metrics, Particles(score, ((1, 2), (0, 1)))]
    recipe = json.loads(json.dumps(Sampler(mine, stack, Heun(), 2).sample(1).recipe))
    with pytest.raises(LookupError, match="'Metrics' is not registered.*plugins="):
        Sampler.from_recipe(recipe, backend=mine)
    again = Sampler.from_recipe(
        recipe, backend=mine, plugins={"Metrics": metrics, "function": score}
    )
    assert again.plugins[0] is metrics
    assert again.plugins[1].score is score
    other = Metrics()
    by_place = {0: other, "function": score}
    assert Sampler.from_recipe(recipe, backend=mine, plugins=by_place).plugins[0] is other
    assert Sampler.from_recipe(recipe, backend=mine, plugins=[other]).plugins == (other,)
    assert Sampler.from_recipe(recipe, backend=mine, plugins=[]).plugins == ()


@pytest.mark.parametrize(
    ("plugins", "error", "words"),
    [
        (
            {"Metrisc": Metrics()},
            ValueError,
            "plugins= gives 'Metrisc', which the recipe does not contain",
        ),
        ({1: Metrics()}, ValueError, "plugins= must give indices from 0 to 0, .* got 1"),
        ({-1: Metrics()}, ValueError, "indices from 0 to 0, .* got -1"),
        ({1.5: Metrics()}, TypeError, "class names or indices to objects, got 1.5"),
        ("Metrics", TypeError, "plugins must be"),
        (3, TypeError, "plugins must be"),
    ],
)
def test_objects_for_what_is_not_there_raise(plugins, error, words):
    recipe = {**PLAIN, "plugins": [{"plugin": "cfg", "options": {"scale": 2.0}}]}
    with pytest.raises(error, match=words):
        Sampler.from_recipe(recipe, plugins=plugins)
