"""Tensors that plugins share: find the plugin that writes into one, and name it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from composer.estimates import Estimate
from composer.requests import Request


class Lent:
    """The tensors that a plugin holds while it runs, with the number of writes into each before.

    Args:
        request: the request that it answers, or None.
        answers: the answers to its own requests.
    """

    __slots__ = "_answers", "_before", "_request", "_tensors"

    def __init__(self, request: Request | None, answers: Sequence[Estimate]) -> None:
        self._request, self._answers = request, answers
        self._tensors = self._held()
        self._before = _versions(self._tensors)

    def check(self, who: object) -> None:
        """Raise a ValueError that names ``who`` if the plugin wrote into one of the tensors.

        The noise and x_0 of an answer count too, once they have been computed.
        """
        tensors = self._held()
        after = _versions(tensors)
        if after == self._before:
            return
        known = {id(t): n for t, n in zip(self._tensors, self._before, strict=True)}
        for tensor, number in zip(tensors, after, strict=True):
            if number != known.get(id(tensor), 0):
                raise ValueError(f"{who} wrote into {self._name(tensor)}. Work on a copy.")

    def _held(self) -> list[Tensor]:
        held = [] if self._request is None else [self._request.x, *self._request.beside.values()]
        for answer in self._answers:
            held += answer.tensors().values()
        return held

    def _name(self, tensor: Tensor) -> str:
        """The name of one of the tensors."""
        named = []
        if self._request is not None:
            named.append(("request.x", self._request.x))
            named += [(f"request.beside[{k!r}]", v) for k, v in self._request.beside.items()]
        for answer in self._answers:
            named += [(f"the {name} of an answer", v) for name, v in answer.tensors().items()]
        return next(name for name, value in named if value is tensor)


def _versions(tensors: Sequence[Tensor]) -> list[int]:
    """:func:`version` of each tensor."""
    try:
        return [tensor._version for tensor in tensors]
    except RuntimeError:
        return [version(tensor) for tensor in tensors]


def version(x: Tensor) -> int:
    """The number of writes into x; 0 for an inference tensor, which does not count them."""
    try:
        return x._version
    except RuntimeError:
        return 0
