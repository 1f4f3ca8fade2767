"""Prompt embeddings of DeepFloyd IF: by T5, from files, kept, and refused."""

import re
import shutil
import sys
import types
import warnings

import pytest
import torch
import transformers
from click.testing import CliRunner
from diffusers import IFPipeline
from diffusers.pipelines.deepfloyd_if import pipeline_if
from safetensors.torch import load_file, save_file
from tiny_if import cut, empty

from composer import UNCONDITIONAL, Sampler
from composer_plugins import CFG, Anagram
from composer_plugins.backends import files
from composer_plugins.backends.deepfloyd import (
    Embeddings,
    embedding_files,
    load_deepfloyd,
    text,
)
from composer_plugins.backends.deepfloyd.command import embed
from composer_plugins.backends.deepfloyd.embeddings import add_embeddings, cache_file

PROMPT = "a photo of a cat"


def test_embeddings_are_the_pipeline_s(tiny_if, embedded):
    pipeline = IFPipeline.from_pretrained(tiny_if[1], unet=None, safety_checker=None)
    stored = load_file(embedded)
    assert stored.keys() == {"", PROMPT, "a photo of a dog"}
    cond, uncond = pipeline.encode_prompt("A photo of a dog")
    torch.testing.assert_close(stored["a photo of a dog"], cond)
    torch.testing.assert_close(stored[""], uncond)
    assert cond.shape == (1, 77, 32)


def test_the_file_is_read_whole_once(tiny_if, embedded, tmp_path, monkeypatch):
    """Of a large one, names tell what lacks, and one tensor whose it is."""
    file, reads = shutil.copy(embedded, tmp_path / "more.safetensors"), []
    whole = embedding_files.READERS[".safetensors"]
    monkeypatch.setitem(
        embedding_files.READERS, ".safetensors", lambda f: reads.append(f) or whole(f)
    )
    arguments = ["a hat", PROMPT, "--model", str(tiny_if[1]), "--cache", str(file)]
    assert "encoded 1 prompts, 4 are" in CliRunner().invoke(embed, arguments).output
    assert len(reads) == 1
    assert "encoded 0 prompts, 4 are" in CliRunner().invoke(embed, arguments).output
    assert len(reads) == 1


def test_only_what_lacks_is_encoded(tiny_if, embedded, tmp_path):
    file = shutil.copy(embedded, tmp_path / "more.safetensors")
    arguments = ["a hat", PROMPT, "--model", str(tiny_if[1]), "--cache", str(file)]
    assert "encoded 1 prompts, 4 are" in CliRunner().invoke(embed, arguments).output
    assert "encoded 0 prompts, 4 are" in CliRunner().invoke(embed, arguments).output


def test_with_embeddings_no_text_encoder_is_read(tiny_if, folder, embedded):
    shutil.rmtree(folder / "text_encoder")
    shutil.rmtree(folder / "tokenizer")
    without = load_deepfloyd(folder, embeddings=embedded)
    with_it = load_deepfloyd(tiny_if[1], embeddings=embedded)
    images = [
        Sampler(backend, [CFG(3.0)], num_inference_steps=2).sample(PROMPT).x
        for backend in (without, with_it)
    ]
    assert torch.equal(*images)
    with pytest.raises(ValueError, match="'a hat' has no .*embed 'a hat' --cache .*prompts.safe"):
        Sampler(without, [Anagram({"identity": "a hat"})])


def test_what_one_stage_has_encoded_the_other_reads(tiny_if, tmp_path, monkeypatch):
    """T5 is twice as large as the UNets: of a cascade, one stage only needs it."""
    file = tmp_path / "shared.safetensors"
    first, second = (load_deepfloyd(tiny_if[s], stage=s, embeddings=file) for s in (1, 2))
    first.encode(PROMPT)
    monkeypatch.setattr(text.TextEncoder, "_load", lambda self: pytest.fail("T5 was read again"))
    assert second.encode(PROMPT) == PROMPT
    assert torch.equal(second.embeddings[PROMPT], first.embeddings[PROMPT])


