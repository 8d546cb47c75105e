"""Middleware for ``langchain.agents.create_agent``: guided answers, and a budget."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal, get_type_hints
from weakref import WeakValueDictionary

try:
    from langchain.agents.middleware import (
        AgentMiddleware,
        AgentState,
        ExtendedModelResponse,
        ModelRequest,
        ModelResponse,
    )
    from langchain.agents.middleware.types import PrivateStateAttr
    from langgraph.channels.untracked_value import UntrackedValue
    from langgraph.managed.base import ManagedValue
    from langgraph.types import Command
except ImportError as missing:
    raise ImportError(
        f'{missing}. The middleware needs langchain: pip install "langchain-gkt[cli]"'
    ) from missing
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from typing_extensions import NotRequired, TypedDict

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.chain.fields import CALL_ARGUMENTS
from langchain_gkt.chain.strategy import strategy_of
from langchain_gkt.costs import Budget, CostReport, CostTracker
from langchain_gkt.costs.prices import MachineTime, Prices
from langchain_gkt.errors import BudgetExceeded
from langchain_gkt.students.conversion import as_student

__all__ = ["BudgetMiddleware", "GuidanceMiddleware"]

_Request = ModelRequest[Any]
_Response = ModelResponse[Any]


class GuidanceMiddleware(AgentMiddleware[Any, Any, Any]):
    """Has a student finish an agent's plain answers. The agent's model becomes the teacher.

    Tool calls are the teacher's own, whole and unchanged, as for
    `GuidedKnowledgeTransferChain.bind_tools`. A model that is already a guided chain stays as it
    is.

    Put it after middleware that changes the model, such as ``ModelFallbackMiddleware``. Then a
    fallback's answer is guided, too. Before it, a fallback writes the whole answer itself.

    Examples:
        >>> create_agent(  # doctest: +SKIP
        ...     model="openai:gpt-4o-mini",
        ...     middleware=[GuidanceMiddleware(student="path/or/repo-id", guidance_tokens=40)],
        ... )
    """

    def __init__(self, student: Any, **fields: Any) -> None:
        """Load the student.

        Args:
            student: Any input of `as_student`.
            **fields: Other fields of `GuidedKnowledgeTransferChain`, without ``teacher``.

        Raises:
            TypeError: If a field is unknown, or the student of no known kind.
            ValueError: If a value makes no sense.
        """
        super().__init__()
        if "teacher" in fields:
            raise TypeError("GuidanceMiddleware takes no teacher; it is the agent's model")
        loaded = as_student(student, **(fields.pop("student_kwargs", None) or {}))
        # The student stands in for the teacher, so that wrong fields are refused here.
        self._chain = GuidedKnowledgeTransferChain(teacher=loaded, student=loaded, **fields)

    def wrap_model_call(
        self, request: _Request, handler: Callable[[_Request], _Response]
    ) -> _Response:
        """Call the guided chain instead of the agent's model."""
        return handler(self._guided(request))

    async def awrap_model_call(
        self, request: _Request, handler: Callable[[_Request], Awaitable[_Response]]
    ) -> _Response:
        """Do what `wrap_model_call` does, on the event loop."""
        return await handler(self._guided(request))

    def _guided(self, request: _Request) -> _Request:
        model: Any = request.model
        if not isinstance(model, GuidedKnowledgeTransferChain):
            return _with_chain(request, self._chain)
        if strategy_of(model.mode).asks_student:
            return request
        # From a BudgetMiddleware before this one. Its tracker must continue listening.
        handlers = [*handlers_in(self._chain), *handlers_in(model)]
        guided = self._chain.model_copy(update={"teacher": model.teacher, "callbacks": handlers})
        return request.override(model=guided)


class BudgetState(AgentState[Any]):
    """The state of an agent with a `BudgetMiddleware`: the cost of its model calls.

    Both hold ``spent_usd`` (a decimal string) and ``spent_tokens`` of the teacher, as ``budget`` of
    a `CostReport` does. A checkpointer keeps the sum of a thread. The sum of a run begins with the
    run.
    """

    budget_of_thread: NotRequired[Annotated[dict[str, Any], PrivateStateAttr]]
    budget_of_run: NotRequired[Annotated[dict[str, Any], UntrackedValue, PrivateStateAttr]]


