"""Choosing: scores from files are those of the images; CLIP's are what the paper writes."""

import json

import pytest
import torch
from PIL import Image

import composer
from composer import Sampler, get_transform, installed
from composer.arguments import FromRecipe
from composer_plugins import CFG, Anagram, ReadsAs
from composer_studio import ClipAlignment, ClipConcealment
from composer_studio.folders import locked, read_rows
from composer_studio.scoring import score_of, scores_of

VIEWS = {"identity": 6, "rotate_180": 9}
PROMPTS = {"identity": "a duck", "flip": "a rabbit"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The folder of a tiny CLIP with a tokenizer of letters."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    size = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
    }
    torch.manual_seed(0)
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": 0}
    config = CLIPConfig(
        text_config={**size, **ends, "vocab_size": len(words), "max_position_embeddings": 20},
        vision_config={**size, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Five pictures of an anagram, and a sheet, which carries no recipe."""
    sampler = Sampler(
        composer.load_backend("mnist"), [Anagram(VIEWS), CFG(4.0)], num_inference_steps=4
    )
    result = sampler.sample(seeds=range(5))
    result.save(tmp_path / "made")
    result.sheet().save(tmp_path / "made" / "sheet.png")
    return tmp_path / "made"


def test_rank_scores_files_as_the_score_does_and_copies_the_best(studio, folder):
    done = studio("rank", folder, "--score", "reads_as", "--best", 2)
    assert done.exit_code == 0, done.output
    images = torch.stack([_pixels(folder / f"{k:04d}.png") for k in range(5)])
    expected = ReadsAs(VIEWS)(images)
    rows = {row["file_name"]: row for row in read_rows(folder)}
    assert rows.keys() == {f"{k:04d}.png" for k in range(5)}
    found = torch.tensor([rows[f"{k:04d}.png"]["reads_as"] for k in range(5)])
    torch.testing.assert_close(found, expected.cpu(), atol=1e-4, rtol=1e-4)
    best = expected.argsort(descending=True)[:2].tolist()
    out = folder.with_name("made-best")
    assert {p.name for p in out.iterdir()} == {"sheet.png", *(f"{k:04d}.png" for k in best)}
    again = studio("rank", folder, "--score", '{use = "reads_as", views = {identity = 9}}')
    assert again.exit_code == 0
    assert read_rows(folder)[0]["reads_as"] != pytest.approx(float(found[0]), abs=1e-9)


def _pixels(file):
    import numpy as np

    with Image.open(file) as picture:
        return torch.from_numpy(np.array(picture, np.float32))[None] / 127.5 - 1


def test_a_picture_that_was_made_again_counts_once(studio, folder):
    assert studio("replay", folder / "0001.png").exit_code == 0
    (folder / "0002.png").rename(folder / "0002-again.png")  # the only one of its seed
    done = studio("rank", folder, "--score", "reads_as")
    assert "5 pictures scored" in done.output
    names = {row["file_name"] for row in read_rows(folder)}
    assert names == {"0000.png", "0001.png", "0002-again.png", "0003.png", "0004.png"}
    assert "-again.png" in studio("rank", "--help").output


def test_enlarged_pictures_have_the_same_scores(studio, tmp_path):
    sampler = Sampler(composer.load_backend("mnist"), [Anagram(VIEWS)], num_inference_steps=3)
    result = sampler.sample(seeds=range(3))
    for size in (28, 280):
        result.save(tmp_path / str(size), size)
        assert studio("rank", tmp_path / str(size), "--score", "reads_as").exit_code == 0
    small, large = (read_rows(tmp_path / size) for size in ("28", "280"))
    assert [r["reads_as"] for r in small] == pytest.approx([r["reads_as"] for r in large], abs=1e-4)


def test_a_folder_without_recipes_stays_as_it_was(studio, tmp_path):
    Image.new("L", (28, 28)).save(tmp_path / "plain.png")
    done = studio("rank", tmp_path, "--score", "reads_as")
    assert "no picture in it carries a recipe" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["plain.png"]


def test_a_held_folder_is_left_alone(studio, folder):
    with locked(folder):
        done = studio("rank", folder, "--score", "reads_as")
    assert done.exit_code == 2
    assert "another command is writing into it" in done.stderr
    assert not (folder / "metadata.jsonl").exists()


def test_clip_scores_are_the_formulas_of_the_paper(clip):
    from transformers import CLIPModel, CLIPTokenizer

    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    network = CLIPModel.from_pretrained(clip).eval()
    tokens = CLIPTokenizer.from_pretrained(clip)(
        [*PROMPTS.values()], padding=True, return_tensors="pt"
    )
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    logits = []
    with torch.no_grad():
        for view in PROMPTS:
            pixels = ((get_transform(view)(x) + 1) / 2 - mean) / std
            logits.append(network(**tokens, pixel_values=pixels).logits_per_image)
    tau = network.logit_scale.exp()
    s = torch.stack(logits, 1) / tau  # (B, view, prompt)
    alignment = torch.stack([s[:, 0, 0], s[:, 1, 1]], 1).amin(1)
    concealment = sum(torch.einsum("bii->b", (s * tau).softmax(axis)) for axis in (1, 2)) / (
        2 * len(PROMPTS)
    )
    model = str(clip)
    torch.testing.assert_close(ClipAlignment(PROMPTS, model)(x), alignment.detach())
    torch.testing.assert_close(ClipConcealment(PROMPTS, model)(x), concealment.detach())


def test_clip_says_when_it_is_not_there_and_reads_no_folder_of_a_recipe(clip, monkeypatch):
    with pytest.raises(OSError, match="is not on this machine. Run `hf download"):
        ClipAlignment(PROMPTS, "owner/none")(torch.zeros(1, 1, 8, 8))
    with pytest.raises(TypeError, match="a recipe must leave model away"):
        ClipAlignment(PROMPTS, FromRecipe(str(clip)))
    assert {"clip_alignment", "clip_concealment"} <= {n for k, n in installed().offers}


def test_a_typed_score_may_name_a_folder_and_another_may_not(clip):
    named = {"score": "clip_alignment", "options": {"model": str(clip)}}
    views = {"pairs": [["flip", "a cat"]]}
    recipe = {"plugins": [{"plugin": "anagram", "options": {"views": views}}]}
    score = score_of(named, recipe, typed=True)
    assert len(scores_of(score, torch.zeros(2, 1, 28, 28))) == 2
    with pytest.raises(TypeError, match="a recipe must leave model away"):
        score_of(named, recipe)
    with pytest.raises(ValueError, match="needs the option 'views', which no plugin"):
        score_of(named, {}, typed=True)


@pytest.mark.parametrize("wrong", [lambda x: x, lambda x: [1.0], lambda x: x[:, 0, 0, 0] / 0])
def test_a_score_must_return_a_finite_number_an_image(wrong):
    with pytest.raises(ValueError, match="one finite number an image"):
        scores_of(wrong, torch.zeros(2, 1, 8, 8))
