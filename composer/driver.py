"""The driver: plugins that ask each other, and one batched model call a round.

A ``noise_estimate`` is a generator that yields lists of requests and returns an estimate. Each
request is answered by the next plugin further in, what the innermost asks by the model. So one
request opens a tree of conversations. The driver runs it in rounds: every conversation goes on
until it needs the model, then all that the tree needs of the model is evaluated in one call.

The same question is answered once, wherever in the tree it is asked. Otherwise k plugins that ask
twice each would hold 2^k conversations: of guidance in guidance each asks about the condition and
about none, and the next one inside would be asked about none by both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from composer.errors import NonFiniteError
from composer.estimates import Estimate
from composer.images import all_finite
from composer.lent import Lent
from composer.protocols import Asking
from composer.requests import Request

T = TypeVar("T")
NoiseEstimate = Callable[[Request], Asking[Estimate]]


class Answer(Protocol):
    """Anything that answers a list of requests in order: the model, or a table in a test."""

    def __call__(self, requests: list[Request], /) -> list[Estimate]: ...


def resolve(
    request: Request, plugins: Sequence[NoiseEstimate], model: Answer, debug: bool = False
) -> Estimate:
    """Answer one request by the first of ``plugins``, its questions by the rest, then the model.

    Args:
        debug: raise a NonFiniteError, which names the plugin, for an estimate with NaN or Inf;
            that waits for the device.
    """
    return converse(asked([request]), plugins, model, "the loop", debug)[0]


def asked(requests: list[Request]) -> Asking[list[Estimate]]:
    """A generator that asks these requests and returns their answers."""
    return (yield requests)


def converse(
    asking: Asking[T],
    plugins: Sequence[NoiseEstimate],
    model: Answer,
    who: str,
    debug: bool = False,
) -> T:
    """Run one generator, named ``who``, to its end; answer its questions as :func:`resolve`."""
    outermost = _Conversation(asking, tuple(plugins), who)
    tree = _Tree(outermost, debug)
    while True:
        tree.go_on()
        if outermost.ended:
            return outermost.value  # type: ignore[no-any-return]
        waiting = tree.for_the_model
        if not waiting:
            raise ValueError("a plugin waits for its own answer; it must not ask itself")
        tree.for_the_model = []
        tree.settle(waiting, model([question.request for question in waiting]))


class _Tree:
    """All conversations about one request, and the questions asked in them."""

    def __init__(self, outermost: _Conversation, debug: bool) -> None:
        self.for_the_model: list[_Question] = []
        self._debug = debug
        self._questions: dict[Hashable, _Question] = {}
        self._ready = [outermost]  # a stack: the first of those that can go on lies on top

    def go_on(self) -> None:
        """Advance each conversation until it ends, or waits for what only the model can say."""
        while self._ready:
            conversation = self._ready.pop()
            conversation.advance()
            if not conversation.ended:
                self._ask(conversation)
            elif conversation.about is not None:
                self.settle([conversation.about], [conversation.estimate(self._debug)])

    def _ask(self, conversation: _Conversation) -> None:
        """Open a conversation about each question that nobody has asked before."""
        opened = []
        for request in conversation.requests():
            new = _Question(request, conversation.inner)
            question = self._questions.setdefault(new.key, new)
            conversation.wait_for(question)
            if question is not new:
                continue
            if question.plugins:
                opened.append(question.conversation())
            else:
                self.for_the_model.append(question)
        self._wake(opened if conversation.waits else [conversation])

    def settle(self, questions: Iterable[_Question], answers: Iterable[Estimate]) -> None:
        """Hand out answers; who has all its answers goes on."""
        woken = []
        for question, answer in zip(questions, answers, strict=True):
            question.answer = answer
            woken += [asker for asker in question.askers if asker.has_one_more()]
            question.askers = []  # no cycle of references is left, to hold tensors after the step
        self._wake(woken)

    def _wake(self, conversations: list[_Conversation]) -> None:
        self._ready += reversed(conversations)


class _Question:
    """A request, and the plugins that are to answer it; the model if there are none."""

    __slots__ = "answer", "askers", "key", "plugins", "request"

    def __init__(self, request: Request, plugins: tuple[NoiseEstimate, ...]) -> None:
        if request.through:
            plugins = (*(plugin.noise_estimate for plugin in request.through), *plugins)
            request = request.replace(through=())
        self.request, self.plugins = request, plugins
        self.key: Hashable = (request.identity, plugins)
        self.answer: Estimate | None = None
        self.askers: list[_Conversation] = []

    def conversation(self) -> _Conversation:
        """The first plugin's answer, which is to be asked for."""
        outer, inner = self.plugins[0], self.plugins[1:]
        return _Conversation(outer(self.request), inner, outer, self)


