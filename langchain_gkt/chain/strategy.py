"""The definition of a strategy: one way to make an answer, registered under a ``mode=`` name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_gkt.chain.drivers import CallSteps
from langchain_gkt.errors import GKTError, any_of, refuse_broken_text, refuse_empty, wrap_errors
from langchain_gkt.modes import Role

Steps = Callable[..., CallSteps]
"""Called with the `CallSettings`, the messages and ``streaming=``: whether models are streamed."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One way to make an answer, and its properties.

    Attributes:
        name: Its name as a value of ``mode``.
        steps: A generator of the steps of one call. It yields chunks to show, `ModelCall`,
            `BlockingWork` and ``NEXT_CHUNK``. The last chunk comes from `answer.last_chunk`.
        roles: The models that it may run.
        has_teacher_counterpart: Whether to compare its bill with that of the teacher alone.
        student_may_answer: Whether the student answers alone where the teacher fails, refuses
            or is over budget, if the chain's settings allow it.
        asks_own_questions: Whether it asks the teacher questions of its own, such as for a verdict,
            so that recorded answers are not enough.
    """

    name: str
    steps: Steps
    roles: frozenset[Role]
    has_teacher_counterpart: bool = False
    student_may_answer: bool = False
    asks_own_questions: bool = False

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher may be asked."""
        return "teacher" in self.roles

    @property
    def asks_student(self) -> bool:
        """Whether the student may be asked. If not, the teacher's text is the answer as it is."""
        return "student" in self.roles

    def call(self, settings: Any, messages: list[BaseMessage], *, streaming: bool) -> CallSteps:
        """Return the steps of one call, for a driver. Without ``streaming`` no model is streamed.

        All its errors are errors of the package.
        """
        with wrap_errors(GKTError, "the call failed"):
            refuse_empty(messages)
            refuse_broken_text(messages)
            yield from self.steps(settings, messages, streaming=streaming)


_STRATEGIES: dict[str, Strategy] = {}


def strategy(
    name: str, *, roles: tuple[Role, ...] = ("teacher", "student"), **facts: Any
) -> Callable[[Steps], Steps]:
    """Register a generator of steps as a strategy.

    Args:
        name: Its name as a value of ``mode``.
        roles: The models that it may run.
        **facts: Other fields of `Strategy`.

    Raises:
        ValueError: If another function already has the name.
    """

    def register(steps: Steps) -> Steps:
        known = _STRATEGIES.get(name)
        if known is not None and known.steps.__qualname__ != steps.__qualname__:
            raise ValueError(f"mode={name!r} is taken by {known.steps.__qualname__}; rename one")
        _STRATEGIES[name] = Strategy(name=name, steps=steps, roles=frozenset(roles), **facts)
        return steps

    return register


def strategy_names() -> tuple[str, ...]:
    """Return the names of all strategies, the default first."""
    return tuple(_STRATEGIES)


def strategy_of(name: Any) -> Strategy:
    """Look a strategy up by a value of ``mode``, which must be known."""
    if name not in _STRATEGIES:
        raise ValueError(f"mode must be {any_of(_STRATEGIES)}, not {name!r}")
    return _STRATEGIES[name]