class BudgetMiddleware(AgentMiddleware[BudgetState, Any, Any]):
    """Keeps a `Budget` over the model calls of an agent.

    It reserves the maximum cost before each call. A call that could pass a budget is not made. Put
    it after middleware that changes the model. Calls that bypass it are not counted, and a warning
    says so. Calls of an `AdvisorMiddleware` are counted on both sides.

    Attributes:
        tracker: The `CostTracker` that counts the calls, of all threads.
    """

    state_schema = BudgetState

    def __init__(
        self,
        budget: Budget | None = None,
        *,
        per_thread: Budget | None = None,
        per_run: Budget | None = None,
        teacher_price: Prices = None,
        student_price: Prices | MachineTime = None,
        tier: str | None = None,
        exit_behavior: Literal["error", "end"] = "error",
        end_message: str = "I have to stop here, because the budget is spent.",
    ) -> None:
        """Start with nothing spent.

        The agent's own model counts as the teacher.

        Args:
            budget: Limits of all calls together, of any thread, as long as this object lives.
            per_thread: Limits of a thread. The sum is in the agent's state, so it outlives this
                process where the agent has a checkpointer.
            per_run: Limits of one run (``invoke``) of the agent.
            teacher_price: As for `CostTracker`.
            student_price: As for `CostTracker`.
            tier: As for `CostTracker`, such as ``flex`` for calls at that price.
            exit_behavior: Whether a refused call raises `BudgetExceeded`, or ends the agent with a
                message.
            end_message: The text of that message, for the agent's users. The reason of the refusal
                is in its ``response_metadata["budget_exceeded"]``.

        Raises:
            TypeError: If a budget is invalid.
            ValueError: If there is no budget, or ``exit_behavior`` is unknown.
        """
        super().__init__()
        if exit_behavior not in ("error", "end"):
            raise ValueError(f"exit_behavior must be 'error' or 'end', not {exit_behavior!r}")
        limits = {"budget": budget, "per_thread": per_thread, "per_run": per_run}
        for name, limit in limits.items():
            if limit is not None and not isinstance(limit, Budget):
                raise TypeError(f"{name} must be a Budget(usd='5'), not {type(limit).__name__}")
        if not any(limits.values()):
            raise ValueError("BudgetMiddleware limits nothing; give budget=, per_thread=, per_run=")
        priced = [limit.teacher_price for limit in limits.values() if limit and limit.teacher_price]
        self.tracker = CostTracker(
            budget=budget,
            teacher_price=teacher_price or next(iter(priced), None),
            student_price=student_price,
            tier=tier,
        )
        self._of_state = {"budget_of_thread": per_thread, "budget_of_run": per_run}
        self._exit_behavior, self._end_message = exit_behavior, end_message
        key = uuid.uuid4().hex
        _budgets[key] = self
        self.state_schema = _state_naming(key)

    def report(self) -> CostReport:
        """Return the cost of the agent's calls so far, in all threads."""
        return self.tracker.report()

    def wrap_model_call(
        self, request: _Request, handler: Callable[[_Request], _Response]
    ) -> ExtendedModelResponse[Any]:
        """Make the call if the budget allows it."""
        with self._of_thread_and_run(request) as trackers:
            try:
                response = self._checked(handler(self._counted(request, trackers)))
            except BudgetExceeded as error:
                response = self._ended(error)
        return _with_sums(response, _sums(trackers))

    async def awrap_model_call(
        self, request: _Request, handler: Callable[[_Request], Awaitable[_Response]]
    ) -> ExtendedModelResponse[Any]:
        """Do what `wrap_model_call` does, on the event loop."""
        with self._of_thread_and_run(request) as trackers:
            try:
                response = self._checked(await handler(self._counted(request, trackers)))
            except BudgetExceeded as error:
                response = self._ended(error)
        return _with_sums(response, _sums(trackers))

    @contextmanager
    def counting(self, request: _Request) -> Iterator[list[BaseCallbackHandler]]:
        """Yield the handlers that count earlier middleware's model calls for a request.

        The budget's own call continues the sum.

        Args:
            request: The request, as this middleware will get it.
        """
        with self._of_thread_and_run(request) as trackers:
            yield [*trackers.values(), self.tracker]

    @contextmanager
    def _of_thread_and_run(self, request: _Request) -> Iterator[dict[str, CostTracker]]:
        """Yield a tracker of this call for each budget whose sum is in the agent's state."""
        state: Any = request.state
        trackers = {
            name: self.tracker.continued(budget, state.get(name) or {})
            for name, budget in self._of_state.items()
            if budget is not None
        }
        try:
            yield trackers
        finally:  # earlier middleware may ask again, and continue this sum
            state.update(_sums(trackers))

    def _counted(self, request: _Request, trackers: Mapping[str, CostTracker]) -> _Request:
        model: BaseChatModel = request.model
        own: list[BaseCallbackHandler] = [*trackers.values(), self.tracker]
        if not isinstance(model, GuidedKnowledgeTransferChain):
            # In mode "teacher" the student is never asked, so the model may stand in for it.
            alone = GuidedKnowledgeTransferChain(
                teacher=model, student=model, mode="teacher", callbacks=own
            )
            return _with_chain(request, alone)
        handlers = [*handlers_in(model), *own]
        return request.override(model=model.model_copy(update={"callbacks": handlers}))

    def _checked(self, response: _Response) -> _Response:
        for message in response.result:
            if isinstance(message, AIMessage) and "gkt" not in message.response_metadata:
                warnings.warn(
                    "an agent's model answered past BudgetMiddleware, which did not count it; put "
                    "BudgetMiddleware behind the middleware that changes the model",
                    UserWarning,
                    stacklevel=2,
                )
        return response

    def refused(self, request: _Request, error: BudgetExceeded) -> ExtendedModelResponse[Any]:
        """End the agent by ``exit_behavior``, after a refused call of earlier middleware.

        Args:
            request: The request behind the call.
            error: The refusal.

        Raises:
            BudgetExceeded: If ``exit_behavior`` says so.
        """
        state: Any = request.state
        sums = {
            name: state[name] for name, budget in self._of_state.items() if budget and name in state
        }
        return _with_sums(self._ended(error), sums)

    def _ended(self, error: BudgetExceeded) -> _Response:
        if self._exit_behavior == "error":
            raise error
        why = {"budget_exceeded": str(error)}
        return ModelResponse(result=[AIMessage(self._end_message, response_metadata=why)])


