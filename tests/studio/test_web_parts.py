"""The parts of ``composer web`` that need no browser: fields, forms, limits, runs, who may come."""

import inspect
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from composer import Sampler, installed
from composer_plugins import CFG, Anagram
from composer_studio.remembered import read_memory
from composer_studio.written import WrittenError, read_table

gr = pytest.importorskip("gradio")

from composer_studio.cli.web import users_of  # noqa: E402
from composer_studio.web.drawn import edited, painted  # noqa: E402
from composer_studio.web.fields import fields_of, recipe_text, text_of, value_of  # noqa: E402
from composer_studio.web.form import Form  # noqa: E402
from composer_studio.web.limits import Limits, OverLimitError  # noqa: E402
from composer_studio.web.making import AWAY, Draft, Made, Step, make, script_of  # noqa: E402
from composer_studio.web.opening import opened  # noqa: E402
from composer_studio.web.presets import PRESETS, presets_for  # noqa: E402
from composer_studio.web.sentences import in_the_page, sentence_of  # noqa: E402
from composer_studio.web.served import Served, free_backends  # noqa: E402
from composer_studio.web.server import Address  # noqa: E402
from composer_studio.web.widgets import UnshowableError  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples" / "recipes"
TABLES = {file.stem: tomllib.loads(file.read_text()) for file in sorted(EXAMPLES.glob("*.toml"))}
SERVED = Served()
SIX_NINE = {
    "backend": "mnist",
    "steps": 3,
    "seeds": "4:6",
    "plugins": {"anagram": {"views": {"identity": 6, "rotate_180": 9}}, "cfg": {"scale": 4.0}},
}


@pytest.fixture(scope="module")
def form():
    with gr.Blocks():
        return Form(SERVED.names, Limits())


def begun(form):
    """What the components hold at first."""
    return [component.value for component in form.inputs]


def shown(form, table, pictures=None):
    """What the components hold of a recipe; a browser answers with what it was given."""
    updates = form.show(table, pictures or {})
    old = begun(form)
    skipped = [isinstance(new, dict) and new.get("__type__") == "update" for new in updates]
    return [o if skip else n for o, n, skip in zip(old, updates, skipped, strict=True)]


def run(draft, limits=None, place=None):
    script, recipe, _ = script_of(draft, SERVED)
    return list(make(script, recipe, SERVED, limits or Limits(), place))


# Fields


def test_every_option_of_every_plugin_has_a_field():
    for (kind, name), offer in installed().offers.items():
        if kind in ("plugin", "solver"):
            fields = {field.name for field in fields_of(kind, name)}
            masked = any(field.kind == "painted" for field in fields_of(kind, name))
            options = set(inspect.signature(offer.factory).parameters)
            assert fields == options - ({"mask"} if masked else set()), name


@pytest.mark.parametrize(
    ("plugin", "option", "kind"),
    [
        ("cfg", "scale", "number"),
        ("anagram", "views", "pairs"),
        ("anagram", "reduction", "choice"),
        ("inpaint", "image", "painted"),
        ("inpaint", "resamples", "whole"),
        ("sdedit", "image", "picture"),
        ("components", "parts", "thing"),
        ("hybrid", "low", "value"),
    ],
)
def test_the_kind_of_a_field_comes_from_the_schema(plugin, option, kind):
    (field,) = [field for field in fields_of("plugin", plugin) if field.name == option]
    assert field.kind == kind


def test_keys_of_views_are_the_registered_transforms():
    (views,) = [f for f in fields_of("plugin", "anagram") if f.name == "views"]
    assert {"identity", "rotate_180", "jigsaw"} <= set(views.choices)


SCALARS = st.one_of(
    st.integers(-(10**8), 10**8),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12),
    st.sampled_from(["6", "0.5", "[1", "{x", ' "a', '"a"', "a\nb", "true", " a "]),
)
KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)


@given(VALUES)
def test_a_value_and_its_text_are_one(value):
    assert value_of(text_of(value)) == value


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3), max_size=3))
def test_a_recipe_and_its_text_are_one(plugins):
    table = {"backend": "mnist", "steps": 3, "plugins": plugins, "output": {"size": 9}}
    again = tomllib.loads(recipe_text(table))
    assert again == {k: v for k, v in table.items() if v}
    for label, options in plugins.items():
        assert list(again["plugins"][label]) == list(options)


def test_views_keep_their_order_in_the_text():
    views = {"rotate_180": {"use": "hybrid", "low": 1, "high": 2}, "identity": 3}
    text = recipe_text({"plugins": {"anagram": {"views": views}}})
    assert list(tomllib.loads(text)["plugins"]["anagram"]["views"]) == ["rotate_180", "identity"]


# The form


