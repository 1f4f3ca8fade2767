"""Prompt embeddings, in memory and on disk: who has them needs no text encoder.

A file maps prompts to tensors (1, L, D): a safetensors file, or a dictionary written by torch.save
(.pt, .pth; read with weights_only=True). The prompt "" is the unconditional one.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from composer import UNCONDITIONAL
from composer_plugins.backends.deepfloyd.text import TextEncoder
from composer_plugins.writing import write_atomically

NEGATIVE = ""
"""The empty prompt, which stands for no condition."""


class Embeddings:
    """What prompts look like to the UNet: from a file, and of new prompts from a text encoder.

    New embeddings are added to the file if it is a safetensors file; others are only read. A file
    may serve several stages of a model: what one of them has encoded the others read.

    Args:
        file: a file as described above, which need not exist if there is an encoder.
        width: D, as the UNet takes it.
        encoder: None if all that will be asked is in the file.
        device: of the embeddings given out.
        model: whose encoder it is, to keep the embeddings of different ones apart.

    Raises:
        ValueError: a file that cannot be read, or that holds something else.
    """

    def __init__(
        self,
        file: Path,
        width: int,
        encoder: TextEncoder | None = None,
        device: torch.device | None = None,
        model: str = "",
    ) -> None:
        if encoder is None and not file.is_file():
            raise ValueError(
                f"there is no file {file} and no text encoder to write it; make it with "
                "`composer embed`"
            )
        self.file = file
        self.width = width
        self.encoder = encoder
        self.model = model
        self.device = device or torch.device("cpu")
        self._known: dict[str, Tensor] = {}
        self._read()

    def __getitem__(self, prompt: str) -> Tensor:
        """The embedding (1, L, D) of a prompt that :meth:`prompt` returned."""
        return self._known[prompt]

    def encode(self, condition: Any) -> str:
        """:meth:`prompt` of a condition; no condition is the empty prompt.

        Raises:
            ValueError: it is none of the two.
        """
        prompt = NEGATIVE if condition is UNCONDITIONAL else condition
        if not isinstance(prompt, str):
            raise ValueError(f"a condition must be a prompt, a string, got {condition!r}")
        return self.prompt(prompt)

    def prompt(self, prompt: str) -> str:
        """The prompt as it is kept, the same object each time, its embedding now at hand.

        Raises:
            ValueError: it is not in the file, and there is no encoder.
        """
        kept = tidy(prompt)
        if kept not in self._known:
            self._read()  # another stage of the model may have written it since
        if kept in self._known:
            return kept
        if self.encoder is None:
            what = f"{prompt!r}" if kept else "the empty prompt '', the negative of guidance,"
            raise ValueError(
                f"{what} has no embedding in {self.file}, and there is no text encoder; add it "
                f"with `composer embed {kept!r}`"
            )
        text = self.encoder(kept)
        self._known[kept] = self._checked(kept, text)
        if self.file.suffix == ".safetensors":
            add_embeddings(self.file, {kept: text}, self.model)
        return kept

    def free_encoder(self) -> None:
        """Give the text encoder's memory back; it is read again for a new prompt."""
        if self.encoder is not None:
            self.encoder.free()

    def _read(self) -> None:
        """Learn what is new in the file."""
        stored = read_embeddings(self.file) if self.file.is_file() else {}
        new = {prompt: text for prompt, text in stored.items() if prompt not in self._known}
        self._known |= {prompt: self._checked(prompt, text) for prompt, text in new.items()}

    def _checked(self, prompt: str, text: Tensor) -> Tensor:
        if text.ndim != 3 or len(text) != 1 or text.shape[2] != self.width:
            raise ValueError(
                f"the embedding of {prompt!r} in {self.file} has the shape {tuple(text.shape)} and "
                f"the UNet takes (1, L, {self.width}); it was made by another text encoder"
            )
        return text.to(self.device)


def tidy(prompt: str) -> str:
    """A prompt as diffusers hands it to T5, interned."""
    return sys.intern(prompt.lower().strip())


def read_embeddings(file: Path) -> dict[str, Tensor]:
    """All embeddings of a file, by tidy prompt.

    Raises:
        ValueError: the file cannot be read, or holds something else.
    """
    if file.suffix not in READERS:
        raise ValueError(f"{file}: embeddings are read from {', '.join(READERS)}")
    try:
        content = READERS[file.suffix](file)
    except Exception as error:  # what unpickling a damaged file raises is not foreseeable
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{file} cannot be read ({reason}); write it anew") from error
    if not isinstance(content, Mapping) or not all(
        isinstance(prompt, str) and isinstance(text, Tensor) and text.is_floating_point()
        for prompt, text in content.items()
    ):
        raise ValueError(f"{file} must hold a dictionary of prompts and their embeddings")
    return {tidy(prompt): text for prompt, text in content.items()}


READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": load_file,
    ".pt": partial(torch.load, weights_only=True, map_location="cpu"),
    ".pth": partial(torch.load, weights_only=True, map_location="cpu"),
}


def add_embeddings(file: Path, embeddings: Mapping[str, Tensor], model: str) -> None:
    """Add to a safetensors file, which is made if need be; a crash leaves it as it was.

    Raises:
        ValueError: it holds the embeddings of another model.
    """
    stored: dict[str, Tensor] = {}
    if file.is_file():
        stored = read_embeddings(file)
        with safe_open(file, framework="pt") as content:
            owner = (content.metadata() or {}).get("model", model)
        if owner != model:
            raise ValueError(
                f"{file} holds embeddings by the text encoder of {owner}, not of {model}; name "
                "another file"
            )
    file.parent.mkdir(parents=True, exist_ok=True)
    together = {p: t.contiguous() for p, t in {**stored, **embeddings}.items()}
    write_atomically(file, lambda place: save_file(together, place, {"model": model}))


def cache_file(model: str) -> Path:
    """Where the embeddings of a model's encoder are kept: under ``$XDG_CACHE_HOME/composer``."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(model).expanduser()
    name = model.replace("/", "--")
    if folder.is_dir():  # two folders may have the same name
        place = str(folder.resolve())
        name = f"{folder.resolve().name}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
    return cache / "composer" / "embeddings" / f"{name}.safetensors"
