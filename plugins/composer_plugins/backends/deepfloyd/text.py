"""The text encoders, T5 and CLIP, in memory only for as long as there is text to encode."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from composer_plugins.backends.deepfloyd.reading import (
    EXTRA,
    readable,
    reason,
    require_packages,
)
from composer_plugins.backends.files import Source, require_all, require_vocabulary
from composer_plugins.backends.memory import room_for_weights

MAX_LENGTH = 77  # T5 reads more, but IF was trained on no more; CLIP reads no more
T5_KIND, CLIP_KIND = "T5EncoderModel", "CLIPTextModel"
KINDS = {1: T5_KIND, 2: T5_KIND, 3: CLIP_KIND}
"""The text encoder's class in transformers, of each stage."""
BITS = "pip install bitsandbytes accelerate, or leave text_8bit out"


@dataclass(eq=False)
class TextEncoder:
    """A text encoder: T5 as IF uses it, padded to 77 tokens, with a mask for T5 only, not for the
    UNet; or CLIP as the upscaler of stage III uses it, without a mask.

    Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
    Transformer", arXiv 1910.10683; Saharia et al. 2022 (Imagen), arXiv 2205.11487.

    Args:
        source: the pipeline whose text_encoder and tokenizer are read when first used.
        device, dtype: device and dtype of the encoder.
        kind: its class in transformers.
        masked: whether the encoder takes the mask of the padding.
        packages: packages that it needs.
        eight_bit: read it in 8 bits, in half of float16's memory; needs bitsandbytes. Dettmers et
            al. 2022, "LLM.int8()", arXiv 2208.07339.
        variant: variant of its weights, such as "fp16"; the plain weights if the variant does not
            exist.
        length: number of tokens that it reads; shorter prompts are padded to it.
        clean: function applied to a prompt first.
        trimmed: whether to return embeddings without the padding.
        extra: command that installs the packages.
    """

    source: Source
    device: torch.device
    dtype: torch.dtype
    kind: str = T5_KIND
    masked: bool = True
    packages: tuple[str, ...] = ("transformers", "sentencepiece", "google.protobuf")
    eight_bit: bool = False
    variant: str | None = None
    length: int = MAX_LENGTH
    clean: Callable[[str], str] = str
    trimmed: bool = False
    extra: str = EXTRA
    _loaded: tuple[Any, Any] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.eight_bit:
            require_packages("a text encoder in 8 bits", "bitsandbytes", "accelerate", advice=BITS)

    @torch.no_grad()
    def __call__(self, prompt: str) -> Tensor:
        """The embedding (1, L, D) of a prompt, on the CPU; L is ``length`` unless trimmed."""
        if self._loaded is None:
            self._loaded = self._load()
        tokenizer, encoder = self._loaded
        text = self.clean(prompt)
        tokens = tokenizer(
            text,
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self.device)
        self._warn_of_length(prompt, len(tokenizer(text).input_ids))
        mask = tokens.attention_mask if self.masked else None
        embedding: Tensor = encoder(tokens.input_ids, attention_mask=mask)[0]
        return (embedding[tokens.attention_mask.bool()][None] if self.trimmed else embedding).cpu()

    def _warn_of_length(self, prompt: str, count: int) -> None:
        if count > self.length:
            warnings.warn(
                f"{self.source.model} reads {self.length} tokens of a prompt; the last "
                f"{count - self.length} of {count} of {prompt!r:.80} are cut off. Shorten it.",
                stacklevel=3,
            )

    def free(self) -> None:
        """Free the network; the next new prompt reads it again."""
        if self._loaded is None:
            return
        self._loaded = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _load(self) -> tuple[Any, Any]:
        require_packages("encoding prompts", *self.packages, advice=self.extra)
        import transformers  # noqa: PLC0415  # slow, optional

        folder, variant = self._fetched()
        place, words = folder / "text_encoder", folder / "tokenizer"
        require_vocabulary(words)
        options = {}
        if self.eight_bit:  # bitsandbytes moves it to the device itself
            bits = transformers.BitsAndBytesConfig(load_in_8bit=True)
            options = {"quantization_config": bits, "device_map": {"": self.device}}
        lighter = (
            "Read them with dtype='float16' or text_8bit=True, or run `composer embed` elsewhere"
        )
        with readable(place), room_for_weights(place, lighter):
            # The dtype is always given: T5's configuration may say float16, which the UNet is
            # not, and a cast afterwards would also cast the layers that T5 keeps in float32.
            encoder, found = getattr(transformers, self.kind).from_pretrained(
                place,
                dtype=self.dtype,
                variant=variant,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
        tokenizer = _tokenizer(words)
        require_all(found["missing_keys"], place)
        if not self.eight_bit:
            with room_for_weights(place, lighter):
                encoder.to(self.device)
        return tokenizer, encoder.eval()

    def _fetched(self) -> tuple[Path, str | None]:
        """The folder with the files of one variant, and that variant."""
        for variant in dict.fromkeys((self.variant, None)):
            stem = "model" if variant is None else f"model.{variant}"
            # One variant only, or T5 would be downloaded twice.
            weights = f"text_encoder/{stem}.safetensors", f"text_encoder/{stem}-*.safetensors"
            folder = self.source.fetch(("tokenizer/*", "text_encoder/*.json", *weights))
            if any(file for pattern in weights for file in folder.glob(pattern)):
                break
        return folder, variant


def _tokenizer(place: Path) -> Any:
    import transformers  # noqa: PLC0415  # slow, optional

    try:
        return transformers.AutoTokenizer.from_pretrained(
            place, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library raises a plain Exception for a damaged file
        raise ValueError(f"{place} cannot be read ({reason(error)}). Download it again.") from error


CLIP = partial(TextEncoder, kind=CLIP_KIND, masked=False, packages=("transformers",))
ENCODERS: dict[int, Callable[..., TextEncoder]] = {1: TextEncoder, 2: TextEncoder, 3: CLIP}
"""Of each stage."""
