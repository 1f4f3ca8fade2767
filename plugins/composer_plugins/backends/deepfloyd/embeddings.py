"""Prompt embeddings, in memory and on disk: who has them needs no text encoder.

A file maps prompts to tensors (1, L, D): a safetensors file, or a dictionary written by torch.save
(.pt, .pth; read with weights_only=True). The prompt "" is the unconditional one.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from composer import UNCONDITIONAL
from composer.images import all_finite
from composer.writing import (
    make_folder,
    require_file,
    require_writable,
    write_atomically,
)
from composer_plugins.backends.deepfloyd.text import TextEncoder

NEGATIVE = ""
"""The empty prompt, which stands for no condition."""
ALIKE = 0.9
"""Cosine of the angle between two embeddings of one prompt by one encoder, at least."""


class Embeddings:
    """What prompts look like to the UNet: from a file, and of new prompts from a text encoder.

    New embeddings are added to the file if it is a safetensors file; others are only read. A file
    may serve several stages of a model, and all models of one text encoder: what one of them has
    encoded the others read.

    Args:
        file: a file as described above. A safetensors file need not exist if there is an encoder.
        width: D, as the UNet takes it.
        encoder: None if all that will be asked is in the file.
        device: of the embeddings given out.
        model: whose encoder it is, for the file to say.

    Raises:
        ValueError, OSError: a file that cannot be read, or that holds something else.
    """

    def __init__(
        self,
        file: Path,
        width: int,
        encoder: TextEncoder | None = None,
        device: torch.device | None = None,
        model: str = "",
    ) -> None:
        require_file(file)
        if not file.is_file():
            if encoder is None:
                raise ValueError(
                    f"there is no file {file} and no text encoder to write it; make it with "
                    "`composer embed`"
                )
            if file.suffix != KEPT:
                raise ValueError(
                    f"there is no file {file}, and none but {KEPT} is written; name one that is "
                    f"there, or a {KEPT}"
                )
        self.file = file
        self.width = width
        self.encoder = encoder
        self.model = model
        self.device = device or torch.device("cpu")
        self._known: dict[str, Tensor] = {}
        self._negative: Tensor | None = None
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
        try:
            prompt.encode()
        except UnicodeEncodeError as error:  # half of a surrogate pair
            raise ValueError(f"a prompt must be text, and {prompt!r} is cut in a letter") from error
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
            command = f"`composer embed {shlex.quote(kept)} --cache {self.file}`, with --model"
            mend = f"it with {command}" if self.file.suffix == KEPT else "it to the file"
            raise ValueError(
                f"{what} has no embedding in {self.file}, and there is no text encoder; add {mend}"
            )
        if self.file.suffix == KEPT:
            require_writable(self.file)  # before the encoder is read, which takes minutes
        if self._negative is None:
            self._negative = self.encoder(NEGATIVE)
        text = self._negative if kept == NEGATIVE else self.encoder(kept)
        fitting = self._checked(kept, text, f"by the text encoder of {self.model}")
        if self.file.suffix == KEPT:
            add_embeddings(self.file, {kept: text}, self.model, self._negative)
        self._known[kept] = fitting
        return kept

    def free_encoder(self) -> None:
        """Give the text encoder's memory back; it is read again for a new prompt."""
        if self.encoder is not None:
            self.encoder.free()

    def _read(self) -> None:
        """Learn what is new in the file."""
        stored = read_embeddings(self.file) if self.file.is_file() else {}
        new = {prompt: text for prompt, text in stored.items() if prompt not in self._known}
        place = f"in {self.file}"
        self._known |= {prompt: self._checked(prompt, text, place) for prompt, text in new.items()}
        self._warn_of_rough({text.dtype for text in new.values()})

    def _warn_of_rough(self, dtypes: Iterable[torch.dtype]) -> None:
        """Files may be made elsewhere in fewer bits, but not pass for what was asked here."""
        if self.encoder is None:
            return
        finest = torch.finfo(self.encoder.dtype).eps
        if rough := [str(dtype) for dtype in dtypes if torch.finfo(dtype).eps > finest]:
            warnings.warn(
                f"{self.file} has embeddings in {' and '.join(sorted(rough))}, less exact than "
                f"the {self.encoder.dtype} asked for; they are used, and another file would have "
                "them made anew",
                stacklevel=2,
            )

    def _checked(self, prompt: str, text: Tensor, place: str) -> Tensor:
        if text.ndim != 3 or len(text) != 1 or text.shape[2] != self.width:
            raise ValueError(
                f"the embedding of {prompt!r} {place} has the shape {tuple(text.shape)} and the "
                f"UNet takes (1, L, {self.width}); it was made by another text encoder"
            )
        require_numbers(prompt, text, place)
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


