"""``composer embed``: save the embeddings of prompts, so that no text encoder is needed."""

from __future__ import annotations

from pathlib import Path

import click

from composer.commands.errors import one_sentence
from composer.commands.paths import NamedPath
from composer.writing import require_writable


@click.command()
@click.argument("prompts", nargs=-1, required=True)
@click.option("--model", default="DeepFloyd/IF-I-XL-v1.0", show_default=True, help="Folder or hub.")
@click.option(
    "--cache",
    type=NamedPath(),
    help="The .safetensors file to add to; by default one in the user's cache, which "
    "load_backend reads too.",
)
@click.option("--device", default="cpu", show_default=True)
@click.option("--dtype", default="float32", show_default=True)
@click.option("--text-8bit", is_flag=True, help="Read the encoder in 8 bits; needs bitsandbytes.")
@click.option("--variant", help="Variant of the weights on the hub, such as fp16.")
@click.option("--local-files-only", is_flag=True, help="Use the cache of the hub only.")
@one_sentence
def embed(
    prompts: tuple[str, ...],
    model: str,
    cache: Path | None,
    device: str,
    dtype: str,
    text_8bit: bool,
    variant: str | None,
    local_files_only: bool,
) -> None:
    """Encode PROMPTS, and the empty one, by the text encoders of a model.

    This loads only the encoder, and only for prompts that the file lacks. Afterwards
    load_backend("deepfloyd", "prx" or "latent", model=MODEL, embeddings=CACHE) needs no encoder for
    these prompts.
    """
    from composer_plugins.backends.deepfloyd.embedding_files import (  # noqa: PLC0415  # slow
        KEPT,
        NEGATIVE,
        add_embeddings,
        cache_file,
        read_prompts,
        require_encoder,
    )
    from composer_plugins.backends.files import Source  # noqa: PLC0415
    from composer_plugins.backends.placement import placement  # noqa: PLC0415
    from composer_plugins.backends.text_encoders import text_encoder  # noqa: PLC0415

    file = cache_file(model) if cache is None else cache
    if file.suffix != KEPT:
        raise ValueError(f"--cache must name a {KEPT} file, got {file}.")
    source = Source(model, None, local_files_only)
    encoder, name = text_encoder(source, *placement(device, dtype), text_8bit, variant)
    if encoder is None:
        raise ValueError(f"{model} was saved without its text encoder. Name one that has it.")
    stored = read_prompts(file, name)
    lacking = [p for p in dict.fromkeys(map(name, (*prompts, NEGATIVE))) if p not in stored]
    if lacking:
        require_writable(file)
        negative = encoder(NEGATIVE)
        require_encoder(file, negative, model)  # before all else is encoded
        made = {p: negative if p == NEGATIVE else encoder(p) for p in lacking}
        encoder.free()
        add_embeddings(file, made, model, negative, name, encoder.kind)
    click.echo(f"encoded {len(lacking)} prompts, {len(stored) + len(lacking)} are now in {file}")
