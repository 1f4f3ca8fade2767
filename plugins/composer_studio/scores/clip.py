"""How well the views of an image show what their prompts say, by CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from composer import Transform, get_transform
from composer.arguments import FromRecipe
from composer.errors import shown

MODEL = "openai/clip-vit-base-patch32"
Views = Mapping[str, str] | Mapping[Transform, str]


@dataclass(frozen=True, eq=False)
class _Clip:
    """S (B, N, N): S[b, i, j] = cosine of view i of image b and prompt j."""

    views: Views
    model: str = MODEL

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not isinstance(self.views, Mapping) or not self.views:
            raise TypeError(
                f"{name}: views must be a dict such as {{'identity': 'a duck'}}, got "
                f"{shown(self.views)}."
            )
        for view, prompt in self.views.items():
            get_transform(view)
            if not isinstance(prompt, str):
                raise TypeError(f"{name}: a prompt must be a string, got {shown(prompt)}.")
        if isinstance(self.model, FromRecipe) and self.model != MODEL:
            raise TypeError(
                f"{name}: a recipe must leave model away, got {shown(self.model)}. Name it where "
                'you choose: --score \'{use = "...", model = "..."}\'.'
            )

    @cached_property
    def _network(self) -> tuple[Any, Any]:
        """The network and its tokenizer, from the disk."""
        from transformers import CLIPModel, CLIPTokenizer  # noqa: PLC0415  # takes seconds

        try:
            network = CLIPModel.from_pretrained(self.model, local_files_only=True)
            tokenizer = CLIPTokenizer.from_pretrained(self.model, local_files_only=True)
        except (OSError, ValueError) as error:
            raise OSError(
                f"{type(self).__name__}: {self.model} is not on this machine. Run "
                f"`hf download {self.model}`, or give model= a folder."
            ) from error
        return network.eval(), tokenizer

    @cached_property
    def _prompts(self) -> Tensor:
        """(N, D), of length 1."""
        network, tokenizer = self._network
        tokens = tokenizer(
            [*self.views.values()], padding=True, truncation=True, return_tensors="pt"
        )
        return F.normalize(_vector(network.get_text_features(**tokens)), dim=-1)

    @torch.no_grad()
    def similarities(self, x: Tensor) -> Tensor:
        """S, for images (B, 1 or 3, H, W) in [-1, 1]."""
        network, _ = self._network
        views = [get_transform(view)(x.float()) for view in self.views]
        images = [
            F.normalize(_vector(network.get_image_features(pixel_values=self._pixels(v))), dim=-1)
            for v in views
        ]
        return torch.stack(images, 1) @ self._prompts.T

    def _pixels(self, x: Tensor) -> Tensor:
        """What CLIP was trained on: its size and its normalisation."""
        size = self._network[0].config.vision_config.image_size
        rgb = x.cpu().clamp(-1, 1).expand(-1, 3, -1, -1) / 2 + 0.5
        scaled = F.interpolate(rgb, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        return (scaled - _MEAN) / _STD


class ClipAlignment(_Clip):
    """min over views of the cosine between the view and its prompt: how well the worst reads.

    Geng, Park & Owens 2024, "Visual Anagrams", arXiv 2311.17919, section 4. The network is
    Radford et al. 2021, arXiv 2103.00020.

    Args:
        views: {transform: prompt}, as for an Anagram.
        model: a folder, or a model of the hub that is on this machine already.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) -> (B,)."""
        return self.similarities(x).diagonal(dim1=1, dim2=2).min(1).values


class ClipConcealment(_Clip):
    """The mean of the diagonal of softmax(S / tau), over prompts and over views: how surely one
    tells which view shows which prompt, 1 / N for not at all.

    tau is CLIP's own temperature. The paper and arguments are those of :class:`ClipAlignment`.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) -> (B,)."""
        scaled = self.similarities(x) * self._network[0].logit_scale.exp()
        both = (scaled.softmax(1) + scaled.softmax(2)) / 2
        concealment: Tensor = both.diagonal(dim1=1, dim2=2).mean(1)
        return concealment


def _vector(features: Any) -> Tensor:
    """The features (B, D); later versions of transformers return them inside an output."""
    found: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return found


_MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)
_STD = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)
"""Of the images that CLIP was trained on."""
