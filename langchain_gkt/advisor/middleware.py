"""Middleware for agents that a student drives: a teacher plans, and helps where it goes wrong."""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

try:
    from langchain.agents.middleware import (
        AgentMiddleware,
        AgentState,
        ExtendedModelResponse,
        ModelRequest,
        ModelResponse,
    )
    from langchain.agents.middleware.types import PrivateStateAttr
    from langchain.chat_models import init_chat_model
    from langchain.tools import ToolRuntime
    from langgraph.types import Command
except ImportError as missing:
    raise ImportError(
        f'{missing}. The middleware needs langchain: pip install "langchain-gkt[cli]"'
    ) from missing
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config, merge_configs
from langchain_core.tools import StructuredTool
from typing_extensions import NotRequired

from langchain_gkt.advisor.conversation import (
    REQUESTS,
    Advice,
    AdviceKind,
    given_advice,
    has_failed_twice,
    last_id,
    question_id,
    repeats_itself,
    told,
)
from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.chain.strategy import strategy_of
from langchain_gkt.errors import BudgetExceeded, TeacherError, whole_number
from langchain_gkt.gates import AgreementGate
from langchain_gkt.guidance import Guidance, GuidancePolicy
from langchain_gkt.prompts.conversation import with_system_text
from langchain_gkt.structured_output.tools import in_openai_form
from langchain_gkt.students.call_voting import vote_on_calls
from langchain_gkt.students.prompting import tools_as_text
from langchain_gkt.students.protocol import Student, student_of
from langchain_gkt.teachers.wrappers import models_of
from langchain_gkt.texts.reasoning import without_reasoning

ASK_ADVISOR = "ask_advisor"
"""The tool by which the student asks."""


class AdvisorState(AgentState[Any]):
    """The state of an agent with an `AdvisorMiddleware`; a checkpointer keeps the advice."""

    advice: NotRequired[Annotated[list[Advice], PrivateStateAttr, operator.add]]


_Request = ModelRequest[Any]
_Response = ModelResponse[Any]