@pytest.mark.parametrize("ending", [".pt", ".pth", ".safetensors"])
def test_files_of_others_are_read(folder, embedded, tmp_path, ending):
    """Any length: attention does not mind, and lengths are not mixed in one forward."""
    shutil.rmtree(folder / "text_encoder")
    stored = load_file(embedded)
    given = {"": stored[""][:, :5], "A Cat": stored[PROMPT][:, :9].half()}
    file = tmp_path / f"given{ending}"
    save_file({k: v.contiguous() for k, v in given.items()}, file) if ending == (
        ".safetensors"
    ) else torch.save(given, file)
    backend = load_deepfloyd(folder, embeddings=file)
    guided = Sampler(backend, [CFG(3.0)], num_inference_steps=2).sample("a cat", [0, 1])
    assert guided.stats.calls == 2

    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    estimate = Sampler(backend).denoise(x, 20.0, "a cat")
    out = backend.unet(x, 20, encoder_hidden_states=given["A Cat"].float()).sample
    alpha, sigma = backend.schedule.at(20.0)
    x0 = (x - sigma * out[:, :3]) / alpha
    s = torch.quantile(x0.abs().flatten(), 0.95).clamp(1, 1.5)
    torch.testing.assert_close(estimate.x0, x0.clamp(-s, s) / s, rtol=0, atol=1e-5)


def test_embeddings_without_negatives_raise_before_the_model(folder, embedded, tmp_path):
    shutil.rmtree(folder / "text_encoder")
    file = tmp_path / "few.safetensors"
    add_embeddings(file, {PROMPT: load_file(embedded)[PROMPT]}, "someone's")
    sampler = Sampler(load_deepfloyd(folder, embeddings=file), [CFG(7.0)])
    with pytest.raises(ValueError, match="the empty prompt '', the negative of guidance, has no"):
        sampler.sample(PROMPT)
    assert Sampler(sampler.backend, [CFG(1.0)], num_inference_steps=1).sample(PROMPT).stats.calls


def test_new_prompts_are_encoded_kept_and_the_encoder_is_freed(tiny_if, tmp_path):
    file = tmp_path / "new" / "cache.safetensors"
    backend = load_deepfloyd(tiny_if[1], embeddings=file)
    assert backend.embeddings.encoder._loaded is None
    sampler = Sampler(backend, [Anagram({"identity": PROMPT, "flip": "a hat"})])
    assert backend.embeddings.encoder._loaded is not None
    sampler = Sampler(backend, sampler.plugins, num_inference_steps=1)
    sampler.sample()
    assert backend.embeddings.encoder._loaded is None
    assert load_file(file).keys() == {"", PROMPT, "a hat"}


def test_a_long_prompt_says_that_it_is_cut(tiny_if, tmp_path):
    backend = load_deepfloyd(tiny_if[1], embeddings=tmp_path / "x.safetensors")
    with pytest.warns(UserWarning, match=r"reads 77 tokens of a prompt; the last \d+ of \d+"):
        backend.encode("a photo of a cat " * 30)


