"""A tiny, randomly initialised PRXPixel, made offline, as diffusers saves it.

Wired like the real one: patches, a bottleneck, the resolution embedded, x-prediction, a shift of 3,
noise twice as wide, and the text of a Qwen3.
"""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, PRXPixelPipeline, PRXTransformer2DModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

WIDTH = 16  # of the text embeddings
SIZE, PATCH, TOKENS = 16, 4, 8
WORDS = [
    *("a", "photo", "of", "cat", "dog", "snowman", "in", "the", "snow", "old", "red", "Hat", "hat"),
]


def build(folder, ending=True):
    """Write the pipeline into ``folder`` and return it.

    Args:
        ending: whether a token ends each prompt; else the empty one is none.
    """
    torch.manual_seed(0)
    tokenizer = make_tokenizer(ending)
    transformer = PRXTransformer2DModel(
        patch_size=PATCH,
        in_channels=3,
        context_in_dim=WIDTH,
        hidden_size=8,
        num_heads=2,
        depth=2,
        axes_dim=[2, 2],
        bottleneck_size=8,
        resolution_embeds=True,
    ).eval()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    encoder = Qwen3Model(config).eval()
    with torch.no_grad():
        for parameter in (*transformer.parameters(), *encoder.parameters()):
            parameter.normal_(0, 0.2)  # as it is made, next to nothing comes out
    pipeline = PRXPixelPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=encoder,
        tokenizer=tokenizer,
        default_sample_size=SIZE,
        prompt_max_tokens=TOKENS,
    )
    pipeline.save_pretrained(folder)
    return folder


def make_tokenizer(ending):
    """A vocabulary of words."""
    names = ["<pad>", "<unk>", "<end>", *WORDS]
    words = {name: k for k, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ending:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A <end>", special_tokens=[("<end>", words["<end>"])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<end>"
    )