_budgets: WeakValueDictionary[str, BudgetMiddleware] = WeakValueDictionary()
"""The budgets of this process, by their names in the states of their agents."""


def _state_naming(key: str) -> Any:
    """Return the state of an agent with a budget, by which its other middleware can find it."""

    class Key(ManagedValue[str]):
        @staticmethod
        def get(scratchpad: Any) -> str:
            return key

    fields: dict[str, Any] = get_type_hints(BudgetState, include_extras=True)
    named: Any = {**fields, "budget_key": Annotated[str, PrivateStateAttr, Key]}
    return TypedDict("BudgetState", named)  # type: ignore[operator]


def budget_behind(request: _Request) -> BudgetMiddleware | None:
    """Return the budget of a request's agent that does not count yet, because it comes later.

    None if there is none, or if it came earlier.
    """
    state: Any = request.state
    budget = _budgets.get(state.get("budget_key", ""))
    return None if budget is None or budget.tracker in handlers_in(request.model) else budget


def _with_sums(response: _Response, sums: dict[str, Any]) -> ExtendedModelResponse[Any]:
    """Put the spent amounts into the agent's state."""
    return ExtendedModelResponse(response, Command(update=sums) if sums else None)


def _sums(trackers: Mapping[str, CostTracker]) -> dict[str, dict[str, Any]]:
    """Return the spent amounts by the names of the agent's state."""
    sums = {}
    for name, tracker in trackers.items():
        spent = tracker.report().budget or {}
        sums[name] = {key: spent[key] for key in ("spent_usd", "spent_tokens")}
    return sums


def handlers_in(model: Any) -> list[Any]:
    """Return a guided chain's own handlers. An empty list for another model."""
    if not isinstance(model, GuidedKnowledgeTransferChain):
        return []
    callbacks: Any = model.callbacks
    return list(getattr(callbacks, "handlers", callbacks) or [])


def _with_chain(request: _Request, chain: GuidedKnowledgeTransferChain) -> _Request:
    """Replace a request's model by a chain. The model becomes its teacher."""
    teacher: Any = request.model
    settings = dict(request.model_settings)
    known = {name: settings.pop(name) for name in CALL_ARGUMENTS if name in settings}
    if settings:  # a provider's own, which only its model knows
        teacher = teacher.bind(**settings)
    chain = chain.model_copy(update={"teacher": teacher})
    return request.override(model=chain, model_settings=known)
