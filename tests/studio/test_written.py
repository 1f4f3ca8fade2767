"""Recipes that people write: every fault has a line, a nearest name and the options there are."""

import dataclasses
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from composer import Sampler, call_of, installed
from composer_plugins import CFG, Anagram, Hybrid, Inpaint
from composer_studio.written import (
    WrittenError,
    json_schema,
    library_recipe,
    override,
    read_file,
    read_table,
)
from composer_studio.written.lines import lines_of

RECIPES = sorted((Path(__file__).parents[2] / "examples" / "recipes").glob("*.toml"))


def written(folder, text, name="recipe.toml"):
    file = folder / name
    file.write_text(text)
    return file


def problems(folder, text, name="recipe.toml"):
    with pytest.raises(WrittenError) as caught:
        read_file(written(folder, text, name))
    return [problem.removeprefix(f"{folder}/") for problem in caught.value.problems]


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_an_example_samples(file):
    script = read_file(file, {"steps": 8, "seeds": [5]})
    recipe = library_recipe(script)
    if file.stem == "early-rejection":
        recipe["plugins"][0]["options"]["survivors"] = [[1, 2], [0, 1]]
    result = Sampler.from_recipe(recipe).sample(**call_of(recipe))
    assert result.x.isfinite().all()
    assert (file.parent / "made" / f"{file.stem}.png").is_file()


def test_there_are_eleven_examples():
    assert len(RECIPES) == 11


def test_a_recipe_is_the_stack_that_it_says(tmp_path):
    Image.new("L", (28, 28), 200).save(tmp_path / "photo.png")
    Image.new("L", (28, 28), 255).save(tmp_path / "mask.png")
    text = """
        backend = "mnist"
        steps = 3
        seeds = ["2:4", 9]
        [plugins.anagram]
        views = [["identity", { use = "hybrid", low = 1, high = 2 }], [{ use = "roll" }, 9]]
        [plugins.keep]
        use = "inpaint"
        image = "photo.png"
        mask = "mask.png"
        [plugins.cfg]
        scale = 3
        negative = 4
    """
    recipe = library_recipe(read_file(written(tmp_path, text)))
    sampler = Sampler.from_recipe(recipe)
    anagram, inpaint, cfg = sampler.plugins
    assert isinstance(anagram, Anagram)
    assert isinstance(inpaint, Inpaint)
    assert isinstance(cfg, CFG)
    assert [type(c) for c in anagram.conditions] == [Hybrid, int]
    assert cfg.scale == 3
    assert cfg.negative == 4
    mine = Sampler(
        sampler.backend,
        [
            Anagram(dict(zip(anagram.transforms, (Hybrid(1, 2), 9), strict=True))),
            Inpaint(tmp_path / "photo.png", tmp_path / "mask.png"),
            CFG(3, negative=4),
        ],
        num_inference_steps=3,
    )
    call = call_of(recipe)
    assert call["seeds"] == [2, 3, 9]
    assert sampler.sample(**call).x.equal(mine.sample(**call).x)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'backend = "mnist"\n[plugins.cfg]\nscael = 4\n',
            "recipe.toml:3: plugins.cfg has no option 'scael'. Did you mean scale? It takes scale, "
            "interval, negative.",
        ),
        (
            'backend = "mnist"\n[plugins.anagramm]\nscale = 4\n',
            "recipe.toml:2: plugins.anagramm: Unknown plugin 'anagramm'. Did you mean anagram",
        ),
        (
            'backend = "mnits"\n',
            "recipe.toml:1: backend: Unknown backend 'mnits'. Did you mean mnist or ",
        ),
        (
            '[backend]\nuse = "mnist"\ndevise = "cpu"\n',
            "recipe.toml:3: backend has no option 'devise'. Did you mean device? It takes "
            "weights, device, dtype, share.",
        ),
        (
            'backend = "mnist"\nplugin = 3\n',
            "recipe.toml:2: the recipe has no option 'plugin'. Did you mean plugins? It takes "
            "title, backend, plugins, condition, solver, steps, seeds, max_rows, output.",
        ),
        (
            'backend = "mnist"\nsteps = 2\n[plugins.anagram]\nviews = [\n["identity", 6],\n'
            '[{ use = "skew", max_displacemen = 3 }, 9]]\n',
            "recipe.toml:6: plugins.anagram.views.1.0 has no option 'max_displacemen'. Did you "
            "mean max_displacement? It takes max_displacement, axis.",
        ),
        (
            'backend = "mnist"\n[plugins.hybrid]\nlow = 1\n',
            "recipe.toml:2: plugins.hybrid needs the option 'high'. It takes low, high, sigma.",
        ),
        (
            'backend = "mnist"\n[plugins.cfg]\nscale = "4"\n',
            "recipe.toml:3: plugins.cfg.scale must be a number, got '4'.",
        ),
        (
            'backend = "mnist"\n[plugins.anagram]\nviews = {identity = 1}\nreduction = "men"\n',
            "recipe.toml:4: plugins.anagram.reduction must be 'mean', 'weighted' or 'alternate', "
            "got 'men'.",
        ),
        (
            'backend = "mnist"\nseeds = "0:x"\n',
            'recipe.toml:2: seeds must be such as 7, "0:64" or [1, 5]: seeds must be integers, '
            "got '0:x'.",
        ),
        (
            'backend = "mnist"\nsteps = 0\n',
            "recipe.toml:2: steps must be greater than or equal to 1, got 0.",
        ),
        (
            'title = "x"\n',
            "recipe.toml:1: the recipe needs the option 'backend'. It takes title, "
            "backend, plugins, condition, solver, steps, seeds, max_rows, output.",
        ),
        (
            'backend = "mnist"\n[output]\nsiez = 2\n',
            "recipe.toml:3: output has no option 'siez'. Did you mean size? It takes folder, size, "
            "sheet, animate, best, score.",
        ),
        ("a = 1\nb = \n", "recipe.toml: it cannot be read (Invalid value (at line 2, column 5))."),
    ],
)
def test_a_fault_is_told_with_its_line(tmp_path, text, said):
    assert problems(tmp_path, text)[0].startswith(said)


