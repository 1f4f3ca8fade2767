"""What the scripts share: their options, the model, the course's times, and contact sheets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pictures
import torch
from torch import Tensor

import composer
from composer import Backend, Sampler
from composer.arguments import integer
from composer.contact_sheet import contact_sheet
from composer.images import Held, hold_image, read_picture
from composer.writing import make_folder, write_atomically
from composer_plugins import CFG, Cascade, Stage, Timesteps
from composer_plugins.backends.deepfloyd.embeddings import cache_file

NEUTRAL = "a high quality photo"
"""The prompt that says nothing but "look like a picture"."""
SHOWN = 128  # pixels of an image on a sheet
SUFFIXES = ("", "-256")
"""What the sheets of each stage are called."""


@dataclass(frozen=True, eq=False)
class Course:
    """The model, and what the command line says.

    Args:
        backends: {stage: model}, 1 being text to 64 pixels; 2, if there, 64 to 256.
        stride: between the times visited, of 1000.
        given: pictures to work on, by name, in place of those in ``pictures.py``.
        steps: numbers of steps for sampling.py, in place of its own.
        out: the folder that sheets are written to.
    """

    backends: Mapping[int, Backend]
    stride: int
    given: Mapping[str, Held]
    steps: Sequence[int]
    out: Path

    @property
    def backend(self) -> Backend:
        """Stage I."""
        return self.backends[1]

    @property
    def strided_times(self) -> list[int]:
        """990, 960, ..., 30, 0: a model trained on 1000 times is asked at 34 of them."""
        return [*range(990, -1, -self.stride)]

    def i_start(self, place: int) -> int:
        """A place in the course's 34 times, stride 30, as one in the times visited."""
        return min(round(30 * place / self.stride), len(self.strided_times) - 1)

    def sampler(self, *plugins: object) -> Sampler:
        """Iterative denoising over the strided times, equation A.3 (see denoising.py).

        The course stops at t = 0, where sigma is .006; one step more gives the clean image.
        """
        times = self.strided_times
        return Sampler(self.backend, plugins, Timesteps(times), len(times))

    def cascade(self, *plugins: object, steps: int | None = None, plain: bool = False) -> Cascade:
        """Text to 64 pixels with guidance 7 and, if stage II is there, on to 256 with guidance 4.

        Args:
            plugins: of both stages, scaled to each.
            steps: of stage I, evenly spaced as in IFPipeline; None for the strided times.
            plain: enlarge without the plugins, for the condition of their finest details.
        """
        times = self.strided_times
        strided = Timesteps(times), len(times)
        stages = [Stage(self.backend, [CFG(7.0)], *(strided if steps is None else (None, steps)))]
        if 2 in self.backends:
            stages.append(Stage(self.backends[2], [CFG(4.0)], *strided, plain=plain))
        return Cascade(stages, plugins)

    @cached_property
    def images(self) -> dict[str, Tensor]:
        """{name: (1, 3, H, W)} at the size of the model: a photo, a web picture and a drawing."""
        return {
            name: read_picture(image, self.backend.shape).to(self.backend.device)
            for name, image in (self.given or pictures.drawn()).items()
        }

    @property
    def photo(self) -> Tensor:
        return next(iter(self.images.values()))

    def noise(self, seed: int) -> Tensor:
        """Noise (1, 3, H, W), a function of the seed."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, *self.backend.shape, generator=generator).to(self.backend.device)

    def encode(self, prompts: Iterable[str]) -> None:
        """Let T5 read all prompts at once: it is loaded when asked, and freed for the UNet."""
        for prompt in ("", *prompts):
            for backend in self.backends.values():
                backend.encode(prompt)

    def save(self, name: str, rows: Mapping[str, Tensor], columns: Iterable[object] = ()) -> Path:
        """Write labelled rows of images to ``out``/``name``.png."""
        height = next(iter(rows.values())).shape[-2]
        shown = {label: images.clamp(-1, 1) for label, images in rows.items()}
        sheet = contact_sheet(shown, max(1, SHOWN // height), ",".join(map(str, columns)))
        file = self.out / f"{name}.png"
        write_atomically(file, lambda place: sheet.save(place, format="PNG"))
        return file


Part = Callable[[Course], list[Path]]


def main(part: Part, description: str | None, arguments: Sequence[str] | None = None) -> None:
    """Run a part of the course by the options of the command line; print what it wrote."""
    try:
        for file in part(course(description, arguments)):
            print(file)
    # No such folder, no room, no memory: said in a sentence.
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        sys.exit(f"{error}")


def course(description: str | None, arguments: Sequence[str] | None = None) -> Course:
    """The options of the command line, the model read."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="DeepFloyd/IF-I-XL-v1.0", help="folder or hub")
    parser.add_argument("--second-model", default="DeepFloyd/IF-II-L-v1.0", help="of stage II")
    parser.add_argument("--stages", type=int, choices=(1, 2), default=1)
    parser.add_argument("--embeddings", help="a file of prompt embeddings, such as the course's")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", help="or float16, bfloat16")
    parser.add_argument(
        "--no-thresholding", action="store_true", help="as the course's own loops do"
    )
    parser.add_argument("--stride", type=int, default=30, help="between times, of 1000")
    parser.add_argument("--steps", type=int, nargs="*", default=(), help="for sampling.py")
    parser.add_argument("--image", type=Path, nargs="*", default=(), help="your own pictures")
    parser.add_argument("--out", type=Path, default=Path("course"), help="folder of the pictures")
    options = parser.parse_args(arguments)

    integer(options.stride, "--stride", least=1)
    for steps in options.steps:
        integer(steps, "--steps", least=1)
    given = {file.stem: hold_image(file, "--image") for file in options.image}
    make_folder(options.out)
    models = {1: options.model, 2: options.second_model}
    # All stages of IF share one T5: what stage I has encoded, stage II reads.
    embeddings = options.embeddings or cache_file(options.model)
    backends = {
        stage: composer.load_backend(
            "deepfloyd",
            model=models[stage],
            stage=stage,
            embeddings=embeddings,
            device=options.device,
            dtype=options.dtype,
            thresholding=not options.no_thresholding,
        )
        for stage in range(1, options.stages + 1)
    }
    return Course(backends, options.stride, given, options.steps, options.out)