class AdvisorMiddleware(AgentMiddleware[AdvisorState, Any, Any]):
    """Has a big teacher advise an agent whose model is a small student.

    The student makes every turn. The teacher writes a plan for each question of the user, which
    stands in the system message, and a hint where something goes wrong, which stands behind the
    conversation for the turn after it. Each kind of advice has a limit of tokens of its own. 0
    turns it off. Its calls have the role ``teacher`` in cost reports.

    Examples:
        >>> create_agent(  # doctest: +SKIP
        ...     model=HuggingFaceStudent(model="path/or/repo-id"),
        ...     tools=[...],
        ...     middleware=[AdvisorMiddleware("openai:gpt-4o-mini")],
        ... )
    """

    state_schema = AdvisorState

    def __init__(
        self,
        teacher: str | Runnable[Any, Any],
        *,
        plan_tokens: int = 200,
        tool_error_tokens: int = 80,
        repeated_call_tokens: int = 80,
        low_agreement_tokens: int = 80,
        asked_tokens: int = 120,
        gate: AgreementGate | None = None,
        max_hints: int = 3,
        **fields: Any,
    ) -> None:
        """Prepare, without asking anybody.

        Args:
            teacher: Any LangChain chat model, wrapped or not, or a name for ``init_chat_model``.
            plan_tokens: Most tokens of the plan.
            tool_error_tokens: Most tokens of a hint after two failed calls of tools in a row.
            repeated_call_tokens: Most tokens of a hint after a call that was made before.
            low_agreement_tokens: Most tokens of a hint where the student wavers. See ``gate``.
            asked_tokens: Most tokens of an answer to the student, which asks by the tool
                ``ask_advisor``.
            gate: Has the student write each turn several times before it makes it. If too few
                agree on what to do, it is given a hint. None for no such hint.
            max_hints: Most hints of each kind for one question of the user.
            **fields: Fields of `GuidedKnowledgeTransferChain` that concern the teacher, such as
                ``callbacks``, ``redact``, ``timeout``, or ``on_teacher_error="student"``, by which
                the student goes on without advice if the teacher fails.

        Raises:
            TypeError: If the teacher is missing or no chat model, or a field is unknown.
            ValueError: If a value makes no sense.
        """
        super().__init__()
        if teacher is None:
            raise TypeError("AdvisorMiddleware needs a teacher; give teacher= a chat model")
        if own := {"student", "mode", "max_tokens", "guidance", "guidance_tokens"} & fields.keys():
            raise TypeError(
                f"AdvisorMiddleware takes no {min(own)}; the student is the agent's model, and "
                "each kind of advice has its own limit, such as plan_tokens"
            )
        if gate is not None and not isinstance(gate, AgreementGate):
            raise TypeError(f"gate must be an AgreementGate, not {type(gate).__name__}")
        limits = {
            "plan": plan_tokens,
            "tool_error": tool_error_tokens,
            "repeated_call": repeated_call_tokens,
            "low_agreement": low_agreement_tokens if gate else 0,
            "asked": asked_tokens,
        }
        self._limits: dict[str, int] = {
            kind: whole_number(f"{kind}_tokens", limit, least=0, meaning="no such advice")
            for kind, limit in limits.items()
        }
        self._max_hints = whole_number("max_hints", max_hints, least=0, meaning="a plan alone")
        self._gate = gate
        model: Any = init_chat_model(teacher) if isinstance(teacher, str) else teacher
        # In mode "teacher" the student is never asked, so a teacher may stand for it.
        self._chain = GuidedKnowledgeTransferChain(
            teacher=model, student=next(models_of(model)), mode="teacher", **fields
        )
        # Advice whose turn failed: middleware around this one may ask for the turn again.
        self._paid: dict[tuple[str, ...], Advice] = {}
        self.tools = [self._asking_tool()] if self._limits["asked"] else []

    def wrap_model_call(
        self, request: _Request, handler: Callable[[_Request], _Response]
    ) -> ExtendedModelResponse[Any]:
        """Have the student make a turn, with advice if it is needed."""
        kind, tried = self._due(request), ""
        if kind is None and self._may_advise(request, "low_agreement"):
            student = _student_of(request)
            kind, tried = self._doubt(request, student.sample(**self._sampling(request)))
        new: list[Advice] = []
        if kind is not None and (new := self._paid_already(request, kind)) == []:
            new = self._keep(request, kind, self._ask(*self._question(request, kind, tried)))
        return self._noted(handler(self._advised(request, new)), new)

    async def awrap_model_call(
        self, request: _Request, handler: Callable[[_Request], Awaitable[_Response]]
    ) -> ExtendedModelResponse[Any]:
        """Do what `wrap_model_call` does, on the event loop."""
        kind, tried = self._due(request), ""
        if kind is None and self._may_advise(request, "low_agreement"):
            student = _student_of(request)
            kind, tried = self._doubt(request, await student.asample(**self._sampling(request)))
        new: list[Advice] = []
        if kind is not None and (new := self._paid_already(request, kind)) == []:
            asked = self._question(request, kind, tried)
            new = self._keep(request, kind, await self._aask(*asked))
        return self._noted(await handler(self._advised(request, new)), new)

    # --- when advice is needed ---

    def _due(self, request: _Request) -> AdviceKind | None:
        """Return the advice that the conversation calls for, if any."""
        if self._limits["plan"] and not given_advice(request.state, "plan"):
            return "plan"
        kinds: list[tuple[AdviceKind, bool]] = [
            ("tool_error", has_failed_twice(request.messages)),
            ("repeated_call", repeats_itself(request.messages)),
        ]
        return next((k for k, is_so in kinds if is_so and self._may_advise(request, k)), None)

    def _may_advise(self, request: _Request, kind: AdviceKind) -> bool:
        given = given_advice(request.state, kind)
        again = any(one["after"] == last_id(request.messages) for one in given)
        return bool(self._limits[kind]) and len(given) < self._max_hints and not again

    def _sampling(self, request: _Request) -> dict[str, Any]:
        """Return the arguments by which the student writes the turn several times."""
        advised, gate = self._advised(request, []), self._gate
        assert gate is not None  # its limit is 0 otherwise
        system = [advised.system_message] if advised.system_message else []
        tools = [in_openai_form(tool) for tool in request.tools]
        student = _student_of(request)
        bound = student.turn_arguments(tools, request.tool_choice) if tools else {}
        return {
            "messages": [*system, *advised.messages],
            "samples": gate.samples,
            "temperature": gate.temperature,
            **bound,
        }

    def _doubt(self, request: _Request, replies: list[AIMessage]) -> tuple[AdviceKind | None, str]:
        """Say whether too few turns do the same, and what they do."""
        tools = [in_openai_form(tool) for tool in request.tools]
        vote = vote_on_calls(replies, tools, choice=request.tool_choice)
        if self._gate is None or self._gate.decide({"agreement": vote.agreement}) == "none":
            return None, ""
        tried = dict.fromkeys(tools_as_text([reply])[0].text for reply in replies)
        return "low_agreement", "\n".join(f"- {text}" for text in tried)

    # --- what the teacher is asked ---

    def _question(
        self, request: _Request, kind: AdviceKind, tried: str
    ) -> tuple[AdviceKind, list[BaseMessage], Any]:
        tools = [in_openai_form(tool).get("function", {}) for tool in request.tools]
        known = "\n".join(f"- {one['name']}: {one.get('description', '')}" for one in tools if one)
        system = [request.system_message] if request.system_message else []
        asked = REQUESTS[kind] + (f" It has tried:\n{tried}" if tried else "")
        handlers = _handlers_of(request.model)
        return kind, told([*system, *request.messages], known, asked), handlers

    def _ask(self, kind: AdviceKind, messages: list[BaseMessage], handlers: Any) -> str:
        try:
            return _text(self._adviser(kind).guide(messages, _config(handlers)))
        except (TeacherError, BudgetExceeded) as error:
            return self._nothing(error)

    async def _aask(self, kind: AdviceKind, messages: list[BaseMessage], handlers: Any) -> str:
        try:
            return _text(await self._adviser(kind).aguide(messages, _config(handlers)))
        except (TeacherError, BudgetExceeded) as error:
            return self._nothing(error)

    def _adviser(self, kind: AdviceKind) -> GuidedKnowledgeTransferChain:
        return self._chain.model_copy(update={"max_tokens": self._limits[kind]})

    def _nothing(self, error: TeacherError | BudgetExceeded) -> str:
        """Go on without advice, or raise."""
        if isinstance(error, BudgetExceeded):
            may = error.student_may_answer
        else:
            may = self._chain.on_teacher_error == "student"
        if not may:
            raise error
        return ""

    # --- what becomes of advice ---

    def _paid_already(self, request: _Request, kind: AdviceKind) -> list[Advice]:
        question, after = question_id(request.state), last_id(request.messages)
        kept = self._paid.get((kind, question, after))
        return [] if kept is None else [kept]

    def _keep(self, request: _Request, kind: AdviceKind, text: str) -> list[Advice]:
        question, after = question_id(request.state), last_id(request.messages)
        new = Advice(kind=kind, text=text, question=question, after=after)
        self._paid[kind, question, after] = new
        return [new]

    def _noted(self, response: _Response, new: list[Advice]) -> ExtendedModelResponse[Any]:
        for one in new:
            self._paid.pop((one["kind"], one["question"], one["after"]), None)
        return ExtendedModelResponse(response, Command(update={"advice": new}) if new else None)

    def _advised(self, request: _Request, new: list[Advice]) -> _Request:
        """Show the student the plan, and what was said for this very turn."""
        valid = [one for one in [*given_advice(request.state), *new] if one["text"]]
        plans = [one["text"] for one in valid if one["kind"] == "plan"]
        last = last_id(request.messages)
        hints = [
            one["text"]
            for one in valid
            if one["kind"] not in ("plan", "asked") and one["after"] == last
        ]
        if plans:
            system = [request.system_message] if request.system_message else []
            text = f"A plan by an experienced adviser:\n{plans[-1]}"
            whole: Any = with_system_text(system, text)
            request = request.override(system_message=whole[0])
        if hints:
            hint = HumanMessage(f"An experienced adviser says: {hints[-1]}")
            request = request.override(messages=[*request.messages, hint])
        return request

    # --- the student asks ---

    def _asking_tool(self) -> StructuredTool:
        def asked(question: str, runtime: ToolRuntime) -> Any:
            if (refused := self._refusal(runtime)) is not None:
                return refused
            return self._answered(runtime, self._ask("asked", *_asking(question, runtime)))

        async def aasked(question: str, runtime: ToolRuntime) -> Any:
            if (refused := self._refusal(runtime)) is not None:
                return refused
            return self._answered(runtime, await self._aask("asked", *_asking(question, runtime)))

        return StructuredTool.from_function(
            asked,
            aasked,
            name=ASK_ADVISOR,
            description="Ask an experienced adviser what to do, if you do not know it yourself.",
        )

    def _refusal(self, runtime: Any) -> str | None:
        if len(given_advice(runtime.state, "asked")) < self._max_hints:
            return None
        return "The adviser has said enough. Decide by yourself."

    def _answered(self, runtime: Any, text: str) -> Any:
        call_id = runtime.tool_call_id
        said = text or "The adviser cannot be reached. Decide by yourself."
        new = Advice(kind="asked", text=text, question=question_id(runtime.state), after=call_id)
        answer = ToolMessage(said, tool_call_id=call_id, name=ASK_ADVISOR)
        return Command(update={"advice": [new], "messages": [answer]})


def _asking(question: str, runtime: Any) -> tuple[list[BaseMessage], Any]:
    messages: list[BaseMessage] = runtime.state["messages"]
    # The turn that asks is not answered yet, so it is told in the question.
    asked = REQUESTS["asked"].format(question=question)
    return told(messages[:-1], "", asked), []


def _text(guidance: Guidance) -> str:
    text = without_reasoning(guidance.text).strip()
    return text if guidance.complete else GuidancePolicy(cut="sentence").trim(text).strip()


def _config(handlers: Any) -> RunnableConfig:
    """Return the config of the run around, with the handlers that count the student's calls."""
    return merge_configs(ensure_config(), {"callbacks": handlers} if handlers else {})


def _handlers_of(model: Any) -> list[Any]:
    """Return the handlers that a `BudgetMiddleware` around has put into a model."""
    if not isinstance(model, GuidedKnowledgeTransferChain):
        return []
    found: Any = model.callbacks
    return list(getattr(found, "handlers", found) or [])


def _student_of(request: _Request) -> Student:
    """Return the student among what stands in for an agent's model."""
    model: Any = request.model
    if isinstance(model, GuidedKnowledgeTransferChain):
        model = model.student if strategy_of(model.mode).asks_student else model.teacher
    return student_of(model)
