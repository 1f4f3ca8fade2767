"""The MNIST backends "mnist" (flow matching), "mnist-few-step" (its reflow) and "mnist-ddpm"."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from composer import UNCONDITIONAL, Backend, Batch, Output
from composer.arguments import label_of
from composer.authoring import grouped, short_repr, to_device
from composer.errors import shown
from composer.named import Device, DType
from composer.predictions import PREDICTIONS, Prediction
from composer.reparametrised import Reparametrised
from composer.schedules import DiscreteSchedule, FlowSchedule, Schedule
from composer.solvers import DPMSolverPP, Euler, Solver
from composer_plugins.backends.checksum import require_checksum
from composer_plugins.backends.files import require_name
from composer_plugins.backends.forward import forward
from composer_plugins.backends.placement import place_of, placement

if TYPE_CHECKING:  # diffusers takes a second to import
    from composer_plugins.backends.mnist.folded import FoldedUNet
    from composer_plugins.backends.mnist.unet import MnistUNet

SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "flow": FlowSchedule,
    "linear": DiscreteSchedule.linear,
}
COMMANDS = {"path.json": "mnist", "denoiser.json": "denoiser"}
"""{file beside the weights: the ``composer train`` command that writes it}."""
AGAIN = "Start its training again to write it again."
SOLVERS: dict[str, Solver] = {"flow": Euler(), "epsilon": DPMSolverPP()}


@dataclass(frozen=True, eq=False, repr=False)
class MnistBackend:
    """A network on its path. Conditions are the digits 0 to 9.

    Args:
        unet: the network, as trained or folded, which is faster; in evaluation mode, on its device
            and in its dtype.
        schedule, prediction: the path and prediction type of its training.
        share: encode each image once for all of its rows. False encodes it once per row, for
            comparison.
        dtype: dtype of x in the loop, whatever the network computes in.
    """

    unet: MnistUNet | FoldedUNet
    schedule: Schedule
    prediction: Prediction
    share: bool = True
    dtype: torch.dtype = torch.float32

    differentiable = True

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.unet.training:
            raise ValueError(
                "MnistBackend: unet must be in evaluation mode, got training mode. Call "
                "unet.eval()."
            )

    @property
    def networks(self) -> dict[str, nn.Module]:
        """What a picture names by a hash."""
        return {"unet": self.unet}

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.unet.in_channels, 28, 28

    @property
    def default_solver(self) -> Solver:
        return SOLVERS.get(self.prediction.name, Euler())

    @property
    def device(self) -> torch.device:
        return place_of(self.unet)[0]

    def encode(self, condition: Any) -> Hashable:
        return digit_of(condition, self.unet.num_classes)

    def evaluate(self, batch: Batch) -> Output:
        device, dtype = place_of(self.unet)
        times = self.schedule.unit_time(torch.tensor(batch.times, dtype=torch.float64))
        labels = to_device(torch.tensor([self._label(c) for c in batch.conditions]), device)
        images, which = self._images(batch)
        call = partial(
            self.unet, images.to(dtype), to_device(times.to(dtype), device), labels, which
        )
        return Output(forward(call, images, torch.float32))

    def _label(self, condition: Hashable) -> int:
        """The label of an encoded condition."""
        return self.unet.num_classes if condition is UNCONDITIONAL else cast(int, condition)

    def _images(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The images (N, C, 28, 28) to encode, and the image of each row (R,).

        The latter is None if the rows are rounds of all images in their order.
        """
        firsts = [rows[0] for rows in grouped(batch.images)] if self.share else ()
        if not firsts or len(firsts) == len(batch):
            return batch.x, None
        images = batch.take(firsts)
        rounds, rest = divmod(len(batch), len(images))
        if not rest and batch.images == images.images * rounds:
            return images.x, None
        places = {image: place for place, image in enumerate(images.images)}
        which = torch.tensor([places[image] for image in batch.images])
        return images.x, to_device(which, batch.x.device)


def digit_of(condition: Any, num_classes: int) -> Hashable:
    """The encoded condition of a model of digits: a digit as a number, or UNCONDITIONAL.

    Raises:
        ValueError: the condition is not a digit, or the model takes none.
    """
    if condition is UNCONDITIONAL:
        return UNCONDITIONAL  # type: ignore[no-any-return]
    if not num_classes:
        raise ValueError(
            f"a condition must be None for a model trained without classes, got {condition!r}. "
            "Load a model trained with --conditioning class."
        )
    digit = label_of(condition)
    if digit not in range(num_classes):
        raise ValueError(
            f"a condition must be a digit from 0 to {num_classes - 1}, got {shown(condition)}."
        )
    return digit