def test_all_faults_are_told_but_not_what_follows_from_a_typo(tmp_path):
    text = 'backend = "mnist"\n[plugins.cfg]\n{} = 4\nintervall = 3\n'
    lines = [problem.split(":")[1] for problem in problems(tmp_path, text.format("scael"))]
    assert lines == ["3", "4"]
    lines = [problem.split(":")[1] for problem in problems(tmp_path, text.format("foo"))]
    assert lines == ["3", "4", "2"]  # scale is missing, too


def test_json_is_read_as_toml_is(tmp_path):
    file = RECIPES[0]
    data = tomllib.loads(file.read_text())
    text = json.dumps({"$schema": "recipe.schema.json", **data}, indent=2)
    same = read_file(written(tmp_path, text, "a.json"))
    assert library_recipe(same) == library_recipe(read_file(file))
    broken = text.replace('"scale"', '"scael"')
    line = next(n for n, one in enumerate(broken.splitlines(), 1) if "scael" in one)
    assert problems(tmp_path, broken, "b.json")[0].startswith(f"b.json:{line}: plugins.cfg has no")


@pytest.mark.parametrize("path", ["../photo.png", "/etc/passwd", "sub/../../photo.png", "link.png"])
def test_pictures_lie_in_the_folder(tmp_path, path):
    Image.new("L", (28, 28)).save(tmp_path / "photo.png")
    folder = tmp_path / "recipes"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.png").symlink_to(tmp_path / "photo.png")
    text = f'backend = "mnist"\n[plugins.sdedit]\nimage = "{path}"\n'
    with pytest.raises(WrittenError, match="must lie in the recipe's folder"):
        library_recipe(read_file(written(folder, text)))