class _Conversation:
    """A generator that runs.

    Args:
        asking: the generator.
        inner: the plugins that answer what it asks.
        who: its name for messages, or the function that made it.
        about: the question that its return value answers; None for the outermost.
    """

    __slots__ = "_asked", "_asking", "_who", "about", "ended", "inner", "value", "waits"

    def __init__(
        self,
        asking: Asking[Any],
        inner: tuple[NoiseEstimate, ...],
        who: str | NoiseEstimate,
        about: _Question | None = None,
    ) -> None:
        self.inner, self.about = inner, about
        self.ended = False
        self.value: Any = None  # what it yielded last, or returned
        self.waits = 0
        self._asking, self._who = asking, who
        self._asked: list[_Question] | None = None  # None until it has begun

    def __str__(self) -> str:
        """Its name, for messages."""
        return self._who if isinstance(self._who, str) else described(self._who)

    def advance(self) -> None:
        """Send it the answers to what it has asked, and take what it asks next, or returns."""
        answers: list[Any] = [question.answer for question in self._asked or ()]
        lent = Lent(None if self.about is None else self.about.request, answers)
        begun: Any = None if self._asked is None else answers
        try:
            self.value = self._asking.send(begun)
        except StopIteration as stop:
            self.ended, self.value = True, stop.value
        lent.check(self)

    def requests(self) -> list[Request]:
        """What it yielded, if that is a list of requests."""
        asked, self._asked = self.value, []
        if isinstance(asked, list | tuple) and all(isinstance(r, Request) for r in asked):
            return list(asked)
        raise TypeError(
            f"{self} yielded {type(asked).__name__}, not a list of Requests; write "
            "`estimates = yield [request, ...]`, with square brackets around a single request too"
        )

    def wait_for(self, question: _Question) -> None:
        """Take the answer to a question, now or when it is there."""
        self._asked.append(question)  # type: ignore[union-attr]
        if question.answer is None:
            question.askers.append(self)
            self.waits += 1

    def has_one_more(self) -> bool:
        """Count an answer that has come; whether it was the last."""
        self.waits -= 1
        return self.waits == 0

    def estimate(self, debug: bool) -> Estimate:
        """What it returned, if that is an estimate of what it was asked."""
        estimate = self.value
        request = self.about.request  # type: ignore[union-attr]
        if not isinstance(estimate, Estimate):
            raise TypeError(
                f"{self} returned {type(estimate).__name__}, not an Estimate; combine the "
                "answers with +, -, * and /, and return the result"
            )
        if estimate.prediction.shape != request.x.shape:
            raise ValueError(
                f"{self} returned a prediction of shape {tuple(estimate.prediction.shape)} for x "
                f"of {tuple(request.x.shape)}"
            )
        if estimate.t != request.t:
            raise ValueError(
                f"{self} returned an estimate at t = {estimate.t:g} when it was asked at "
                f"t = {request.t:g}; what was kept of another time is replace(x=..., t=...)d first"
            )
        if debug and not all_finite(estimate.prediction):
            raise NonFiniteError(
                f"{self} returned NaN or Inf at step {request.step} (t = {request.t:g}), of "
                "answers that were finite; check its arithmetic, and scales that are very large"
            )
        return estimate.as_term()


def described(function: Callable[..., Any]) -> str:
    """'CFG.noise_estimate' for a bound method, for error messages."""
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__name__", None)  # repr only if need be: it prints whole networks
    if name is None:
        return repr(function)
    return f"{type(owner).__name__}.{name}" if owner is not None else name


def require_generator(function: Callable[..., Any]) -> None:
    """Refuse a ``noise_estimate`` that is no generator function of one request."""
    if not inspect.isgeneratorfunction(function):
        raise TypeError(
            f"{described(function)} is not a generator; it must ask with "
            "`estimates = yield [request]` and return an Estimate"
        )
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        raise TypeError(f"{described(function)} must take one argument, the request") from None
