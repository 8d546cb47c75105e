"""Middleware for ``langchain.agents.create_agent``: guided answers, and a budget."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from typing import Any, Literal

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
except ImportError as missing:
    raise ImportError(
        f'{missing}. The middleware needs langchain: pip install "langchain-gkt[cli]"'
    ) from missing
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.chain.settings import CALL_ARGUMENTS
from langchain_gkt.costs import Budget, CostReport, CostTracker
from langchain_gkt.costs.prices import MachineTime, Prices
from langchain_gkt.errors import BudgetExceeded
from langchain_gkt.students.conversion import as_student

__all__ = ["BudgetMiddleware", "GuidanceMiddleware"]

_Request = ModelRequest[Any]
_Response = ModelResponse[Any]


class GuidanceMiddleware(AgentMiddleware[Any, Any, Any]):
    """Has an agent's plain answers finished by a student; its model becomes the teacher.

    Tool calls are the teacher's own, whole and unchanged, as for
    `GuidedKnowledgeTransferChain.bind_tools`. A model that is a guided chain already is left as
    it is.

    Put it behind middleware that changes the model, such as ``ModelFallbackMiddleware``: then a
    fallback's answer is guided, too. In front of it, a fallback answers whole by itself.

    Examples:
        >>> create_agent(  # doctest: +SKIP
        ...     model="openai:gpt-4o-mini",
        ...     middleware=[GuidanceMiddleware(student="path/or/repo-id", guidance_tokens=40)],
        ... )
    """

    def __init__(self, student: Any, **fields: Any) -> None:
        """Load the student.

        Args:
            student: Whatever `as_student` takes.
            **fields: Other fields of `GuidedKnowledgeTransferChain`, without ``teacher``.

        Raises:
            TypeError: If a field is unknown, or the student of no known kind.
            ValueError: If a value makes no sense.
        """
        super().__init__()
        if "teacher" in fields:
            raise TypeError("GuidanceMiddleware takes no teacher; it is the agent's model")
        loaded = as_student(student, **(fields.pop("student_kwargs", None) or {}))
        # The student holds the place of the teacher, so that wrong fields are refused here.
        self._chain = GuidedKnowledgeTransferChain(teacher=loaded, student=loaded, **fields)

    def wrap_model_call(
        self, request: _Request, handler: Callable[[_Request], _Response]
    ) -> _Response:
        """Call the guided chain in place of the agent's model."""
        return handler(self._guided(request))

    async def awrap_model_call(
        self, request: _Request, handler: Callable[[_Request], Awaitable[_Response]]
    ) -> _Response:
        """Do what `wrap_model_call` does, on the event loop."""
        return await handler(self._guided(request))

    def _guided(self, request: _Request) -> _Request:
        given: Any = request.model
        if not isinstance(given, GuidedKnowledgeTransferChain):
            return _with_chain(request, self._chain)
        if given.mode != "teacher":
            return request
        # What a BudgetMiddleware in front of this one made; its tracker must go on listening.
        handlers = [*_handlers(self._chain), *_handlers(given)]
        guided = self._chain.model_copy(update={"teacher": given.teacher, "callbacks": handlers})
        return request.override(model=guided)


class BudgetMiddleware(AgentMiddleware[Any, Any, Any]):
    """Keeps a `Budget` over all model calls of an agent.

    Before each call the most it can cost is reserved; a call that could pass the budget is not
    made. Put it behind middleware that changes the model: calls that do not come through it are
    not counted, which is warned about.

    Attributes:
        tracker: The `CostTracker` that counts the calls.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        teacher_price: Prices = None,
        student_price: Prices | MachineTime = None,
        exit_behavior: Literal["error", "end"] = "error",
    ) -> None:
        """Start with nothing spent.

        Args:
            budget: The limits. The agent's own model counts as the teacher.
            teacher_price: As for `CostTracker`.
            student_price: As for `CostTracker`.
            exit_behavior: Whether a call that is refused raises `BudgetExceeded`, or ends the
                agent with a message that says so.

        Raises:
            TypeError: If the budget is none.
        """
        super().__init__()
        if exit_behavior not in ("error", "end"):
            raise ValueError(f"exit_behavior must be 'error' or 'end', not {exit_behavior!r}")
        if not isinstance(budget, Budget):
            raise TypeError(f"budget must be a Budget(usd='5'), not {type(budget).__name__}")
        self.tracker = CostTracker(
            budget=budget, teacher_price=teacher_price, student_price=student_price
        )
        self._exit_behavior = exit_behavior

    def report(self) -> CostReport:
        """Return what the agent's calls have cost so far."""
        return self.tracker.report()

    def wrap_model_call(
        self, request: _Request, handler: Callable[[_Request], _Response]
    ) -> _Response:
        """Let the call be made if the budget allows it."""
        try:
            return self._checked(handler(self._counted(request)))
        except BudgetExceeded as error:
            return self._ended(error)

    async def awrap_model_call(
        self, request: _Request, handler: Callable[[_Request], Awaitable[_Response]]
    ) -> _Response:
        """Do what `wrap_model_call` does, on the event loop."""
        try:
            return self._checked(await handler(self._counted(request)))
        except BudgetExceeded as error:
            return self._ended(error)

    def _counted(self, request: _Request) -> _Request:
        model: BaseChatModel = request.model
        if not isinstance(model, GuidedKnowledgeTransferChain):
            # In mode "teacher" the student is never asked, so the model may stand for it.
            alone = GuidedKnowledgeTransferChain(
                teacher=model, student=model, mode="teacher", callbacks=[self.tracker]
            )
            return _with_chain(request, alone)
        handlers = [*_handlers(model), self.tracker]
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

    def _ended(self, error: BudgetExceeded) -> _Response:
        if self._exit_behavior == "error":
            raise error
        return ModelResponse(result=[AIMessage(f"The budget is spent: {error}")])


def _handlers(chain: GuidedKnowledgeTransferChain) -> list[Any]:
    found: Any = chain.callbacks
    return list(getattr(found, "handlers", found) or [])


def _with_chain(request: _Request, chain: GuidedKnowledgeTransferChain) -> _Request:
    """Put a chain in the place of a request's model, which becomes its teacher."""
    teacher: Any = request.model
    settings = dict(request.model_settings)
    known = {name: settings.pop(name) for name in CALL_ARGUMENTS if name in settings}
    if settings:  # a provider's own, which only its model knows
        teacher = teacher.bind(**settings)
    chain = chain.model_copy(update={"teacher": teacher})
    return request.override(model=chain, model_settings=known)