def drafted(name, form):
    table = TABLES[name]
    pictures = {
        file: Image.open(EXAMPLES / file).convert("L")
        for plugin in table["plugins"].values()
        for file in plugin.values()
        if isinstance(file, str) and file.endswith(".png")
    }
    return form.draft(shown(form, table, pictures))


@pytest.mark.parametrize("name", sorted(TABLES))
def test_the_form_gives_back_the_examples(form, name):
    draft, table = drafted(name, form), TABLES[name]
    script = read_table(SERVED.named_alone(draft.table)[0], "form").written
    other = read_table(SERVED.named_alone(table)[0], "file").written
    for part in ("condition", "solver", "steps", "seeds"):
        assert getattr(script, part) == getattr(other, part), part
    mine, theirs = list(script.plugins.values()), list(other.plugins.values())
    for one, two in zip(mine, theirs, strict=True):
        assert one.name == two.name
        unlike = {
            k
            for k in one.options.keys() | two.options.keys()
            if one.options.get(k) != two.options.get(k)
        }
        assert unlike <= {"image", "mask", "fit"}  # pictures have names of their own
    assert script.output.size == other.output.size


@pytest.mark.parametrize("name", sorted(PRESETS.keys() - {"Inpaint"}))  # which waits for paint
def test_a_preset_is_shown_and_means_itself(form, name):
    preset = PRESETS[name]
    draft = form.draft(shown(form, preset.table, preset.pictures()))
    assert list(draft.table["plugins"]) == list(preset.table["plugins"])
    read_table(draft.table, name)


def test_presets_need_their_model():
    assert list(presets_for(["nouns"])) == ["Characters", "My own"]
    assert list(presets_for(["prx"])) == ["My own"]
    assert presets_for(["prx"])["My own"].table["backend"] == "prx"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"plugins": {"a": {"use": "cfg"}, "b": {"use": "cfg"}}}, "each plugin once, and b is"),
        ({"plugins": {"cfg": {"scale": [1.0, 2.0]}}}, "no place for cfg.scale"),
        ({"plugins": {"anagram": {"views": dict.fromkeys("abcde", 1)}}}, "no place for anagram.v"),
        ({"backend": "prx"}, "has the models mnist, .*, and not 'prx'"),
        ({"strange": 1}, "no place for strange"),
    ],
)
def test_what_the_form_has_no_place_for(form, table, said):
    with pytest.raises(UnshowableError, match=said):
        form.show(table, {})


def with_value(form, table, pictures, plugin, component, value):
    """The components of a recipe, one of them changed."""
    entered = shown(form, table, pictures)
    widgets = form._widgets[plugin]
    place = form.inputs.index(widgets[component[0]].components[component[1]])
    entered[place] = value
    return entered


def test_half_a_row_of_views_is_explained(form):
    entered = with_value(form, SIX_NINE, {}, "anagram", (0, 3), " ")
    with pytest.raises(WrittenError, match="anagram: each row of views needs both"):
        form.draft(entered)


def test_without_paint_the_mask_is_explained(form):
    preset = PRESETS["Inpaint"]
    entered = with_value(
        form, preset.table, preset.pictures(), "inpaint", (0, 0), edited(Image.new("RGB", (56, 56)))
    )
    with pytest.raises(WrittenError, match="inpaint: the mask is empty. Paint over"):
        form.draft(entered)
    entered = with_value(form, preset.table, preset.pictures(), "inpaint", (0, 0), None)
    with pytest.raises(WrittenError, match="inpaint: there is no picture yet"):
        form.draft(entered)


def test_paint_is_the_mask():
    layer = np.zeros((8, 6, 4), np.uint8)
    layer[2:5, 1:3] = (255, 0, 0, 180)
    layer[7, 5, 3] = 20  # the soft edge of a brush
    mask = np.asarray(painted([Image.fromarray(layer)], (6, 8)))
    expected = np.zeros((8, 6), np.uint8)
    expected[2:5, 1:3] = 255
    assert (mask == expected).all()
    assert painted([], (6, 8)) is None


# Runs


