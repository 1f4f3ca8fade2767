"""The way back: the library's recipe as a table, and what it cannot be."""

import json
from functools import cache
from pathlib import Path

import pytest

from composer import Sampler, call_of, load_backend
from composer.recipes import describe
from composer_plugins import CFG, SDEdit
from composer_plugins.backends.mnist import sample_digits
from composer_studio.written import library_recipe, read_file, read_table, table_of

EXAMPLES = Path(__file__).parents[2] / "examples" / "recipes"
loaded = cache(load_backend)


def described(recipe):
    """What a picture of a recipe carries."""
    sampler = Sampler.from_recipe(recipe, backend=loaded(recipe["backend"]["name"]))
    call = call_of(recipe)
    return describe(sampler.stack, sampler.max_rows, call["condition"], call["seeds"])


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.toml")), ids=lambda file: file.stem)
def test_a_table_and_the_recipe_are_one(file, tmp_path):
    carried = json.loads(json.dumps(described(library_recipe(read_file(file)))))
    table, pictures = table_of(carried)
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
    again = library_recipe(read_table(json.loads(json.dumps(table)), "again", tmp_path))
    assert described(again) == carried


def test_defaults_are_left_out():
    table, _ = table_of(described(library_recipe(read_file(EXAMPLES / "anagram.toml"))))
    assert table["plugins"] == {
        "anagram": {"views": {"identity": 6, "rotate_180": 9}},
        "cfg": {"scale": 4.0},
    }
    assert table["seeds"] == "0:8"


def test_a_plugin_that_is_there_twice_gets_two_labels():
    text = {"backend": "mnist", "plugins": {"a": {"use": "langevin"}, "b": {"use": "langevin"}}}
    table, _ = table_of({**library_recipe(read_table(text, "t")), "solver": None})
    assert table["plugins"] == {"langevin": {}, "langevin-2": {"use": "langevin"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plugins": [{"unregistered": "Mine"}]}, "a part .unregistered. that only Python"),
        ({"plugins": 3}, "it is none, or one of your own model"),
        ({"backend": {"unregistered": "Mine"}}, "it is none, or one of your own model"),
        ({"plugins": [{"plugin": "cgf", "options": {}}]}, "Unknown plugin 'cgf'"),
        ({"call": {"condition": 1, "seeds": [-1]}}, "seeds"),
        ({"call": {"condition": 1, "seeds": [1], "x": [0], "t": 1.0}}, "begins with given noise"),
        ({"plugins": [[[]] * 20_000]}, "more than 10000 lists"),
    ],
)
def test_what_no_table_holds_is_a_sentence(change, said):
    recipe = {**library_recipe(read_file(EXAMPLES / "hybrid.toml")), "solver": None, **change}
    with pytest.raises((ValueError, LookupError), match=said):
        table_of(recipe)


def test_a_tensor_stays_with_python():
    images, _ = sample_digits()
    sampler = Sampler(loaded("mnist"), [SDEdit(images[0], strength=0.5), CFG(2.0)])
    with pytest.raises(ValueError, match=r"a part \(tensor\) that only Python can make"):
        table_of(describe(sampler.stack, "auto", 3, (0,)))
