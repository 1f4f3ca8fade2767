"""Junk in place of one argument: a public call works, or raises an error of this library.

``python benchmarks/fuzz_junk.py`` prints which calls raise anything else, raw errors, and how many.
An error is the library's own if a ``raise`` of its source makes it, of a kind that docstrings name.
What torch and numpy say of shapes and of arrays in place of a truth value is as plain. A small part
of it is tests/core/test_junk_calls.py.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import inspect
import io
import itertools
import random
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import torch

import composer
import composer_plugins
from composer import Sampler, images, testing
from composer.animation.film import Timing
from composer.authoring import resized
from composer.contact_sheet import contact_sheet
from composer.offers import Offer
from composer.plugin import sets_conditions
from composer.predictions import EPSILON
from composer.registry import installed
from composer.reparametrised import Reparametrised
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.solvers import DDIM, Euler
from composer.testing import GaussianMixtureBackend
from composer_plugins import Anagram, Components
from composer_plugins.backends.with_weak import WithWeak

KINDS = (ValueError, TypeError, LookupError, OSError, composer.NonFiniteError)
PLAIN = re.compile(
    "truth value of an array|Boolean value of Tensor|size of tensor|0-d tensor|os.PathLike"
)
ROOTS = tuple(str(Path(package.__file__).parent) for package in (composer, composer_plugins))


class Silent:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class SpeechlessError(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no str")


_VALUES = (
    *(None, True, "", "junk", b"junk", 0, 1, -1, 0.5, 10**30, -(10**30), 10**400, 1e308),
    *(float("nan"), float("inf"), 1j, Decimal("0.5"), np.float32(0.5), np.int64(1)),
    *([], [None], [[]], ["junk"], [1, 2, 3], (), (0.5, 0.2), {}, {"junk": 1}, {None: None}),
    *(set(), range(0), range(3), object(), Silent(), int, len, SpeechlessError()),
    *(np.zeros((2, 3)), np.array([object()]), Path("nowhere/at.all")),
    *(torch.empty(0), torch.tensor(0.5), torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64)),
    *(torch.full((1, 3, 16, 16), torch.nan), torch.zeros(1, 3, 16, 16, dtype=torch.complex64)),
    *(torch.zeros(0, 3, 16, 16), torch.zeros(3, 3, 16, 16), torch.zeros(1, 2, 16, 16)),
    *(torch.zeros(1, 3, 16, 16), torch.ones(16, 16, dtype=torch.bool), torch.zeros(1, 16, 8)),
)
JUNK: tuple[Callable[[], Any], ...] = (
    *(functools.partial(lambda value: value, value) for value in _VALUES),
    *(lambda: iter([]), lambda: (k for k in range(2)), lambda: lambda *a, **k: None),
)
"""Each makes a value anew: some are used up."""


@dataclass(frozen=True)
class Call:
    """A call that works, of whose arguments each can be replaced."""

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any]


def is_own(error: BaseException) -> bool:
    """Whether a ``raise`` in the library's source made the error."""
    *_, last = _frames(error)
    file, line = last
    return (
        isinstance(error, KINDS)
        and file.startswith(ROOTS)
        and any(first <= line <= end for first, end in _raises(file))
    )


