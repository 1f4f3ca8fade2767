"""The base class of plugins: the hooks that a plugin may answer, and its declarations."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from composer.markers import answers, hookspec
from composer.predictions import Prediction
from composer.protocols import Asking, Stack, State
from composer.requests import Estimate, Request
from composer.transforms import Transform
from composer.words import short_repr


class _Default:
    """A property that an attribute or a dataclass field of the same name replaces."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function, self.__doc__ = function, function.__doc__

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:  # or a dataclass would take this for the default of its field
            raise AttributeError(f"{self.function.__name__} is declared by instances")
        return self.function(instance)


if TYPE_CHECKING:
    _default = property
else:
    _default = _Default


class Plugin:
    """An optional base of plugins: each hook with its signature, each declaration with its default.

    Mark the hooks that you write with ``@composer.hookimpl`` and leave out the others. A hook may
    leave out arguments that it does not need. Make a declaration by an attribute, a property or a
    dataclass field. A plugin without this base works too; missing declarations have these defaults.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__repr__ is Plugin.__repr__:
            cls.__repr__ = Plugin.__repr__  # type: ignore[method-assign]  # a dataclass keeps its own

    def __repr__(self) -> str:
        return short_repr(self) if is_dataclass(self) else super().__repr__()

    @_default
    def conditions(self) -> Sequence[Any]:
        """Conditions, or plugins in their place, that it sets in requests without a condition. The
        condition None leaves the choice to the call."""
        return ()

    @_default
    def transforms(self) -> Sequence[Transform]:
        """Views through which the model sees the image."""
        return ()

    @_default
    def parts(self) -> Any:
        """Linear maps of images that sum to the identity, or an object with such ``parts``. The
        plugin adds up the answers for them, and ``composer check`` proves them."""
        return ()

    @_default
    def finest(self) -> Any:
        """The condition, or plugin, of the finest details. A last, plain stage of a Cascade uses
        it."""
        return None

    @_default
    def unique(self) -> str:
        """An action of which a stack may have one, as a verb: "walk at each noise level". Two
        plugins with the same declaration cannot be in one stack."""
        return ""

    @_default
    def obeys_law(self) -> bool:
        """Whether its estimates obey the law of composition, sum_i A_i V_i = I."""
        return True

    @_default
    def predicts(self) -> Prediction | None:
        """The kind of its estimates: SAMPLE for a plugin that returns
        ``estimate.replace(prediction=x0, kind=SAMPLE)``. None: the kind of the answers it gets."""
        return None

    @_default
    def needs_pixels(self) -> bool:
        """Whether it needs the pixels of images, and cannot work on latents."""
        return False

    @_default
    def over_latents(self) -> str:
        """Of a plugin that needs pixels: the name of the one that does the same over latents."""
        return ""

    @_default
    def follows_several(self) -> bool:
        """Whether it keeps several images of each seed during a run."""
        return False

    @_default
    def holds_image(self) -> bool:
        """Whether it puts an image that it holds into the run: it starts there, keeps its pixels
        or gives it to the model."""
        return False

    @_default
    def one_a_seed(self) -> Sequence[str]:
        """The names of its attributes that may hold one value per seed, for ``request.each``. A
        call checks their lengths before any model call."""
        return ()

    @_default
    def walks(self) -> bool:
        """Whether it takes steps from a time to the same time, at a fixed noise level."""
        return False

    @_default
    def alternates(self) -> bool:
        """Whether it sends the model one of its views at each step, in turn, instead of all."""
        return False

    @_default
    def plans_times(self) -> bool:
        """For a solver: whether it plans times of its own instead of the schedule's."""
        return False

    @_default
    def ancestral(self) -> bool:
        """For a solver: whether its steps draw x_s as the reverse SDE does, with all its noise."""
        return False

    @_default
    def multistep(self) -> bool:
        """For a solver: whether its steps may also use the estimates of earlier steps."""
        return False

    @_default
    def needs_ancestral(self) -> bool:
        """Whether it works with an ``ancestral`` solver alone."""
        return False

    @_default
    def weighs(self) -> bool:
        """Whether it adds to the log weights of the images, by which FeynmanKac resamples."""
        return False

    @_default
    def reads_device(self) -> bool:
        """Whether it reads numbers back from the device at each step, which waits for it. Its docs
        say how many."""
        return False

    def resized(self, height: int, width: int) -> Self:
        """The same plugin for images of another size; itself, unless it holds data of a fixed
        size."""
        return self

    @hookspec
    def check(self, stack: Stack) -> None:
        """Raise a ValueError if the plugin cannot work in this stack.

        Called when a Sampler is built, before any model call.
        """

    @hookspec
    def start(self, state: State) -> Generator[None, None, None] | None:
        """Replace the initial noise ``state.x`` or the plan ``state.times``.

        A generator with one bare ``yield``, marked ``@hookimpl(wrapper=True)``, runs around the
        other plugins' ``start``.
        """

    @hookspec
    def noise_estimate(self, request: Request) -> Asking[Estimate]:
        """Answer a request. This is a generator that yields lists of requests, receives their
        estimates, and returns one estimate."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def step(self, state: State, estimate: Estimate) -> Tensor | Asking[Tensor] | None:
        """Return the image at ``state.t_next``, or None to leave the step to the next plugin, and
        finally the solver. It may be a generator that yields requests, like ``noise_estimate``."""

    @hookspec
    def post_step(self, state: State) -> None:
        """After a step, read or replace ``state.x``, now at ``state.t``; or ``state.stop()``."""

    @hookspec
    def finish(self, state: State) -> Generator[None, None, None] | None:
        """Read or replace ``state.x`` after the last step, also if the run was stopped.

        A generator with one bare ``yield``, marked ``@hookimpl(wrapper=True)``, goes on after the
        other plugins' ``finish``, and after a latent backend has decoded x.
        """


SETS_START = "set the start"
"""The value of ``unique`` for a plugin whose ``start`` makes the initial image."""
HOOKS = frozenset(name for name, value in vars(Plugin).items() if hasattr(value, "composer_spec"))


_DEFAULTS = Plugin()


def declared(thing: object, name: str) -> Any:
    """The declaration of a plugin, or the default of :class:`Plugin` if it has none."""
    return getattr(thing, name, getattr(_DEFAULTS, name))


def hooks_of(thing: object) -> frozenset[str]:
    """The names of the hooks that an object answers."""
    return frozenset(name for name in HOOKS if answers(thing, name))


def is_nested(condition: object) -> bool:
    """Whether a plugin stands in place of a condition."""
    return answers(condition, "noise_estimate")


def conditions_of(plugin: object) -> tuple[Any, ...]:
    """The conditions that a plugin declares, None left out."""
    return tuple(c for c in declared(plugin, "conditions") if c is not None)


def with_nested(plugins: Iterable[object]) -> Generator[object, None, None]:
    """Plugins, each followed by the plugins in place of its conditions; each object once."""
    seen: set[int] = set()
    waiting = [*plugins][::-1]  # a stack
    while waiting:
        plugin = waiting.pop()
        if id(plugin) not in seen:
            seen.add(id(plugin))
            yield plugin
            waiting += [c for c in conditions_of(plugin) if is_nested(c)][::-1]


def sets_conditions(plugin: object) -> bool:
    """Whether a plugin, or one nested in it, sets conditions."""
    every = (c for nested in with_nested([plugin]) for c in conditions_of(nested))
    return not all(is_nested(condition) for condition in every)


def kind_of(condition: Any, otherwise: Prediction) -> Prediction:
    """The kind of the estimates of a plugin, or of the model for a condition.

    It is the plugin's declaration, or the kind of its first condition. A Sampler checks that its
    other conditions have the same kind.
    """
    while is_nested(condition):
        own: Prediction | None = declared(condition, "predicts")
        if own is not None:
            return own
        condition = next(iter(conditions_of(condition)), None)
    return otherwise


def views_of(plugins: Iterable[object]) -> tuple[Transform, ...]:
    """The views that plugins, and those nested in them, declare; each once."""
    found: list[Transform] = []
    for plugin in with_nested(plugins):
        found += [view for view in declared(plugin, "transforms") if view not in found]
    return tuple(found)


def finest_of(plugins: Iterable[object]) -> Any:
    """The condition of the finest details, of the first plugin that declares one."""
    for plugin in plugins:
        condition = declared(plugin, "finest")
        if condition is not None:
            return finest_of([condition]) if is_nested(condition) else condition
    return None