def test_large_photos_are_made_smaller_together(tmp_path):
    for name in ("photo.png", "mask.png"):
        Image.new("L", (4000, 3500), 255).save(tmp_path / name)
    text = (
        'backend = "mnist"\nsteps = 2\n[plugins.inpaint]\nimage = "photo.png"\nmask = "mask.png"\n'
        'fit = "crop"\n'
    )
    sampler = Sampler.from_recipe(library_recipe(read_file(written(tmp_path, text))))
    assert sampler.sample().x.isfinite().all()


@given(
    st.dictionaries(
        st.sampled_from(["plugins.cfg.scale", "steps", "output.size"]),
        st.integers(1, 50),
        min_size=1,
    )
)
def test_a_change_is_what_the_file_would_say(changes):
    data = {"backend": "mnist", "plugins": {"cfg": {"scale": 2}}}
    by_hand = data
    for path, value in changes.items():
        by_hand = override(by_hand, path, value)
    script = read_table(data, "a", changes=changes)
    assert script.written == read_table(by_hand, "a").written
    assert data == {"backend": "mnist", "plugins": {"cfg": {"scale": 2}}}


KEYS = st.text("abcxyz_-", min_size=1, max_size=5)
VALUES = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_every_key_of_json_has_its_line(data):
    text = json.dumps(data, indent=1)
    lines, found = text.splitlines(), lines_of(text, json=True)

    def paths(value, before=()):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield (*before, key), inner
            if isinstance(inner, dict | list):
                yield from paths(inner, (*before, key))

    for path, value in paths(data):
        assert path in found
        if isinstance(path[-1], str):
            assert lines[found[path] - 1].lstrip().startswith(json.dumps(path[-1]) + ":")
        elif not isinstance(value, dict | list):
            assert lines[found[path] - 1].strip().rstrip(",") == json.dumps(value)


def test_the_schema_names_every_registered_thing_and_option():
    schema = json_schema()
    defined = schema["$defs"]
    for (kind, name), offer in installed().offers.items():
        if kind == "backend" or dataclasses.is_dataclass(offer.factory):
            model = defined[f"{kind} {name}"]
            assert "use" in model["properties"]
        if kind == "plugin":
            fields = {f.name for f in dataclasses.fields(offer.factory) if f.init}
            assert model["properties"].keys() == {"use", *fields}
            assert name in schema["properties"]["plugins"]["properties"]

    def references(value):
        if isinstance(value, dict):
            yield from [value["$ref"]] if "$ref" in value else []
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    for reference in references(schema):
        assert reference.removeprefix("#/$defs/").replace("%20", " ") in defined
    assert "composer-kind" not in json.dumps(schema)


def test_deep_recipes_are_one_sentence(tmp_path):
    deep = '{use = "composed", transforms = [' * 200 + '"flip"' + "]}" * 200
    text = f'backend = "mnist"\n[plugins.anagram]\nviews = [[{deep}, 1]]\n'
    with pytest.raises(WrittenError):
        read_file(written(tmp_path, text))


def test_seeds_are_bounded():
    with pytest.raises(WrittenError, match="seeds must be at most 100000, got"):
        read_table({"backend": "mnist", "seeds": "0:4000000000"}, "a")
    with pytest.raises(WrittenError, match="is no table"):
        override({"steps": 3}, "steps.x", 1)


@pytest.mark.parametrize(
    ("readings", "made"),
    [
        ("[3, 8]", (3, 8)),
        ("{identity = 6, rotate_180 = 9}", (6, 9)),
        ('[["identity", 6], ["rotate_180", 9]]', (6, 9)),
    ],
)
def test_what_may_be_a_list_or_a_table_is_written_as_either(readings, made):
    table = tomllib.loads(f"[plugins.super_diff]\nreadings = {readings}")
    solver = {"use": "ddpm"}
    script = read_table({"backend": "mnist", "solver": solver, **table}, "either")
    plugin = Sampler.from_recipe(library_recipe(script)).plugins[0]
    assert plugin.conditions == made
    assert bool(plugin.transforms) == (readings != "[3, 8]")
