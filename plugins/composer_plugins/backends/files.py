"""The files of a diffusers model, in a folder or a repository of the Hugging Face hub."""

from __future__ import annotations

import errno
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VOCABULARIES = "spiece.model", "tokenizer.json", "vocab.json"


@dataclass(frozen=True)
class Source:
    """A model's files.

    Args:
        model: a folder, or a hub id "owner/name". An existing folder of that name takes precedence.
        revision: branch, tag or commit of the hub.
        local_files_only: use the cache of the hub only.
    """

    model: str | Path
    revision: str | None = None
    local_files_only: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.model, str | Path):
            raise TypeError(
                "model must be a folder, or a model of the hub as 'owner/name', got "
                f"{type(self.model).__name__}."
            )
        if self.model == "":
            raise ValueError(
                "model must not be empty. Name a folder, or a model of the hub as 'owner/name'."
            )

    def fetch(self, patterns: Sequence[str]) -> Path:
        """The folder of the model's files that match ``patterns``, downloaded if necessary.

        Raises:
            ValueError: the folder or repository does not exist or cannot be read.
        """
        folder = Path(self.model).expanduser()
        if folder.is_dir():
            if self.revision is not None:
                raise ValueError(f"revision must be None for the folder {folder}.")
            return folder
        nowhere = (
            f"there is no folder {str(self.model)!r}. Name a folder written by save_pretrained, or "
            "a model of the hub as 'owner/name'."
        )
        if isinstance(self.model, Path) or self.model.count("/") != 1:
            raise ValueError(nowhere)
        from huggingface_hub import errors  # noqa: PLC0415  # slow, as its other parts are

        try:
            return self._download(self.model, list(patterns))
        except errors.HFValidationError as error:
            raise ValueError(nowhere) from error

    def _download(self, model: str, patterns: list[str]) -> Path:
        import huggingface_hub  # noqa: PLC0415
        from huggingface_hub import errors  # noqa: PLC0415

        try:
            snapshot = huggingface_hub.snapshot_download(
                model,
                revision=self.revision,
                local_files_only=self.local_files_only,
                allow_patterns=patterns,
            )
        except errors.GatedRepoError as error:
            raise ValueError(
                f"{model} is gated. Accept its licence at https://huggingface.co/{model} and log "
                "in with `hf auth login`."
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise ValueError(
                f"there is neither a folder {model!r} nor such a model on the hub. Correct the "
                "name or, if the model is private, log in with `hf auth login`."
            ) from error
        except errors.RevisionNotFoundError as error:
            raise ValueError(f"{model} has no revision {self.revision!r} on the hub.") from error
        except (errors.EntryNotFoundError, errors.OfflineModeIsEnabled) as error:
            raise ValueError(self._unreachable(model)) from error
        except (errors.HfHubHTTPError, OSError) as error:
            advice = (
                "Free disk space" if getattr(error, "errno", None) == errno.ENOSPC else "Try again"
            )
            raise ValueError(
                f"{model} could not be downloaded ({first_line(error)}). {advice}."
            ) from error
        return Path(snapshot)

    def _unreachable(self, model: str) -> str:
        if self.local_files_only:
            return (
                f"{model} is neither a folder nor complete in the cache of the hub. Download it "
                "once with local_files_only=False."
            )
        return (
            f"there is no folder {model!r}, and the hub cannot be reached. Connect, or name a "
            "folder."
        )


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file that exists."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}). Download or write it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold a JSON object. Download or write it again.")
    return content


def require_all(missing: Collection[str], place: Path) -> None:
    """Raise a ValueError for missing tensors, which the libraries would leave random with a
    warning."""
    if missing:
        raise ValueError(
            f"the weights in {place} lack {len(missing)} of the tensors that config.json needs, "
            f"such as {sorted(missing)[0]}. The two belong to different models."
        )


def require_vocabulary(place: Path) -> None:
    """Raise a ValueError for a tokenizer's folder without a vocabulary: transformers would continue
    with an empty one."""
    if not any((place / name).is_file() for name in VOCABULARIES):
        raise ValueError(f"{place} must have one of {', '.join(VOCABULARIES)}. Download it again.")


def first_line(error: Exception) -> str:
    """The first line of a library's error, without the signatures and lists below it."""
    return str(error).strip().split("\n")[0].rstrip(".:") or type(error).__name__


@contextmanager
def usable(file: Path) -> Iterator[None]:
    """A context for code that builds an object from the configuration ``file``.

    Raises:
        ValueError: the configuration cannot be used; replaces the error of a library.
    """
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{file} has no entry {error}. Download or write it again.") from error
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{file} cannot be used ({first_line(error)}). Correct it.") from error


def require_name(value: Any, option: str) -> None:
    """Raise a TypeError unless an option is the name of a folder; "" would be the current one."""
    if not isinstance(value, str | Path) or value == "":
        got = "an empty name" if isinstance(value, str) else type(value).__name__
        raise TypeError(
            f"{option} must be the name of a folder, got {got}. Correct it, or leave it out."
        )