def test_the_cache_is_a_file_for_each_model(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    hub = cache_file("DeepFloyd/IF-I-XL-v1.0")
    assert hub == tmp_path / "composer/embeddings/DeepFloyd--IF-I-XL-v1.0.safetensors"
    names = set()
    for parent in ("a", "b"):
        (tmp_path / parent / "IF").mkdir(parents=True)
        names.add(cache_file(str(tmp_path / parent / "IF")))
    assert len(names) == 2


def test_a_file_is_of_one_text_encoder_whatever_its_model_is_called(tiny_if, tmp_path):
    """Stages I and II share T5; a folder may be named in two ways, and may come to hold another."""
    file = tmp_path / "shared.safetensors"
    first, second = (load_deepfloyd(tiny_if[s], stage=s, embeddings=file) for s in (1, 2))
    first.encode(PROMPT)
    second.encode("a hat")  # the other stage writes, too
    assert first.encode("a hat") == "a hat"
    spelled = f"{tiny_if[1]}/../{tiny_if[1].name}/"
    load_deepfloyd(spelled, embeddings=file).encode("a skull")
    kept = load_file(file)
    assert kept.keys() == {PROMPT, "a hat", "", "a skull"}
    another = shutil.copytree(tiny_if[1], tmp_path / "another")
    torch.manual_seed(1)
    config = transformers.T5Config.from_pretrained(another / "text_encoder")
    transformers.T5EncoderModel(config).save_pretrained(another / "text_encoder")
    stranger = load_deepfloyd(another, embeddings=file)
    for _ in range(2):  # asking again does not help
        with pytest.raises(ValueError, match="by the text encoder of .*another, got those of .*1"):
            stranger.encode("a rocket")
    arguments = ["a rocket", "--model", str(another), "--cache", str(file)]
    assert (
        "must hold embeddings by the text encoder of" in CliRunner().invoke(embed, arguments).output
    )
    assert load_file(file).keys() == kept.keys()


def test_what_is_not_finite_is_not_kept(tiny_if, tmp_path, monkeypatch):
    """As T5 in float16 may overflow: one such would spoil the file for good."""
    file = tmp_path / "x.safetensors"
    monkeypatch.setattr(text.TextEncoder, "__call__", lambda *a: torch.full((1, 77, 32), torch.nan))
    sentence = "by the text encoder of .* is empty, or not finite in torch.float32. Make it anew"
    with pytest.raises(ValueError, match=sentence):
        load_deepfloyd(tiny_if[1], embeddings=file).encode(PROMPT)
    done = CliRunner().invoke(embed, [PROMPT, "--model", str(tiny_if[1]), "--cache", str(file)])
    assert re.search(sentence, done.output)
    assert not file.exists()


def test_another_encoder_raises_before_all_is_encoded(tiny_if, tmp_path, monkeypatch):
    file = tmp_path / "x.safetensors"
    add_embeddings(file, {"": torch.ones(1, 77, 32)}, "another")
    encoded = []
    whole = text.TextEncoder.__call__
    monkeypatch.setattr(
        text.TextEncoder, "__call__", lambda self, p: encoded.append(p) or whole(self, p)
    )
    arguments = ["a", "b", "--model", str(tiny_if[1]), "--cache", str(file)]
    assert (
        "must hold embeddings by the text encoder of" in CliRunner().invoke(embed, arguments).output
    )
    assert encoded == [""]


def test_a_file_without_the_empty_prompt_goes_by_its_model(tmp_path):
    file = tmp_path / "x.safetensors"
    add_embeddings(file, {"a": torch.ones(1, 3, 4)}, "one")
    with pytest.raises(ValueError, match="by the text encoder of two, got those of one"):
        add_embeddings(file, {"b": torch.ones(1, 3, 4)}, "two")
    add_embeddings(file, {"b": torch.ones(1, 3, 4)}, "one", torch.ones(1, 3, 4))
    assert load_file(file).keys() == {"", "a", "b"}


def test_embeddings_of_fewer_bits_are_used_and_said(tiny_if, tmp_path):
    file = tmp_path / "x.safetensors"
    load_deepfloyd(tiny_if[1], embeddings=file, dtype="bfloat16").encode(PROMPT)
    with pytest.warns(
        UserWarning, match="in torch.bfloat16, less exact than the requested torch.float32"
    ):
        rough = load_deepfloyd(tiny_if[1], embeddings=file)
    rough.encode("a hat")  # one encoder in two dtypes is still one
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_deepfloyd(tiny_if[1], embeddings=file, dtype="bfloat16")


@pytest.mark.parametrize("place", ["taken/x.safetensors", "folder.safetensors"])
def test_a_place_that_cannot_be_written_is_found_before_the_encoder_is_read(
    tiny_if, tmp_path, monkeypatch, place
):
    (tmp_path / "taken").touch()
    (tmp_path / "folder.safetensors").mkdir()
    monkeypatch.setattr(text.TextEncoder, "_load", lambda self: pytest.fail("T5 was read"))
    with pytest.raises(OSError, match="cannot be a folder|is a folder. Name a file"):
        load_deepfloyd(tiny_if[1], embeddings=tmp_path / place).encode(PROMPT)
    arguments = [PROMPT, "--model", str(tiny_if[1]), "--cache", str(tmp_path / place)]
    done = CliRunner().invoke(embed, arguments)
    assert done.exit_code != 0
    assert isinstance(done.exception, SystemExit)


@pytest.mark.parametrize("both", [True, False])
def test_one_variant_of_the_text_encoder_is_fetched(tiny_if, tmp_path, monkeypatch, both):
    """Where there is none of it, the plain weights are."""
    folder = shutil.copytree(tiny_if[1], tmp_path / "IF")
    weights = folder / "text_encoder" / "model.safetensors"
    if both:
        weights.rename(folder / "text_encoder" / "model.fp16.safetensors")
    asked = []
    monkeypatch.setattr(files.Source, "fetch", lambda self, p: asked.append(p) or folder)
    encoder = text.TextEncoder(
        files.Source("DeepFloyd/IF-I-XL-v1.0"),
        *(torch.device("cpu"), torch.float32),
        variant="fp16",
    )
    assert encoder("a hat").shape == (1, 77, 32)
    found = [{p for p in patterns if p.endswith(".safetensors")} for patterns in asked]
    fp16 = {f"text_encoder/model.fp16{end}.safetensors" for end in ("", "-*")}
    plain = {f"text_encoder/model{end}.safetensors" for end in ("", "-*")}
    assert found == ([fp16] if both else [fp16, plain])


def test_the_cache_file_names_what_cannot_be_read(tiny_if, tmp_path):
    for value, words in (
        (
            torch.full((1, 5, 32), torch.nan),
            "'' in .* is empty, or not finite in torch.float32. Make it anew",
        ),
        (torch.zeros(1, 0, 32), "is empty, or not finite"),
    ):
        torch.save({"": value}, tmp_path / "x.pt")
        with pytest.raises(ValueError, match=words):
            load_deepfloyd(tiny_if[1], embeddings=tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"There is no file .*none\.pt, and only .safetensors"):
        load_deepfloyd(tiny_if[1], embeddings=tmp_path / "none.pt")
    with pytest.raises(TypeError, match="embeddings must be a file, got dict"):
        load_deepfloyd(tiny_if[1], embeddings={"": torch.zeros(1, 5, 32)})
    with pytest.raises(ValueError, match=r"a prompt must be text, and '.ud800 cat' is cut"):
        load_deepfloyd(tiny_if[1], embeddings=tmp_path / "x.safetensors").encode("\ud800 cat")


def no_vocabulary(folder):
    """transformers reads such a tokenizer, and knows no word."""
    for file in (folder / "tokenizer").iterdir():
        if file.name != "tokenizer_config.json":
            file.unlink()


def empty_object(file):
    return lambda folder: (folder / file).write_text("{}")


def spoil_text_weights(folder):
    file = folder / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    weights.pop("encoder.final_layer_norm.weight")
    save_file(weights, file, {"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (empty("tokenizer"), "tokenizer must have one of spiece.model, tokenizer.json"),
        (no_vocabulary, "tokenizer must have one of spiece.model, tokenizer.json"),
        (cut("text_encoder/model.safetensors"), "text_encoder cannot be read"),
        (cut("tokenizer/tokenizer.json"), "tokenizer cannot be read"),
        (empty_object("tokenizer/tokenizer.json"), "tokenizer cannot be read"),
        (spoil_text_weights, "lack 1 of the tensors .* such as encoder.final_layer_norm"),
    ],
)
def test_wrong_or_missing_text_parts_are_a_sentence(folder, tmp_path, spoil, sentence):
    spoil(folder)
    backend = load_deepfloyd(folder, embeddings=tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=sentence):
        Sampler(backend).sample(PROMPT)
    done = CliRunner().invoke(
        embed, [PROMPT, "--model", str(folder), "--cache", str(tmp_path / "y.safetensors")]
    )
    assert done.exit_code == 2
    assert "Error: " in done.output
    assert isinstance(done.exception, SystemExit)
    assert not (tmp_path / "y.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"": torch.zeros(1, 5, 16)}, r"the shape \(1, L, 32\), got \(1, 5, 16\)"),
        ({"": torch.zeros(5, 32)}, r"got \(5, 32\)\."),
        ({"": torch.zeros(2, 5, 32)}, r"got \(2, 5, 32\)\."),
        ({"": [1.0]}, "must hold a dictionary of prompts and their embeddings"),
        ({3: torch.zeros(1, 5, 32)}, "must hold a dictionary"),
        ({"": torch.zeros(1, 5, 32, dtype=torch.int64)}, "must hold a dictionary"),
        (torch.zeros(1, 5, 32), "must hold a dictionary"),
        (Embeddings, "cannot be read"),  # a pickled class: weights_only refuses it
    ],
)
def test_wrong_embeddings_raise_when_loaded(tiny_if, tmp_path, content, sentence):
    torch.save(content, tmp_path / "wrong.pt")
    with pytest.raises(ValueError, match=sentence):
        load_deepfloyd(tiny_if[1], embeddings=tmp_path / "wrong.pt")