def _frames(error: BaseException) -> Iterator[tuple[str, int]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next


@functools.cache
def _raises(file: str) -> list[tuple[int, int]]:
    tree = ast.parse(Path(file).read_text())
    return [
        (n.lineno, n.end_lineno or n.lineno) for n in ast.walk(tree) if isinstance(n, ast.Raise)
    ]


@functools.cache
def mixture() -> GaussianMixtureBackend:
    means = torch.linspace(-1, 1, 4 * 768, dtype=torch.float64).reshape(4, 3, 16, 16)
    return GaussianMixtureBackend(means, [0.2, 0.3, 0.4, 0.5])


def run(plugins: Any = (), solver: Any = None, condition: Any = 0) -> None:
    Sampler(mixture(), plugins, solver, 2).sample(condition)


def _use(kind: str, thing: Any) -> None:
    """What people do with what was made."""
    if kind == "plugin":
        resized(thing, 32, 32)
        run([thing], condition=None if sets_conditions(thing) else 0)
    elif kind == "transform":
        run([Anagram({"identity": 0, thing: 1})], condition=None)
    elif kind == "decomposition":
        run([Components(thing, range(len(thing.parts)))], condition=None)
    elif kind == "solver":
        run(solver=thing)
    elif kind == "score":
        thing(torch.zeros(1, 1, 28, 28))


HOLE = (torch.arange(256).reshape(16, 16) % 2).float()
IMAGE, NOISE = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)
# Arguments of what has no defaults and no example.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "inpaint": {"image": IMAGE, "mask": torch.ones(16, 16)},
    "lanpaint": {"image": IMAGE, "mask": torch.ones(16, 16)},
    "sdedit": {"image": IMAGE, "strength": 0.5},
    "reference": {"image": IMAGE},
    "differential_edit": {"image": IMAGE, "strengths": torch.full((16, 16), 0.5)},
    "flow_edit": {"image": IMAGE, "source": 1},
    "rf_inversion": {"image": IMAGE},
    "super_resolution": {"image": IMAGE},
    "particles": {"score": lambda x: x.flatten(1).sum(1)},
    "feynman_kac": {"score": lambda x: x.flatten(1).sum(1)},
    "ddnm": {"measurement": torch.zeros(1, 3, 8, 8), "operator": composer_plugins.BlockMean(2)},
    "diffpir": {"measurement": torch.zeros(1, 3, 8, 8), "operator": composer_plugins.BlockMean(2)},
    "daps": {"measurement": torch.zeros(1, 3, 8, 8), "operator": composer_plugins.BlockMean(2)},
    "known_pixels": {"mask": HOLE},
    "masks": {"masks": [HOLE, 1 - HOLE]},
    "block_mean": {"factor": 2},
    "rescale": {"guidance": composer_plugins.CFG(2.0)},
    "apg": {"guidance": composer_plugins.CFG(2.0)},
    "autoguidance": {"scale": 2.0},
    "regions": {"conditions": (1, 2)},
    "pag": {"scale": 2.0},
    "seg": {"scale": 2.0},
    "slg": {"scale": 2.0, "layers": "mid_block"},
    "distilled_guidance": {"scale": 2.0},
    "laplacian_pyramid": {"depth": 2},
    "permutation": {"indices": tuple(reversed(range(256)))},
    "pixel_permute": {"grid": 8},
    "inner_circle": {"radius": 3.0},
    "orthogonal": {"matrix": torch.eye(256).flip(0)},
    "reads_as": {"views": {"identity": 3}},
    "timesteps": {"timesteps": [0.0, 0.5]},
    "spaced": {"solver": DDIM()},
    "inverse": {"of": composer_plugins.transforms.Flip()},
}
# Their contracts need another backend or solver, or weights.
UNUSED = frozenset(
    {"super_resolution", "autoguidance", "diffusers", "distilled_guidance", "regions"}
    | {"pag", "seg", "slg", "super_diff", "dps"}
)
# Read from a folder of weights, which the package does not hold.
_NOT_MADE = frozenset({"clip_alignment", "clip_concealment"})


def _offered(offer: Offer) -> Call | None:
    if offer.name in _NOT_MADE:
        return None
    names = inspect.signature(offer.factory).parameters
    given = dict(ARGUMENTS.get(offer.name, {}))
    made = offer.factory(**given) if given or offer.example is None else offer.example()
    arguments = {name: given.get(name, getattr(made, name)) for name in names}

    def make(**changed: Any) -> None:
        thing = offer.factory(**changed)
        if offer.name not in UNUSED:
            _use(offer.kind, thing)

    return Call(f"{offer.kind} {offer.name}", make, arguments)


