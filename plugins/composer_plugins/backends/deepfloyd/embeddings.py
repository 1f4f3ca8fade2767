"""Prompt embeddings: with embeddings in a file, no text encoder is needed."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from composer import UNCONDITIONAL
from composer.errors import shown
from composer.writing import require_file, require_writable
from composer_plugins.backends.deepfloyd.embedding_files import (
    KEPT,
    NEGATIVE,
    Tidy,
    add_embeddings,
    cache_file,
    read_embeddings,
    require_kind,
    require_numbers,
    tidy,
)

__all__ = ["Embeddings", "add_embeddings", "cache_file"]


class Encoder(Protocol):
    """A text encoder, in memory only for as long as there is text to encode."""

    dtype: torch.dtype

    @property
    def kind(self) -> str:
        """What it encodes for; models of other kinds cannot use its embeddings."""
        ...

    def __call__(self, prompt: str) -> Tensor:
        """The embedding (1, L, D) of a prompt, on the CPU."""
        ...

    def free(self) -> None:
        """Free the network until the next new prompt."""
        ...


class Embeddings:
    """Prompt embeddings for a UNet: from a file and, for new prompts, from a text encoder.

    New embeddings are added to the file if it is a safetensors file; others are only read. Several
    stages of a model, and all models of one text encoder, may share a file.

    Args:
        file: see :mod:`.embedding_files`. A safetensors file need not exist if there is an encoder.
        width: D, as the UNet takes it.
        encoder: None if the file holds every prompt.
        device: device of the returned embeddings.
        model: the model of the encoder, written into the file.
        name: maps a prompt to its stored name; ``tidy`` ignores case.
        fewest: tokens of the empty prompt, 0 or 1.
        kind: that of the encoder that a safetensors file must be of; "" for any.

    Raises:
        ValueError, OSError: a file that cannot be read, or that holds something else.
    """

    def __init__(
        self,
        file: Path,
        width: int,
        encoder: Encoder | None = None,
        device: torch.device | None = None,
        model: str = "",
        name: Tidy = tidy,
        fewest: int = 1,
        kind: str = "",
    ) -> None:
        require_file(file)
        if not file.is_file():
            if encoder is None:
                raise ValueError(
                    f"There is no file {file}, and no text encoder to write it. Make it with "
                    "`composer embed`."
                )
            if file.suffix != KEPT:
                raise ValueError(
                    f"There is no file {file}, and only {KEPT} files are written. Name one that "
                    f"exists, or a {KEPT} file."
                )
        self.file = file
        self.width = width
        self.encoder = encoder
        self.model = model
        self.name = name
        self.fewest = fewest
        self.kind = kind
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
            ValueError: the condition is neither.
        """
        prompt = NEGATIVE if condition is UNCONDITIONAL else condition
        if not isinstance(prompt, str):
            raise ValueError(f"a condition must be a prompt, a string, got {shown(condition)}.")
        try:
            prompt.encode()
        except UnicodeEncodeError as error:  # half of a surrogate pair
            raise ValueError(
                f"a prompt must be text, and {prompt!r} is cut within a letter."
            ) from error
        return self.prompt(prompt)

    def prompt(self, prompt: str) -> str:
        """The stored name of a prompt, the same object each time; its embedding is then available.

        Raises:
            ValueError: the prompt is not in the file, and there is no encoder.
        """
        kept = self.name(prompt)
        if kept not in self._known:
            self._read()  # another stage of the model may have written it since
        if kept in self._known:
            return kept
        if self.encoder is None:
            what = f"{prompt!r}" if kept else "the empty prompt '', the negative of guidance,"
            command = f"`composer embed {shlex.quote(kept)} --cache {self.file}`, with --model"
            advice = f"it with {command}" if self.file.suffix == KEPT else "it to the file"
            raise ValueError(
                f"{what} has no embedding in {self.file}, and there is no text encoder. Add "
                f"{advice}."
            )
        if self.file.suffix == KEPT:
            require_writable(self.file)  # before the encoder is read, which takes minutes
        if self._negative is None:
            self._negative = self.encoder(NEGATIVE)
        text = self._negative if kept == NEGATIVE else self.encoder(kept)
        fitting = self._checked(kept, text, f"by the text encoder of {self.model}")
        if self.file.suffix == KEPT:
            add_embeddings(
                *(self.file, {kept: text}, self.model, self._negative, self.name),
                self.encoder.kind,
            )
        self._known[kept] = fitting
        return kept

    def free_encoder(self) -> None:
        """Free the text encoder's memory; the next new prompt reads it again."""
        if self.encoder is not None:
            self.encoder.free()

    def _read(self) -> None:
        """Read the new entries of the file."""
        if self.kind and self.file.suffix == KEPT and self.file.is_file():
            require_kind(self.file, self.kind)
        stored = read_embeddings(self.file, self.name) if self.file.is_file() else {}
        new = {prompt: text for prompt, text in stored.items() if prompt not in self._known}
        place = f"in {self.file}"
        self._known |= {prompt: self._checked(prompt, text, place) for prompt, text in new.items()}
        self._warn_of_rough({text.dtype for text in new.values()})

    def _warn_of_rough(self, dtypes: Iterable[torch.dtype]) -> None:
        """Warn if a file holds embeddings of a less exact dtype than the requested one."""
        if self.encoder is None:
            return
        finest = torch.finfo(self.encoder.dtype).eps
        if rough := [str(dtype) for dtype in dtypes if torch.finfo(dtype).eps > finest]:
            warnings.warn(
                f"{self.file} has embeddings in {' and '.join(sorted(rough))}, less exact than "
                f"the requested {self.encoder.dtype}. They are used all the same. Name another "
                "file to make them anew.",
                stacklevel=2,
            )

    def _checked(self, prompt: str, text: Tensor, place: str) -> Tensor:
        if text.ndim != 3 or len(text) != 1 or text.shape[2] != self.width:
            raise ValueError(
                f"The embedding of {prompt!r} {place} must have the shape (1, L, {self.width}), "
                f"got {tuple(text.shape)}. Make it with the text encoder of this model."
            )
        require_numbers(prompt, text, place, self.fewest)
        return text.to(self.device)
