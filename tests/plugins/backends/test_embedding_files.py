"""Files of prompt embeddings: any prompt is kept, and none spoils the file."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from composer_plugins.backends.deepfloyd.embedding_files import (
    RESERVED,
    add_embeddings,
    read_embeddings,
    read_prompts,
    tidy,
)

texts = st.text(max_size=20) | st.sampled_from(
    [RESERVED, RESERVED.upper(), f" {RESERVED}\n", f"\\{RESERVED}", f"{RESERVED} cat", "", "\x00"]
)


def embedding(value):
    return torch.full((1, 2, 3), float(value))


@settings(max_examples=60)
@given(st.lists(st.lists(texts, max_size=4), min_size=1, max_size=4))
@example([[RESERVED], ["a"]])
@example([[RESERVED.upper(), RESERVED], [RESERVED]])
def test_a_file_keeps_every_prompt_whatever_else_is_added(tmp_path, rounds):
    file = tmp_path / "x.safetensors"
    file.unlink(missing_ok=True)
    expected = {}
    for number, prompts in enumerate(rounds):
        added = {prompt: embedding(number + 1) for prompt in prompts}
        add_embeddings(file, added, "someone's", embedding(0.5))
        expected |= {tidy(prompt): embedding(number + 1) for prompt in prompts}
        expected.setdefault("", embedding(0.5))
        read = read_embeddings(file)
        assert read.keys() == read_prompts(file) == expected.keys()
        assert all(torch.equal(read[prompt], text) for prompt, text in expected.items())


@given(st.sets(texts, max_size=4).map(lambda prompts: {tidy(p) for p in prompts} - {RESERVED}))
def test_files_of_the_version_before_are_read_and_added_to(tmp_path, prompts):
    """It wrote each prompt as it is; it, too, reads what is written now."""
    file = tmp_path / "x.safetensors"
    stored = {prompt: embedding(n) for n, prompt in enumerate(sorted(prompts))}
    save_file(stored, file, {"model": "someone's"})
    assert read_prompts(file) == stored.keys()
    add_embeddings(file, {RESERVED: embedding(9)}, "someone's")
    read = read_embeddings(file)
    assert read.keys() == {*stored, RESERVED}
    assert all(torch.equal(read[prompt], text) for prompt, text in stored.items())
    assert {tidy(name) for name in load_file(file)} == read.keys()


def test_prompts_of_a_damaged_file_are_a_sentence(tmp_path):
    assert read_prompts(tmp_path / "none.safetensors") == set()
    (tmp_path / "x.safetensors").write_bytes(b"something")
    with pytest.raises(ValueError, match=r"x.safetensors cannot be read \(.*\)\. Write it anew"):
        read_prompts(tmp_path / "x.safetensors")