def load_mnist_flow(
    weights: str | None = None, device: Device = "cpu", dtype: DType = "float32", share: bool = True
) -> Backend:
    """MNIST digits by flow matching; default solver Euler.

    Args:
        weights: a folder written by the training command; None for the shipped weights.
        device: a torch.device or its name, or "auto": the first there is of cuda, mps and cpu.
        dtype: of the network, float32, bfloat16 or float16, as a torch.dtype or its name.
        share: fold the batch norms and encode each image once for all of its rows. False runs the
            network as trained, once per row, for comparison.
    """
    return _load(weights, "flow", device, dtype, share)


def load_mnist_ddpm(
    weights: str | None = None, device: Device = "cpu", dtype: DType = "float32", share: bool = True
) -> Backend:
    """MNIST digits by DDPM's epsilon prediction; default solver DPM-Solver++(2M).

    Arguments as for :func:`load_mnist_flow`.
    """
    return _load(weights, "ddpm", device, dtype, share)


def load_mnist_few_step(
    weights: str | None = None, device: Device = "cpu", dtype: DType = "float32", share: bool = True
) -> Backend:
    """MNIST digits in one to four Euler steps without guidance.

    The flow straightened by reflow (Liu et al. 2023, arXiv 2209.03003): it learned the straight
    lines from noises to the images that the flow makes of them under guidance. Guidance on top is
    possible, and narrows the samples. Arguments as for :func:`load_mnist_flow`.
    """
    return _load(weights, "few-step", device, dtype, share)


def _load(weights: str | None, shipped: str, device: Device, dtype: DType, share: bool) -> Backend:
    place = placement(device, dtype)
    if weights is not None:
        require_name(weights, "weights")
        return _read(Path(weights), place, share)
    with as_file(files(__package__) / "weights" / shipped) as folder:
        return _read(folder, place, share)


def _read(folder: Path, place: tuple[torch.device, torch.dtype], share: bool) -> Backend:
    from composer_plugins.backends.mnist.folded import FoldedUNet  # noqa: PLC0415

    trained = read_unet(folder).eval()
    try:
        path = json.loads((folder / "path.json").read_text())
        options = dict(path["schedule"])
        schedule = SCHEDULES[options.pop("type")](**options)
        prediction = PREDICTIONS[path["prediction"]]
        network = PREDICTIONS[path.get("network", path["prediction"])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / 'path.json'} is damaged ({type(error).__name__}). {AGAIN}"
        ) from error
    unet = nn.Module.to(FoldedUNet(trained) if share else trained, *place)
    if network == prediction:
        return MnistBackend(unet, schedule, prediction, share)
    inner = MnistBackend(unet, FlowSchedule(), network, share)
    return Reparametrised(inner, schedule, prediction, SOLVERS[prediction.name])


def read_unet(folder: Path, description: str = "path.json", command: str = "mnist") -> MnistUNet:
    """The network of a folder that ``composer train COMMAND`` wrote, in float32.

    Args:
        folder: holds ``description`` beside config.json and the weights.
    """
    from composer_plugins.backends.mnist.unet import MnistUNet  # noqa: PLC0415

    if not folder.is_dir():
        raise ValueError(
            f"there is no folder {str(folder)!r}. Name a folder model/ that `composer train "
            f"{command}` wrote."
        )
    if not (folder / description).is_file():
        others = (other for file, other in COMMANDS.items() if (folder / file).is_file())
        found = next(others, None)
        advice = (
            "Name the folder model/ that it wrote"
            if found is None
            else f"It is of `composer train {found}`; name another"
        )
        raise ValueError(
            f"{folder} holds no model of `composer train {command}` (no {description}). {advice}."
        )
    try:
        unet: MnistUNet = MnistUNet.from_config(MnistUNet.load_config(folder))
        # Strict, because diffusers' loading draws missing weights at random.
        weights = folder / "diffusion_pytorch_model.safetensors"
        require_checksum(weights)
        unet.load_state_dict(load_file(weights))
    except Exception as error:  # reading a damaged file may raise anything
        raise ValueError(
            f"{folder} is damaged, or its weights are of another model than its config.json "
            f"({_reason(error)}). {AGAIN}"
        ) from error
    return nn.Module.float(unet)  # diffusers' own float() has no signature


def _reason(error: Exception) -> str:
    """The line that says what is wrong: the first weight that does not fit, if any."""
    lines = str(error).strip().split("\n")
    misfits = [line for line in lines if "size mismatch" in line or "key(s)" in line]
    return (misfits or lines)[0].strip().rstrip(".:")
