"""The views of the tensors of a request, each computed once."""

from __future__ import annotations

from torch import Tensor

from composer.transforms import Transform


class Views:
    """A table of tensors and their views.

    Requests derived from one another, and their estimates, share a table. So two plugins that use
    the same view send the same object, and an estimate carried back from a view has the original
    image itself as its x.
    """

    def __init__(self) -> None:
        # The table keeps both tensors of a pair, so that no other tensor gets their ids.
        self._seen: dict[tuple[int, Transform], tuple[Tensor, Tensor]] = {}
        self._original: dict[tuple[int, Transform], tuple[Tensor, Tensor]] = {}

    def seen(self, tensor: Tensor, view: Transform) -> Tensor:
        """The view of a tensor, the same object each time."""
        if (id(tensor), view) not in self._seen:
            seen = view(tensor)
            self._seen[id(tensor), view] = tensor, seen
            self._original[id(seen), view] = seen, tensor
        return self._seen[id(tensor), view][1]

    def original(self, seen: Tensor, view: Transform) -> Tensor:
        """The original of a view; a new tensor if this table does not know it."""
        known = self._original.get((id(seen), view))
        return view.inverse(seen) if known is None else known[1]

    def clear(self) -> None:
        """Release all tensors."""
        self._seen.clear()
        self._original.clear()
