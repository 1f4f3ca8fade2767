"""Count how often a run reads numbers back from the device; works on a CPU."""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

# Operations that need the values of a tensor: the program must wait for the device.
_WAITING = frozenset(
    f"aten::{name}"
    for name in (
        *("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose"),
        *("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"),
    )
)
_COPYING = frozenset((Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.cpu))


class Reads(TorchDispatchMode):
    """Count the operations in a ``with`` block that would make a program wait for its device.

    Such an operation makes a Python number, comparison or array from image data. Image data are
    tensors drawn at random in the block, tensors given, and all tensors computed from these. Tables
    of a schedule or scheduler are not image data: they are on the CPU in every run.

    Args:
        images: further tensors to count as image data, such as the masks of a plugin.

    Attributes:
        counts: how often each operation read.
    """

    def __init__(self, *images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self._images = WeakIdKeyDictionary()
        self._copies = _Copies(self)
        for image in images:
            self._images[image] = True

    @property
    def total(self) -> int:
        """The number of reads so far."""
        return self.counts.total()

    def see(self, name: str, arguments: Any) -> None:
        """Count a reading operation if one of its arguments is image data."""
        if self.comes_of_images(arguments):
            self.counts[name] += 1

    def comes_of_images(self, arguments: Any) -> bool:
        """Whether a tensor among the arguments is image data."""
        leaves = tree_leaves(arguments)
        return any(isinstance(leaf, Tensor) and leaf in self._images for leaf in leaves)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func.name().split(".")[0]
        if name in _WAITING or (name == "aten::index" and _by_mask(args)):
            self.see(name, (args, kwargs))
        random = torch.Tag.nondeterministic_seeded in func.tags
        if random or self.comes_of_images((args, kwargs)):
            for leaf in tree_leaves(made):
                if isinstance(leaf, Tensor):
                    self._images[leaf] = True
                    if leaf._base is not None:  # it was drawn into a part of another
                        self._images[leaf._base] = True
        return made

    def __enter__(self) -> Self:
        self._copies.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self._copies.__exit__(*exception)  # type: ignore[no-untyped-call]


class _Copies(TorchFunctionMode):
    """Counts reads that are not separate operations on a CPU."""

    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self._reads = reads

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _COPYING:
            self._reads.see(func.__name__, args)
        return func(*args, **(kwargs or {}))


def _by_mask(args: tuple[Any, ...]) -> bool:
    """Whether a tensor is indexed by booleans, which a device must count first."""
    return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in tree_leaves(args[1]))
