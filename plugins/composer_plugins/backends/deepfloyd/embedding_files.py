"""The files of prompt embeddings: tensors (1, L, D) by prompt; "" is the negative prompt.

A safetensors file, which is also written, or a dictionary written by torch.save (.pt, .pth; read
with weights_only=True).
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from composer.images import all_finite
from composer.writing import make_folder, write_atomically

NEGATIVE = ""
"""The empty prompt, which stands for no condition."""
ALIKE = 0.9
"""Smallest cosine between two embeddings of one prompt by one encoder."""
KEPT = ".safetensors"
"""The ending of files that are written; others are only read."""
READERS: dict[str, Callable[[Path], object]] = {
    KEPT: load_file,
    ".pt": partial(torch.load, weights_only=True, map_location="cpu"),
    ".pth": partial(torch.load, weights_only=True, map_location="cpu"),
}
RESERVED = "__metadata__"
"""No tensor of a safetensors file may have this name: the file could not be read again."""


Tidy = Callable[[str], str]
"""A prompt -> its stored name, equal for prompts that the encoder treats alike."""


def tidy(prompt: str) -> str:
    """A prompt as diffusers passes it to the T5 of IF, interned."""
    return sys.intern(prompt.lower().strip())


def verbatim(prompt: str) -> str:
    """A prompt as it is, interned, for encoders that are case-sensitive."""
    return sys.intern(str(prompt))  # that of a recipe is of a class of its own


def read_embeddings(file: Path, name: Tidy = tidy) -> dict[str, Tensor]:
    """All embeddings of a file, by tidy prompt.

    Raises:
        ValueError: the file cannot be read, or holds something else.
    """
    if file.suffix not in READERS:
        raise ValueError(
            f"{file} must end in {', '.join(READERS)}, the kinds that hold embeddings."
        )
    with _readable(file):
        content = READERS[file.suffix](file)
    if not isinstance(content, Mapping) or not all(
        isinstance(prompt, str) and isinstance(text, Tensor) and text.is_floating_point()
        for prompt, text in content.items()
    ):
        raise ValueError(f"{file} must hold a dictionary of prompts and their embeddings.")
    return {name(prompt): text for prompt, text in content.items()}


def read_prompts(file: Path, name: Tidy = tidy) -> set[str]:
    """The tidy prompts of a safetensors file, without reading embeddings; none without a file.

    Raises:
        ValueError: the file cannot be read.
    """
    if not file.is_file():
        return set()
    with _readable(file), safe_open(file, framework="pt") as content:
        return {name(key) for key in content.keys()}  # noqa: SIM118  # it is no dictionary


def add_embeddings(
    file: Path,
    embeddings: Mapping[str, Tensor],
    model: str,
    negative: Tensor | None = None,
    name: Tidy = tidy,
    kind: str = "",
) -> None:
    """Add embeddings to a safetensors file, new or existing; a crash leaves it as it was.

    Args:
        model: the model of the text encoder, written into the file.
        negative: the embedding of the empty prompt, which is added too and identifies the encoder;
            None takes it from ``embeddings``, if it is there.
        name: under which each prompt is kept.
        kind: of the text encoder, written into the file.

    Raises:
        ValueError: an embedding is not finite, or the file is of another text encoder.
        OSError: it cannot be written.
    """
    given = {name(prompt): text for prompt, text in embeddings.items()}
    ours = given.get(NEGATIVE) if negative is None else negative
    added = given if ours is None else {NEGATIVE: ours, **given}
    for prompt, text in added.items():
        require_numbers(prompt, text, f"by the text encoder of {model}")
    owner = require_encoder(file, ours, model)
    stored = read_embeddings(file, name) if file.is_file() else {}
    together = {_name(p): t.contiguous() for p, t in {**added, **stored, **given}.items()}
    make_folder(file.parent)
    facts = {"model": owner, "kind": kind}
    write_atomically(file, lambda place: save_file(together, place, facts))


def require_encoder(file: Path, negative: Tensor | None, model: str) -> str:
    """Raise a ValueError for an existing safetensors file of another encoder than that of
    ``negative``.

    The models of IF share one encoder under different names, and a folder may change its content.
    So the model's name decides only if the file has no embedding of "".

    Returns:
        The model whose encoder wrote the file, by the file's metadata.

    Raises:
        ValueError: another encoder wrote the file.
    """
    if not file.is_file():
        return model
    with _readable(file), safe_open(file, framework="pt") as content:
        owner = str((content.metadata() or {}).get("model", "an unknown model"))
        names = {tidy(name): name for name in content.keys()}  # noqa: SIM118
        known = content.get_tensor(names[NEGATIVE]) if NEGATIVE in names else None
    same = not names or owner == model
    if known is not None and negative is not None:
        same = _alike(known, negative)
    if not same:
        raise ValueError(
            f"{file} must hold embeddings by the text encoder of {model}, got those of {owner}. "
            "Name another file."
        )
    return owner if names else model


def require_kind(file: Path, kind: str) -> None:
    """Raise a ValueError for a safetensors file that a text encoder of another kind wrote."""
    with _readable(file), safe_open(file, framework="pt") as content:
        facts = content.metadata() or {}
    if (facts.get("kind") or kind) != kind:
        raise ValueError(
            f"{file} must hold embeddings for a {kind}, got those of {facts.get('model')}, for a "
            f"{facts['kind']}. Name another file, or make one with `composer embed`."
        )


def _name(prompt: str) -> str:
    """The name of a tidy prompt's tensor, which ``tidy`` maps back to the prompt."""
    return prompt.upper() if prompt == RESERVED else prompt


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """A context for reading a file.

    Raises:
        ValueError: replaces the error of a library.
    """
    try:
        yield
    except Exception as error:  # what unpickling a damaged file raises is not foreseeable
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{file} cannot be read ({reason}). Write it anew.") from error


def require_numbers(prompt: str, text: Tensor, place: str, fewest: int = 0) -> None:
    """Raise a ValueError for an embedding that is empty or, as T5 in float16 may give, not finite.

    Args:
        fewest: tokens of the empty prompt; of encoders that add none it has 0.
    """
    tokens = fewest if prompt == NEGATIVE else 1
    short = text.shape[-1] == 0 or (text.ndim == 3 and text.shape[1] < tokens)
    if short or not all_finite(text):
        raise ValueError(
            f"The embedding of {prompt!r} {place} is empty, or not finite in {text.dtype}. Make it "
            "anew, in float32 or bfloat16."
        )


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two embeddings of a prompt are of one encoder, possibly in two dtypes."""
    if one.ndim != other.ndim or one.shape[-1] != other.shape[-1]:
        return False
    tokens = min(one.shape[-2], other.shape[-2])
    if tokens == 0:
        return one.shape == other.shape
    a, b = (text[..., :tokens, :].float().flatten() for text in (one, other))
    return float(torch.cosine_similarity(a, b, dim=0)) > ALIKE


def cache_file(model: str) -> Path:
    """The file of the embeddings of a model's encoder: under ``$XDG_CACHE_HOME/composer``."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(model).expanduser()
    name = model.replace("/", "--")
    if folder.is_dir():  # two folders may have the same name
        place = str(folder.resolve())
        name = f"{folder.resolve().name}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
    return cache / "composer" / "embeddings" / f"{name}.safetensors"