def test_a_run_is_what_the_library_makes(tmp_path):
    *steps, made = run(Draft(SIX_NINE), place=tmp_path)
    assert [(step.done, step.of) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert len({step.preview.tobytes() for step in steps}) == 3
    sampler = Sampler(SERVED.load("mnist"), [Anagram({"identity": 6, "rotate_180": 9}), CFG(4.0)],
                      num_inference_steps=3)  # fmt: skip
    expected = sampler.sample(seeds=[4, 5])
    assert made.x.allclose(expected.x, atol=1e-5)
    assert [file.name for file in made.files] == ["0004.png", "0005.png"]
    assert list(made.views) == ["rotate 180"]
    right, turned = (np.asarray(made.turned(1, "rotate 180", share)) for share in (0, 1))
    assert (turned == right[::-1, ::-1]).all()
    with Image.open(made.film(0)) as film:
        assert film.n_frames > 10
    made.remove()
    assert not [*tmp_path.iterdir()]


def test_a_picture_of_the_page_opens_as_its_recipe(tmp_path, form):
    made = run(Draft(SIX_NINE), place=tmp_path)[-1]
    found = opened(made.files[1])
    assert found.table["seeds"] == 5
    assert found.table["plugins"] == SIX_NINE["plugins"]
    draft = form.draft(shown(form, found.table, found.pictures))
    again = run(draft, place=tmp_path)[-1]
    assert again.x[0].allclose(made.x[1], atol=1e-4)


def test_uploads_and_drawings_are_the_pictures_of_a_recipe(tmp_path):
    text = (EXAMPLES / "inpainting.toml").read_text().replace("pictures/", "")
    uploads = tuple((EXAMPLES / "pictures").glob("*.png"))
    draft = Draft(text.replace('"0:8"', "[3]\nsteps = 8"), uploads=uploads)
    made = run(draft, place=tmp_path)[-1]
    recipe = read_memory(made.files[0]).recipe
    assert "image" in recipe["plugins"][0]["options"]["mask"]
    sdedit = {"image": "a.png", "strength": 0.5, "fit": "crop"}
    drawn = {**SIX_NINE, "plugins": {"sdedit": sdedit}, "condition": 3}
    drawing = {"a.png": Image.new("L", (40, 40))}
    assert run(Draft(drawn, drawing), place=tmp_path)[-1].views == {AWAY: None}


@pytest.mark.parametrize("name", ["/etc/hostname", "../hidden.png", "hidden.png"])
def test_no_file_of_the_server_is_read(tmp_path, name, monkeypatch):
    Image.new("L", (28, 28)).save(tmp_path / "hidden.png")
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    table = {**SIX_NINE, "plugins": {"sdedit": {"image": name, "strength": 0.5}}}
    for draft in (Draft(table), Draft(recipe_text(table))):
        with pytest.raises(WrittenError, match=r"must lie in the recipe's folder|there is no pict"):
            script_of(draft, SERVED)


def test_the_owner_sets_the_model():
    table = {**SIX_NINE, "backend": {"use": "mnist", "weights": "/srv/secret", "device": "cuda"}}
    script, recipe, lost = script_of(Draft(table), SERVED)
    assert sorted(lost) == ["device", "weights"]
    assert recipe["backend"]["options"] == {}
    assert script.written.backend.options == {}
    with pytest.raises(LookupError, match=r"Unknown backend of this page 'prx'. Known: .*mnist"):
        script_of(Draft({**SIX_NINE, "backend": "prx"}), SERVED)
    served = Served([{"use": "mnist", "share": False}])
    assert served.names == ["mnist"]
    assert script_of(Draft(SIX_NINE), served)[1]["backend"]["options"] == {"share": False}
    with pytest.raises(WrittenError, match="--backend: backend has no option 'modle'"):
        Served([{"use": "mnist", "modle": 1}])


def test_models_that_read_files_are_not_offered_by_themselves():
    assert {"mnist", "nouns"} <= set(free_backends())
    assert not {"diffusers", "deepfloyd", "latent", "prx"} & set(free_backends())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": "0:17"}, "seeds must be at most 16 on this page, got 17"),
        ({"steps": 201}, "steps must be at most 200 on this page, got 201"),
        ({"plugins": {"langevin": {"steps": 5000}}}, "langevin: a whole number must be at most"),
        (
            {"plugins": {"a": {"use": "apg", "guidance": {"use": "conjunction",
                         "weights": {"x": 9999}}}}},
            "a: a whole number must be at most 1000",
        ),
    ],
)  # fmt: skip
def test_limits_are_checked_before_the_work(change, said, tmp_path):
    with pytest.raises(WrittenError, match=said):
        run(Draft({**SIX_NINE, **change}), place=tmp_path)


def test_a_run_ends_in_time_also_within_a_step(tmp_path):
    with pytest.raises(OverLimitError, match=r"took more than 0.001 seconds"):
        run(Draft({**SIX_NINE, "steps": 200}), Limits(seconds=0.001), tmp_path)
    walks = {**SIX_NINE, "steps": 2, "plugins": {"langevin": {"steps": 1000}}, "condition": 1}
    with pytest.raises(OverLimitError, match="seconds"):
        run(Draft(walks), Limits(seconds=0.3), tmp_path)