def test_files_that_are_none_raise(folder, embedded, tmp_path):
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(ValueError, match="There is no file .* Make it with `composer embed`"):
        load_deepfloyd(folder, embeddings=tmp_path / "none.safetensors")
    for name, sentence in (("x.npz", "must end in .safetensors, .pt, .pth"), ("x.pt", "anew")):
        (tmp_path / name).write_bytes(b"something")
        with pytest.raises(ValueError, match=sentence):
            load_deepfloyd(folder, embeddings=tmp_path / name)
    done = CliRunner().invoke(embed, [PROMPT, "--cache", str(tmp_path / "x.pt")])
    assert "must name a .safetensors file" in done.output


@pytest.mark.parametrize("name", ["transformers", "sentencepiece", "google.protobuf"])
def test_packages_that_lack_are_named(tiny_if, tmp_path, monkeypatch, name):
    """transformers would ask for tiktoken, which would not help."""
    monkeypatch.setitem(sys.modules, name, None)
    backend = load_deepfloyd(tiny_if[1], embeddings=tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=rf"needs {name}: pip install .*\[deepfloyd\]"):
        backend.encode(PROMPT)


def test_half_precision_leaves_what_T5_needs_wide(tiny_if, tmp_path):  # noqa: N802
    """A cast after reading, as by ``.to(float16)``, would halve these layers too."""
    backend = load_deepfloyd(tiny_if[1], embeddings=tmp_path / "x.safetensors", dtype="float16")
    backend.encode(PROMPT)
    weights = dict(backend.embeddings.encoder._loaded[1].named_parameters())
    wide = {name for name, weight in weights.items() if weight.dtype == torch.float32}
    assert wide == {name for name in weights if name.endswith("wo.weight")}
    assert len(wide) == 2  # one a layer


