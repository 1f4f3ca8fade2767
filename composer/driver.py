"""The driver: it runs the plugins' generators, with one batched model call per round.

A ``noise_estimate`` is a generator that yields lists of requests and returns an estimate. The next
plugin of the stack answers each request, and the model answers the innermost plugin. So one request
opens a tree of conversations. The driver runs the tree in rounds: it advances every conversation
until it needs the model, then evaluates all these requests in one call.

Equal requests are answered once in the whole tree. Otherwise k plugins with two requests each would
hold 2^k conversations: with guidance inside guidance, both requests of the outer one lead to an
unconditional request of the inner one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from typing import Any, Protocol, TypeVar

import torch

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
    """Answer one request by the first of ``plugins``, its requests by the rest, then the model.

    Args:
        debug: raise a NonFiniteError that names the plugin if an estimate has NaN or Inf; the
            check waits for the device.
    """
    question = _Question(request, tuple(plugins))
    tree = _Tree(debug)
    tree.ask(question)
    tree.run(model)
    if question.answer is None:
        raise _deadlock()
    return question.answer


def asked(requests: list[Request]) -> Asking[list[Estimate]]:
    """A generator that yields these requests and returns their answers."""
    return (yield requests)


def converse(
    asking: Asking[T],
    plugins: Sequence[NoiseEstimate],
    model: Answer,
    who: str,
    debug: bool = False,
) -> T:
    """Run one generator, named ``who``, to its end; answer its requests as :func:`resolve` does."""
    outermost = _Conversation(asking, tuple(plugins), who)
    tree = _Tree(debug)
    tree.begin(outermost)
    tree.run(model)
    if not outermost.ended:
        raise _deadlock()
    return outermost.value  # type: ignore[no-any-return]


def _deadlock() -> ValueError:
    return ValueError(
        "A plugin waits for its own answer. Send no request to the plugin that makes it."
    )


class _Tree:
    """All conversations of one request, and their questions."""

    def __init__(self, debug: bool) -> None:
        self._for_the_model: list[_Question] = []
        self._debug = debug
        self._questions: dict[Hashable, _Question] = {}
        self._ready: list[_Conversation] = []  # the last of them continues first

    def run(self, model: Answer) -> None:
        """Continue in rounds until no conversation and no question for the model is left."""
        while True:
            while self._ready:
                self._go_on(self._ready.pop())
            if not self._for_the_model:
                return
            waiting, self._for_the_model = self._for_the_model, []
            answers = model([question.request for question in waiting])
            woken: list[_Conversation] = []
            for question, answer in zip(waiting, answers, strict=True):
                woken += self._settled(question, answer)
            self._ready += reversed(woken)

    def ask(self, question: _Question) -> None:
        """Ask a first question."""
        self._questions[question.key] = question
        self._put(question, self._ready)

    def begin(self, conversation: _Conversation) -> None:
        """Begin a first conversation."""
        self._ready.append(conversation)

    def _go_on(self, conversation: _Conversation) -> None:
        """Advance a conversation until it asks or ends."""
        conversation.advance()
        if not conversation.ended:
            self._ask(conversation)
        elif conversation.about is not None:
            woken = self._settled(conversation.about, conversation.estimate(self._debug))
            self._ready += reversed(woken)

    def _ask(self, conversation: _Conversation) -> None:
        """Put each new question of a conversation to its first plugin, or to the model."""
        begun: list[_Conversation] = []
        for request in conversation.requests():
            question = _Question(request, conversation.inner)
            known = self._questions.setdefault(question.key, question)
            conversation.asked.append(known)
            if known.answer is None:
                known.askers.append(conversation)
                conversation.waits += 1
            if known is question:
                self._put(question, begun)
        if not conversation.waits:
            begun.append(conversation)
        self._ready += reversed(begun)

    def _put(self, question: _Question, begun: list[_Conversation]) -> None:
        """Put a question to the model, or begin its conversation with the first plugin."""
        if question.plugins:
            begun.append(question.conversation())
        else:
            self._for_the_model.append(question)

    def _settled(self, question: _Question, answer: Estimate) -> list[_Conversation]:
        """Answer a question; return the conversations that wait for nothing else."""
        question.answer = answer
        woken = []
        for asker in question.askers:  # one that asked twice stands there twice
            asker.waits -= 1
            if not asker.waits:
                woken.append(asker)
        question.askers.clear()  # a reference cycle would keep tensors alive
        return woken


class _Question:
    """A request, and the plugins that must answer it; the model if there are none."""

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
        """The conversation of the first plugin, which answers this question."""
        outer, inner = self.plugins[0], self.plugins[1:]
        return _Conversation(outer(self.request), inner, outer, self)


class _Conversation:
    """A running generator.

    Args:
        asking: the generator.
        inner: the plugins that answer its requests.
        who: its name for messages, or the function that made it.
        about: the question that its return value answers; None for the outermost.
    """

    __slots__ = "_asking", "_begun", "_who", "about", "asked", "ended", "inner", "value", "waits"

    def __init__(
        self,
        asking: Asking[Any],
        inner: tuple[NoiseEstimate, ...],
        who: str | NoiseEstimate,
        about: _Question | None = None,
    ) -> None:
        self.inner, self.about = inner, about
        self.ended = self._begun = False
        self.value: Any = None  # its last yielded value, or its return value
        self.asked: list[_Question] = []
        self.waits = 0  # the number of these without an answer
        self._asking, self._who = asking, who

    def __str__(self) -> str:
        """Its name, for messages."""
        return self._who if isinstance(self._who, str) else described(self._who)

    def advance(self) -> None:
        """Send the generator its answers, and take the value that it yields or returns."""
        answers: list[Any] = [question.answer for question in self.asked]
        sent: Any = answers if self._begun else None
        request = None if self.about is None else self.about.request
        lent = Lent(request, answers)
        # An outer plugin that wants the gradient of an answer sends an x that requires it.
        tracked = request is not None and request.x.requires_grad
        try:
            with torch.enable_grad() if tracked else nullcontext():
                self.value = self._asking.send(sent)
        except StopIteration as stop:
            self.ended, self.value = True, stop.value
        self._begun = True
        lent.check(self)

    def requests(self) -> list[Request]:
        """Return the yielded requests; raise a TypeError unless they are a list of requests."""
        asked, self.asked = self.value, []
        if isinstance(asked, list | tuple) and all(isinstance(r, Request) for r in asked):
            return list(asked)
        raise TypeError(
            f"{self} must yield a list of Requests, got {type(asked).__name__}. Write "
            "`estimates = yield [request, ...]`, with brackets also around a single request."
        )

    def estimate(self, debug: bool) -> Estimate:
        """Return its estimate; raise an error unless it answers the question."""
        estimate = self.value
        request = self.about.request  # type: ignore[union-attr]
        if not isinstance(estimate, Estimate):
            raise TypeError(
                f"{self} must return an Estimate, got {type(estimate).__name__}. Combine the "
                "answers with +, -, * and /, and return the result."
            )
        if estimate.prediction.shape != request.x.shape:
            raise ValueError(
                f"{self} must return a prediction of the shape {tuple(request.x.shape)} of x, got "
                f"{tuple(estimate.prediction.shape)}."
            )
        if estimate.t != request.t:
            raise ValueError(
                f"{self} must return an estimate at t = {request.t:g}, got t = {estimate.t:g}. To "
                "reuse an earlier estimate, call estimate.replace(x=request.x, t=request.t)."
            )
        if debug and not all_finite(estimate.prediction):
            raise NonFiniteError(
                f"{self} returned NaN or Inf at step {request.step} (t = {request.t:g}), from "
                "finite answers. Check its arithmetic, and very large scales."
            )
        return estimate.with_fixed_variance()


def described(function: Callable[..., Any]) -> str:
    """'CFG.noise_estimate' for a bound method, for error messages."""
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__name__", None)  # repr only without a name: it prints whole networks
    if name is None:
        return repr(function)
    return f"{type(owner).__name__}.{name}" if owner is not None else name


def require_generator(function: Callable[..., Any]) -> None:
    """Raise a TypeError unless a ``noise_estimate`` is a generator function of one request."""
    if not inspect.isgeneratorfunction(function):
        raise TypeError(
            f"{described(function)} must be a generator. Write `estimates = yield [request]`, and "
            "return an Estimate."
        )
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        raise TypeError(f"{described(function)} must take one argument, the request.") from None