def test_a_step_that_would_fill_the_memory_is_not_begun(tmp_path):
    score = {"use": "reads_as", "views": {"identity": 3}}
    particles = {"score": score, "survivors": [[1.0, 900], [0.0, 1]]}
    plugins = {"particles": particles, "cfg": {"scale": 2.0}}
    table = {**SIX_NINE, "plugins": plugins, "condition": 3, "seeds": "0:5"}
    with pytest.raises(OverLimitError, match="at most 4096 images on this page"):
        run(Draft(table), place=tmp_path)


@pytest.mark.parametrize(("rows", "kept"), [("auto", 64), (None, 64), (8, 8), (1000, 64)])
def test_rows_of_a_call_are_bounded_and_the_picture_says_so(rows, kept, tmp_path):
    table = {k: v for k, v in {**SIX_NINE, "max_rows": rows}.items() if v is not None}
    made = run(Draft({**table, "steps": 1}), place=tmp_path)[-1]
    assert isinstance(made, Made)
    assert read_memory(made.files[0]).recipe["max_rows"] == kept


def test_a_step_has_no_preview_of_latents():
    assert Step(1, 2, None).preview is None


# Opening


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"GIF89a", r"^a.png: it must be a PNG or WebP"),
        ("a.toml", b"x = [", r"^a.toml: it cannot be read"),
        ("a.json", b"[]", r"^a.json: a recipe must be a table"),
        ("a.toml", b"#" * 1_000_001, "at most 1000000 bytes"),
    ],
)
def test_a_strange_file_is_explained_without_a_path(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said) as caught:
        opened(tmp_path / name)
    assert str(tmp_path) not in str(caught.value)


def test_a_picture_without_a_recipe_is_explained(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"^a.png: it carries no recipe"):
        opened(tmp_path / "a.png")


def test_json_is_opened_too(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(SIX_NINE))
    assert opened(tmp_path / "a.json").table == SIX_NINE


# Sentences


@pytest.mark.parametrize(
    "error",
    [ValueError("a"), KeyError("a"), ZeroDivisionError("a"), RuntimeError("a"), MemoryError("a")],
)
def test_errors_become_sentences(error):
    @in_the_page
    def handler():
        raise error

    @in_the_page
    def stream():
        yield 1
        raise error

    with pytest.raises(gr.Error) as caught:
        handler()
    assert not caught.value.print_exception
    made = stream()
    assert next(made) == 1
    with pytest.raises(gr.Error):
        next(made)


def test_a_bug_is_told_to_the_owner_alone(capsys):
    @in_the_page
    def handler():
        raise AssertionError("secret")

    with pytest.raises(gr.Error, match="Something went wrong") as caught:
        handler()
    assert "secret" not in str(caught.value)
    assert "secret" in capsys.readouterr().err


def test_sentences_hold_no_markup_and_no_path():
    assert sentence_of(ValueError("<img src=x>")) == "&lt;img src=x&gt;"
    assert sentence_of(FileNotFoundError(2, "No such file", "/srv/x")) == (
        "A file cannot be used (No such file)."
    )
    assert sentence_of(WrittenError(["a.", "b."])) == "a.<br>b."
    assert len(sentence_of(ValueError("x" * 10_000))) < 1000


# Who may come


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
def test_this_machine_needs_no_password(host):
    assert Address(host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.2", "example.org", ""])
def test_other_hosts_need_one(host):
    with pytest.raises(ValueError, match=r"Add --auth user:password, or leave out --host."):
        Address(host)
    assert Address(host, users=(("a", "b"),)).users


def test_users_come_from_the_option_a_file_or_the_variable(tmp_path, studio, monkeypatch):
    (tmp_path / "users").write_text("a:b\nc:d:e\n")
    assert users_of((f"@{tmp_path / 'users'}", "x:y")) == (("a", "b"), ("c", "d:e"), ("x", "y"))
    monkeypatch.setenv("COMPOSER_WEB_AUTH", "nobody")
    refused = studio("web", "--host", "0.0.0.0")
    assert refused.exit_code == 2
    assert refused.stderr == "Error: --auth: entry 1 must be user:password.\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "web: --host 0.0.0.0 opens the page to other machines. Add --auth"),
        (["--auth", "secret"], "--auth: entry 1 must be user:password."),
        (["--auth", "@none"], "--auth: the file none cannot be read."),
        (["--backend", "mnits"], "Unknown backend 'mnits'. Did you mean mnist or mnist-ddpm?"),
        (["--backend", "diffusers"], "backend needs the option 'model'"),
        (["--backend", "{x"], '--backend must be a name or a table {use = "..."}'),
        (["--backend", '{use = "mnist", weights = "none"}'], "there is no folder 'none'"),
    ],
)
def test_bad_input_is_one_line(studio, arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = studio("web", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr
    assert not [*tmp_path.iterdir()]