def calls() -> list[Call]:
    """Every public call that is fuzzed."""
    flow, discrete, backend = FlowSchedule(), DiscreteSchedule.linear(50), mixture()
    sampler = Sampler(backend, num_inference_steps=2)
    result = sampler.sample(0)
    request = next(iter(sampler.stream(0))).request(result.x, 0.5)
    estimate = sampler.denoise(result.x, 0.5, 0)
    path = str(Path(tempfile.mkdtemp()) / "film.gif")
    kinds = ("plugin", "transform", "decomposition", "solver", "score")
    offered = [
        _offered(o)
        for o in installed().offers.values()
        if o.kind in kinds and o.name != "diffusers"
    ]
    scheduled = [
        Call(f"{type(s).__name__}.{name}", getattr(s, name), arguments)
        for s, t in ((flow, 0.5), (discrete, 20))
        for name, arguments in {
            "at": {"t": t},
            "noise_level": {"t": t},
            "goes_back": {"t": t, "s": t},
            "times": {"num_steps": 3},
            "time_at": {"noise_level": 0.5},
            "add_noise": {"x0": IMAGE, "noise": NOISE, "t": t},
        }.items()
    ]
    others = [
        (
            "DiscreteSchedule",
            DiscreteSchedule,
            {"alphas_cumprod": [0.9, 0.5], "spacing": "trailing", "steps_offset": 0},
        ),
        (
            "DiscreteSchedule.linear",
            DiscreteSchedule.linear,
            {
                "num_train_timesteps": 50,
                "beta_start": 1e-4,
                "beta_end": 0.02,
                "spacing": "trailing",
            },
        ),
        (
            "Sampler",
            lambda **a: Sampler(**a).sample(0),
            {
                "backend": backend,
                "plugins": [],
                "solver": Euler(),
                "num_inference_steps": 2,
                "max_rows": 4,
            },
        ),
        ("Sampler.sample", sampler.sample, {"condition": 0, "seeds": [0], "progress": False}),
        ("Sampler.stream", lambda **a: list(sampler.stream(**a)), {"condition": 0, "seeds": [0]}),
        ("Sampler.denoise", sampler.denoise, {"x": result.x, "t": 0.5, "condition": 0}),
        (
            "Sampler.from_recipe",
            functools.partial(Sampler.from_recipe, backend=backend),
            {"recipe": result.recipe},
        ),
        ("call_of", composer.call_of, {"recipe": result.recipe}),
        ("get_transform", composer.get_transform, {"name": "flip"}),
        ("load_backend", composer.load_backend, {"name": "mnist"}),
        (
            "load_backend mnist",
            functools.partial(composer.load_backend, "mnist"),
            {"weights": None, "device": "cpu", "dtype": "float32", "share": True},
        ),
        ("WithWeak", lambda **a: WithWeak(**a).shown, {"main": backend, "weak": backend}),
        (
            "Reparametrised",
            lambda **a: Sampler(Reparametrised(**a), num_inference_steps=2).sample(0),
            {
                "inner": backend,
                "schedule": discrete,
                "prediction": EPSILON,
                "default_solver": Euler(),
            },
        ),
        (
            "GaussianMixtureBackend",
            lambda **a: Sampler(GaussianMixtureBackend(**a), num_inference_steps=2).sample(0),
            {"means": backend.means, "stds": [0.2] * 4, "weights": [1.0] * 4},
        ),
        ("Request.replace", request.replace, {"condition": 1, "through": (), "model": None}),
        ("Request.fill", request.fill, {"condition": 1}),
        ("Estimate +", lambda other: estimate + other, {"other": estimate}),
        ("Estimate -", lambda other: estimate - other, {"other": estimate}),
        ("Estimate *", lambda other: estimate * other, {"other": 2.0}),
        ("Estimate /", lambda other: estimate / other, {"other": 2.0}),
        ("to_tensor", images.to_tensor, {"image": IMAGE}),
        ("to_mask", images.to_mask, {"mask": torch.ones(16, 16)}),
        ("to_pil", images.to_pil, {"x": IMAGE}),
        ("contact_sheet", contact_sheet, {"rows": {"a": IMAGE}, "scale": 1}),
        ("Timing", Timing, {"fps": 5.0, "hold": 0.1, "move": 0.1}),
        (
            "Result.animate",
            result.animate,
            {
                "path": path,
                "view": None,
                "captions": (),
                "fps": 2.0,
                "hold": 0.5,
                "move": 0.5,
                "scale": 1,
            },
        ),
        (
            "transform_checks",
            testing.transform_checks,
            {"transform": composer_plugins.transforms.Flip()},
        ),
        (
            "decomposition_checks",
            testing.decomposition_checks,
            {"decomposition": composer_plugins.Bands()},
        ),
        ("stack_checks", testing.stack_checks, {"plugins": [composer_plugins.CFG(2.0)]}),
    ]
    return [*filter(None, offered), *scheduled, *(Call(*other) for other in others)]


@dataclass(frozen=True)
class Raw:
    """An error that is not the library's own."""

    call: str
    argument: str
    junk: str
    error: str
    place: str


def attempt(call: Call, argument: str, junk: Any) -> Raw | None:
    """What a call raises with junk in place of an argument, if it is raw."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            call.function(**{**call.arguments, argument: junk})
    except Exception as error:
        if is_own(error) or PLAIN.search(_said(error)):
            return None
        inside = [
            f"{Path(file).name}:{line}" for file, line in _frames(error) if file.startswith(ROOTS)
        ]
        return Raw(call.name, argument, _named(junk), _said(error), inside[-1] if inside else "")
    return None


def _named(value: Any) -> str:
    return composer.errors.shown(value)[:40]


def _said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:120]
    except Exception:
        return type(error).__name__


def attempts(found: list[Call]) -> list[tuple[Call, str, int]]:
    return [
        (call, argument, k)
        for call in found
        for argument, k in itertools.product(call.arguments, range(len(JUNK)))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, help="of all calls, drawn at random; all without it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="calls whose name contains this")
    options = parser.parse_args()
    planned = attempts([call for call in calls() if options.only in call.name])
    if options.count:
        planned = random.Random(options.seed).sample(planned, min(options.count, len(planned)))
    raw = [r for call, argument, k in planned if (r := attempt(call, argument, JUNK[k]()))]
    for (call, argument, place), count in Counter(
        (r.call, r.argument, r.place) for r in raw
    ).most_common():
        one = next(r for r in raw if (r.call, r.argument, r.place) == (call, argument, place))
        print(f"{count:4} {call}({argument}={one.junk})  {place}  {one.error}")
    print(f"{len(raw)} raw errors in {len(planned)} calls")


if __name__ == "__main__":
    main()