def test_eight_bits_without_bitsandbytes_say_so(tiny_if, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    file, sentence = tmp_path / "x.safetensors", "8 bits needs bitsandbytes: pip install"
    with pytest.raises(ValueError, match=sentence):
        load_deepfloyd(tiny_if[1], embeddings=file, text_8bit=True)
    arguments = [PROMPT, "--model", str(tiny_if[1]), "--cache", str(file), "--text-8bit"]
    assert sentence in CliRunner().invoke(embed, arguments).output


def test_eight_bits_are_asked_of_transformers_and_not_moved(tiny_if, tmp_path, monkeypatch):
    """Such a network refuses ``.to``; bitsandbytes itself needs a GPU and is not tried here."""
    read = transformers.T5EncoderModel.from_pretrained
    asked = {}

    def as_eight_bits(place, quantization_config, device_map, **options):
        asked.update(bits=quantization_config, device_map=device_map)
        encoder, found = read(place, **options)
        monkeypatch.setattr(encoder, "to", None)
        return encoder, found

    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    monkeypatch.setattr(transformers.T5EncoderModel, "from_pretrained", as_eight_bits)
    backend = load_deepfloyd(tiny_if[1], embeddings=tmp_path / "x.safetensors", text_8bit=True)
    backend.encode(PROMPT)
    assert asked["bits"].load_in_8bit
    assert asked["device_map"] == {"": torch.device("cpu")}


def test_cleaned_captions_of_the_pipelines_are_ours_where_they_cannot_clean(
    tiny_if, embedded, monkeypatch
):
    """Their default asks for ftfy and beautifulsoup4, and does without, with a warning."""
    pipeline = IFPipeline.from_pretrained(tiny_if[1], unet=None, safety_checker=None)
    monkeypatch.setattr(pipeline_if, "is_bs4_available", lambda: False)
    cond, uncond = pipeline.encode_prompt("  A photo of a DOG", clean_caption=True)
    stored = load_file(embedded)
    torch.testing.assert_close(stored["a photo of a dog"], cond)
    torch.testing.assert_close(stored[""], uncond)


def test_the_text_encoder_is_downloaded_alone(monkeypatch, tiny_if):
    """Stage I is 17 GB; who embeds fetches T5 and no UNet."""
    asked = []

    def fetch(self, patterns):
        asked.extend(patterns)
        return tiny_if[1]

    monkeypatch.setattr(files.Source, "fetch", fetch)
    encoder = text.TextEncoder(
        files.Source("DeepFloyd/IF-I-XL-v1.0"), torch.device("cpu"), torch.float32
    )
    assert encoder("a hat").shape == (1, 77, 32)
    assert asked
    assert not [pattern for pattern in asked if not pattern.startswith(("text_enc", "tokenizer"))]


def test_unconditional_is_the_empty_prompt(tiny_if, embedded):
    backend = load_deepfloyd(tiny_if[1], embeddings=embedded)
    sampler = Sampler(backend, num_inference_steps=2)
    assert torch.equal(sampler.sample("").x, sampler.sample(UNCONDITIONAL).x)
    assert torch.equal(sampler.sample().x, sampler.sample(UNCONDITIONAL).x)


def test_embeddings_for_another_kind_of_model_raise(folder, embedded, tmp_path):
    other = tmp_path / "alike.safetensors"
    save_file(load_file(embedded), other, {"kind": "StableDiffusion3Pipeline"})
    with pytest.raises(ValueError, match="must hold embeddings for a T5EncoderModel, got those"):
        load_deepfloyd(folder, embeddings=other)
