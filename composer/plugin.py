"""What a plugin may be: the hooks it may answer, and what it may declare about itself."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from composer.markers import answers, hookspec
from composer.predictions import Prediction
from composer.protocols import Asking, Stack, State
from composer.requests import Estimate, Request
from composer.transforms import Transform


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

    Mark the hooks that you write with ``@composer.hookimpl`` and leave out the others; a hook may
    leave out arguments it does not need. An object without this base works too: what it does not
    declare has the default given here. Declare by an attribute, a property or a dataclass field.
    """

    @_default
    def conditions(self) -> Sequence[Any]:
        """Conditions, or plugins in place of them, that it fills into requests without one. None
        leaves the choice to the call."""
        return ()

    @_default
    def transforms(self) -> Sequence[Transform]:
        """Views that it shows the model the image through."""
        return ()

    @_default
    def parts(self) -> Any:
        """Linear maps of images that sum to the identity, whose answers it adds up; or an object
        that has such ``parts``. ``composer check`` proves them."""
        return ()

    @_default
    def finest(self) -> Any:
        """The condition, or plugin, of the finest details: what a last, plain stage of a Cascade
        follows."""
        return None

    @_default
    def unique(self) -> str:
        """What only one plugin of a stack can do, as a verb: "walk at each noise level". Two
        plugins that declare the same cannot stand in one stack."""
        return ""

    @_default
    def obeys_law(self) -> bool:
        """Whether its estimates obey the law of composition, sum_i A_i V_i = I."""
        return True

    @_default
    def predicts(self) -> Prediction | None:
        """What its estimates predict, if it says so itself: SAMPLE, of a plugin that returns
        ``estimate.replace(prediction=x0, kind=SAMPLE)``. None: the same as what it is answered."""
        return None

    @_default
    def needs_pixels(self) -> bool:
        """Whether it works on the pixels of images, and so not on latents."""
        return False

    @_default
    def follows_several(self) -> bool:
        """Whether it keeps several images of each seed during a run."""
        return False

    @_default
    def one_a_seed(self) -> Sequence[str]:
        """The names of its attributes that may hold one value a seed, as ``request.each`` takes
        them; a call checks their lengths before it asks the model."""
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
        """Of a solver: whether it makes a plan of times of its own, instead of the schedule's."""
        return False

    def resized(self, height: int, width: int) -> Self:
        """The same plugin for images of another size; itself, unless it holds something of one
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
        """Answer a request: a generator that yields lists of requests, receives their estimates and
        returns one estimate."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def step(self, state: State, estimate: Estimate) -> Tensor | Asking[Tensor] | None:
        """Return the image at ``state.t_next``; None leaves the step to the next plugin, at last to
        the solver. May be a generator that asks for further estimates, like ``noise_estimate``."""

    @hookspec
    def post_step(self, state: State) -> None:
        """Look at x after a step, or replace it, x being at ``state.t``; or ``state.stop()``."""

    @hookspec
    def finish(self, state: State) -> None:
        """Look at x after the last step, or replace it; also of a run that was stopped."""


SETS_START = "set the start"
"""What a plugin declares as ``unique`` if its ``start`` makes the image to begin with."""
HOOKS = frozenset(name for name, value in vars(Plugin).items() if hasattr(value, "composer_spec"))


_DEFAULTS = Plugin()


def declared(thing: object, name: str) -> Any:
    """What a plugin declares; the default of :class:`Plugin` if it has no such attribute."""
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
    """Plugins, each followed by those that stand in place of its conditions; each object once."""
    seen: set[int] = set()
    waiting = [*plugins][::-1]  # a stack
    while waiting:
        plugin = waiting.pop()
        if id(plugin) not in seen:
            seen.add(id(plugin))
            yield plugin
            waiting += [c for c in conditions_of(plugin) if is_nested(c)][::-1]


def sets_conditions(plugin: object) -> bool:
    """Whether a plugin, or one nested in it, decides conditions."""
    every = (c for nested in with_nested([plugin]) for c in conditions_of(nested))
    return not all(is_nested(condition) for condition in every)


def kind_of(condition: Any, otherwise: Prediction) -> Prediction:
    """What the estimates of a plugin, or the model's for a condition, predict: what the plugin
    declares, or the same as its first condition's. A Sampler checks that the others are like it."""
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
