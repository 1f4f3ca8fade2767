"""The text encoders of a latent model, in memory only for as long as there is text to encode."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from composer_plugins.backends.deepfloyd.reading import legible, require_packages
from composer_plugins.backends.files import Source, read_json, require_vocabulary
from composer_plugins.backends.latent.families import Encoded, Family
from composer_plugins.backends.memory import room_for_weights

EXTRA = "pip install 'diffusion-composer[latent]'"
TEXTS = ("text_encoder", "text_encoder_2", "text_encoder_3")
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
NOT_FOR_TEXT = {
    *("unet", "transformer", "vae", "scheduler"),
    *("safety_checker", "feature_extractor", "image_encoder"),
}


def _require_tokenizers(folder: Path, index: Mapping[str, Any]) -> None:
    """Raise a ValueError for a tokenizer of the pipeline that diffusers would read incompletely."""
    for name in TOKENIZERS:
        if index.get(name) in (None, [None, None]):
            continue
        require_vocabulary(folder / name)
        settings = folder / name / "tokenizer_config.json"
        if not settings.is_file():  # it has the largest number of tokens
            raise ValueError(f"There is no file {settings}. Download it again.")


def packed(encoded: Encoded) -> Tensor:
    """Tokens (1, L, D), followed by the pooled embedding in rows of D, padded with zeros."""
    tokens, pooled = encoded
    if pooled is None:
        return tokens
    width = tokens.shape[2]
    rows = F.pad(pooled, (0, -pooled.shape[1] % width)).view(1, -1, width)
    return torch.cat([tokens, rows.to(tokens)], 1)


def unpacked(text: Tensor, pooled: int) -> tuple[Tensor, Tensor]:
    """Tokens (L, D) and the pooled embedding (P,) of a packed (1, L + ceil(P / D), D)."""
    rows = -(-pooled // text.shape[2])
    length = text.shape[1] - rows
    return text[0, :length], text[0, length:].flatten()[:pooled]


@dataclass(eq=False)
class PipelineText:
    """The text encoders of a pipeline of diffusers, by its own ``encode_prompt``.

    Args:
        source: the pipeline, whose text encoders and tokenizers are read when first used.
        family: its family.
        device, dtype: device and dtype of the encoders.
        variant: of their weights, such as "fp16".
    """

    source: Source
    family: Family
    device: torch.device
    dtype: torch.dtype
    variant: str | None = None
    _pipeline: Any = field(default=None, init=False, repr=False)

    @property
    def kind(self) -> str:
        return self.family.pipeline

    @torch.no_grad()
    def __call__(self, prompt: str) -> Tensor:
        """The packed embedding (1, L, D) of a prompt, on the CPU."""
        if self._pipeline is None:
            self._pipeline = self._load()
        self._warn_of_length(prompt)
        return packed(self.family.encode(self._pipeline, prompt, self.device)).cpu()

    def free(self) -> None:
        """Free the networks; the next new prompt reads them again."""
        if self._pipeline is None:
            return
        self._pipeline = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _warn_of_length(self, prompt: str) -> None:
        for name, limit in self.family.limits.items():
            tokenizer = getattr(self._pipeline, name, None)
            if tokenizer is None:
                continue
            most = tokenizer.model_max_length if limit is None else limit
            count = len(tokenizer(prompt, truncation=False).input_ids)
            if count > most:
                warnings.warn(
                    f"{self.source.model}: its {name} reads {most} tokens of a prompt; the last "
                    f"{count - most} of the {count} of {prompt!r:.80} are cut off. Shorten it.",
                    stacklevel=2,
                )

    def _load(self) -> Any:
        require_packages("encoding prompts", "transformers", advice=EXTRA)
        import diffusers  # noqa: PLC0415  # slow

        folder = self.source.fetch(self._files())
        index = read_json(folder / "model_index.json")
        _require_tokenizers(folder, index)
        unread = {*NOT_FOR_TEXT, *(part for part, kind in index.items() if kind == [None, None])}
        absent = dict.fromkeys(unread & index.keys())
        lighter = "Read them with dtype='bfloat16', or run `composer embed` elsewhere"
        with legible(folder), room_for_weights(folder, lighter):
            pipeline = getattr(diffusers, self.family.pipeline).from_pretrained(
                folder,
                dtype=self.dtype,
                variant=self.variant,
                local_files_only=True,
                use_safetensors=True,
                **absent,
            )
        with room_for_weights(folder, lighter):
            pipeline.to(self.device)
        setattr(pipeline, self.family.part, self._described(folder))
        return pipeline

    def _files(self) -> list[str]:
        """Patterns of the files to read; one variant only, or T5 would be downloaded twice."""
        stem = "model" if self.variant is None else f"model.{self.variant}"
        parts = [
            f"{part}/{pattern}"
            for part in TEXTS
            for pattern in ("*.json", f"{stem}.safetensors", f"{stem}-*.safetensors")
        ]
        words = [f"{tokenizer}/*" for tokenizer in TOKENIZERS]
        return ["model_index.json", f"{self.family.part}/config.json", *words, *parts]

    def _described(self, folder: Path) -> Any:
        """A stand-in for the denoiser with its configuration, which ``encode_prompt`` needs."""
        config = read_json(folder / self.family.part / "config.json")
        return SimpleNamespace(config=SimpleNamespace(**config), dtype=self.dtype)