KEPT = ".safetensors"
"""The ending of files that are written; others are only read."""
READERS: dict[str, Callable[[Path], object]] = {
    KEPT: load_file,
    ".pt": partial(torch.load, weights_only=True, map_location="cpu"),
    ".pth": partial(torch.load, weights_only=True, map_location="cpu"),
}


def add_embeddings(
    file: Path, embeddings: Mapping[str, Tensor], model: str, negative: Tensor | None = None
) -> None:
    """Add to a safetensors file, which is made if need be; a crash leaves it as it was.

    Args:
        model: whose text encoder they are by, for the file to say.
        negative: what it makes of the empty prompt, which is added too, for a file of another one
            to be recognised by; None takes it from ``embeddings``, if it is there.

    Raises:
        ValueError: they are no numbers, or the file is of another text encoder.
        OSError: it cannot be written.
    """
    ours = embeddings.get(NEGATIVE) if negative is None else negative
    added = dict(embeddings) if ours is None else {NEGATIVE: ours, **embeddings}
    for prompt, text in added.items():
        require_numbers(prompt, text, f"by the text encoder of {model}")
    stored = require_encoder(file, ours, model)
    owner = _owner(file) if stored else model
    together = {p: t.contiguous() for p, t in {**added, **stored, **embeddings}.items()}
    make_folder(file.parent)
    write_atomically(file, lambda place: save_file(together, place, {"model": owner}))


def require_encoder(file: Path, negative: Tensor | None, model: str) -> dict[str, Tensor]:
    """What a file holds, if it is there, and by the encoder that made ``negative`` of "".

    The models of IF share their encoder, whatever they are called, and a folder may come to hold
    another: so names tell only where the file has no "".

    Raises:
        ValueError: it is by another.
    """
    stored = read_embeddings(file) if file.is_file() else {}
    known = stored.get(NEGATIVE)
    owner = _owner(file) if stored else model
    same = owner == model
    if known is not None and negative is not None:
        same = _alike(known, negative)
    if not same:
        raise ValueError(
            f"{file} holds embeddings by another text encoder, that of {owner}, not of {model}; "
            "name another file"
        )
    return stored


def require_numbers(prompt: str, text: Tensor, place: str) -> None:
    """Refuse an embedding that is empty, or not finite as those of T5 in float16 may be."""
    if not text.numel() or not all_finite(text):
        raise ValueError(
            f"the embedding of {prompt!r} {place} is empty, or not finite in {text.dtype}; make it "
            "anew, in float32 or bfloat16"
        )


def _owner(file: Path) -> str:
    with safe_open(file, framework="pt") as content:
        return str((content.metadata() or {}).get("model", "an unknown model"))


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two embeddings of a prompt are by one encoder, be it in two dtypes."""
    if one.ndim != other.ndim or one.shape[-1] != other.shape[-1]:
        return False
    tokens = min(one.shape[-2], other.shape[-2])
    a, b = (text[..., :tokens, :].float().flatten() for text in (one, other))
    return float(torch.cosine_similarity(a, b, dim=0)) > ALIKE


def cache_file(model: str) -> Path:
    """Where the embeddings of a model's encoder are kept: under ``$XDG_CACHE_HOME/composer``."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(model).expanduser()
    name = model.replace("/", "--")
    if folder.is_dir():  # two folders may have the same name
        place = str(folder.resolve())
        name = f"{folder.resolve().name}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
    return cache / "composer" / "embeddings" / f"{name}.safetensors"
