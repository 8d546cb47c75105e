"""Middleware for agents that a student drives. A teacher plans, and helps where it goes wrong."""

from __future__ import annotations

import operator
import uuid
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
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
    from langgraph.types import Command
except ImportError as missing:
    raise ImportError(
        f'{missing}. The middleware needs langchain: pip install "langchain-gkt[cli]"'
    ) from missing
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config, merge_configs
from typing_extensions import NotRequired

from langchain_gkt.advisor.conversation import (
    REQUESTS,
    Advice,
    AdviceKind,
    advisor_messages,
    answered,
    asking_tool,
    given_advice,
    has_failed_twice,
    last_id,
    question_id,
    recent,
    repeats_itself,
    unanswered,
)
from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.chain.drivers import BlockingWork, CallSteps, run_async, run_sync
from langchain_gkt.chain.strategy import strategy_of
from langchain_gkt.chain.tool_policy import marked_tools
from langchain_gkt.errors import BudgetExceeded, ConfigurationError, TeacherError, whole_number
from langchain_gkt.gates import AgreementGate
from langchain_gkt.guidance import Guidance, GuidancePolicy
from langchain_gkt.middleware import budget_behind, handlers_in
from langchain_gkt.prompts.conversation import with_system_text
from langchain_gkt.structured_output.tools import in_openai_form
from langchain_gkt.students.call_voting import vote_on_calls
from langchain_gkt.students.prompting import tools_as_text
from langchain_gkt.students.protocol import Student, student_of
from langchain_gkt.teachers.wrappers import models_of
from langchain_gkt.texts.reasoning import without_reasoning


class AdvisorState(AgentState[Any]):
    """The state of an agent with an `AdvisorMiddleware`. A checkpointer keeps the advice."""

    advice: NotRequired[Annotated[list[Advice], PrivateStateAttr, operator.add]]


_Request = ModelRequest[Any]
_Response = ModelResponse[Any]


@dataclass
class _Turn:
    """A turn, its new advice, and the answers to the student's questions by their call's id."""

    request: _Request
    new: list[Advice] = field(default_factory=list)
    answers: dict[str, ToolMessage] = field(default_factory=dict)


class AdvisorMiddleware(AgentMiddleware[AdvisorState, Any, Any]):
    """Has a big teacher advise an agent whose model is a small student.

    The student makes every turn. The teacher writes a plan for each question of the user, which
    goes into the system message, and a hint where something goes wrong, which follows the
    conversation for the next turn. Each kind of advice has a token limit of its own. 0 turns it
    off. Its calls have the role ``teacher`` in cost reports.

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
            plan_tokens: Maximum tokens of the plan.
            tool_error_tokens: Maximum tokens of a hint after two failed tool calls in a row.
            repeated_call_tokens: Maximum tokens of a hint after a repeated call.
            low_agreement_tokens: Maximum tokens of a hint where the student wavers. See ``gate``.
            asked_tokens: Maximum tokens of an answer to the student, which asks with the tool
                ``ask_advisor``.
            gate: Has the student write each turn several times before it makes it. If too few agree
                on what to do, the student gets a hint. None for no such hint.
            max_hints: Maximum hints of each kind for one question of the user.
            **fields: Fields of `GuidedKnowledgeTransferChain` that concern the teacher, such as
                ``callbacks``, ``redact``, ``timeout``, or ``on_teacher_error="student"``, with
                which the student continues without advice if the teacher fails.

        Raises:
            TypeError: If the teacher is missing or not a chat model, or a field is unknown.
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
        # In mode "teacher" the student is never asked, so a teacher may take its place.
        self._chain = GuidedKnowledgeTransferChain(
            teacher=model, student=next(models_of(model)), mode="teacher", **fields
        )
        # Advice whose turn failed. Middleware around this one may ask for the turn again.
        self._paid: dict[tuple[str, ...], Advice] = {}
        self.tools = [asking_tool()] if self._limits["asked"] else []

    def wrap_model_call(
        self, request: _Request, handler: Callable[[_Request], _Response]
    ) -> ExtendedModelResponse[Any]:
        """Have the student make a turn, with advice if it is needed."""
        turn = _Turn(request)
        try:
            for _ in run_sync(self._steps(turn)):
                pass
        except BudgetExceeded as error:
            return _refused(request, error)
        return self._noted(handler(turn.request), turn)

    async def awrap_model_call(
        self, request: _Request, handler: Callable[[_Request], Awaitable[_Response]]
    ) -> ExtendedModelResponse[Any]:
        """Do what `wrap_model_call` does, on the event loop."""
        turn = _Turn(request)
        try:
            async for _ in run_async(self._steps(turn)):
                pass
        except BudgetExceeded as error:
            return _refused(request, error)
        return self._noted(await handler(turn.request), turn)

    def _steps(self, turn: _Turn) -> CallSteps:
        """Ask for the advice that a turn needs, and show it to the student."""
        request, new = turn.request, turn.new
        _refuse_tools(request)
        for message, question in unanswered(recent(request.messages)):
            if len(given_advice(request.state, "asked")) + len(new) < self._max_hints:
                asked, call_id = REQUESTS["asked"].format(question=question), message.tool_call_id
                new.append((yield from self._advice(request, "asked", asked, call_id)))
                turn.answers[call_id] = answered(message, new[-1]["text"])
        shown = [turn.answers.get(getattr(m, "tool_call_id", ""), m) for m in request.messages]
        request = request.override(messages=shown)
        kind, tried = self._due(request), ""
        if kind is None and self._may_advise(request, "low_agreement"):
            kind, tried = self._doubt(request, (yield from self._sampled(request)))
        if kind is not None:
            asked = REQUESTS[kind] + (f" It has tried:\n{tried}" if tried else "")
            new.append((yield from self._advice(request, kind, asked, last_id(shown))))
        turn.request = self._with_advice(request, new)

    # --- when advice is needed ---

    def _due(self, request: _Request) -> AdviceKind | None:
        """Return the kind of advice that the conversation needs, if any."""
        if self._limits["plan"] and not given_advice(request.state, "plan"):
            return "plan"
        kinds: list[tuple[AdviceKind, bool]] = [
            ("tool_error", has_failed_twice(request.messages)),
            ("repeated_call", repeats_itself(request.messages)),
        ]
        return next((k for k, is_so in kinds if is_so and self._may_advise(request, k)), None)

    def _may_advise(self, request: _Request, kind: AdviceKind) -> bool:
        advice = given_advice(request.state, kind)
        again = any(entry["after"] == last_id(request.messages) for entry in advice)
        return bool(self._limits[kind]) and len(advice) < self._max_hints and not again

    def _sampled(self, request: _Request) -> Generator[BlockingWork, Any, Any]:
        """Have the student write the turn several times."""
        advised, gate = self._with_advice(request, []), self._gate
        assert gate is not None  # otherwise its limit is 0
        system = [advised.system_message] if advised.system_message else []
        tools = [in_openai_form(tool) for tool in request.tools]
        student = _student_of(request)
        with _counted(request) as config:
            arguments: dict[str, Any] = {
                "messages": [*system, *advised.messages],
                "samples": gate.samples,
                "temperature": gate.temperature,
                "config": config,
                **(student.turn_arguments(tools, request.tool_choice) if tools else {}),
            }
            sample = partial(student.sample, **arguments)
            return (yield BlockingWork(sample, partial(student.asample, **arguments)))

    def _doubt(self, request: _Request, replies: list[AIMessage]) -> tuple[AdviceKind | None, str]:
        """Return whether too few turns agree, and what they do."""
        tools = [in_openai_form(tool) for tool in request.tools]
        vote = vote_on_calls(replies, tools, choice=request.tool_choice)
        if self._gate is None or self._gate.decide({"agreement": vote.agreement}) == "none":
            return None, ""
        tried = dict.fromkeys(tools_as_text([reply])[0].text for reply in replies)
        return "low_agreement", "\n".join(f"- {text}" for text in tried)

    # --- requests to the teacher ---

    def _advice(
        self, request: _Request, kind: AdviceKind, asked: str, after: str
    ) -> Generator[BlockingWork, Any, Advice]:
        """Ask the teacher, unless a failed turn has already paid for this advice."""
        key = (kind, question_id(request.state), after)
        if key not in self._paid:
            tools = [in_openai_form(tool).get("function", {}) for tool in request.tools]
            known = [f"- {tool['name']}: {tool.get('description', '')}" for tool in tools if tool]
            system = [request.system_message] if request.system_message else []
            still_open = [message for message, _ in unanswered(request.messages)]
            seen = [message for message in request.messages if message not in still_open]
            messages = advisor_messages([*system, *seen], "\n".join(known), asked)
            advisor = self._chain.model_copy(update={"max_tokens": self._limits[kind]})
            with _counted(request) as config:
                ask = partial(advisor.guide, messages, config)
                aask = partial(advisor.aguide, messages, config)
                text = ""
                try:
                    text = _text((yield BlockingWork(ask, aask)))
                except BudgetExceeded as error:
                    if not error.student_may_answer:
                        raise
                except TeacherError:
                    if self._chain.on_teacher_error != "student":
                        raise
            self._paid[key] = Advice(kind=kind, text=text, question=key[1], after=after)
        return self._paid[key]

    # --- use of advice ---

    def _noted(self, response: _Response, turn: _Turn) -> ExtendedModelResponse[Any]:
        for entry in turn.new:
            self._paid.pop((entry["kind"], entry["question"], entry["after"]), None)
        update: dict[str, Any] = {"advice": turn.new, "messages": list(turn.answers.values())}
        return ExtendedModelResponse(response, Command(update=update) if turn.new else None)

    def _with_advice(self, request: _Request, new: list[Advice]) -> _Request:
        """Show the student the plan, and the advice for this very turn."""
        valid = [entry for entry in [*given_advice(request.state), *new] if entry["text"]]
        plans = [entry["text"] for entry in valid if entry["kind"] == "plan"]
        last = last_id(request.messages)
        hints = [
            entry["text"]
            for entry in valid
            if entry["kind"] not in ("plan", "asked") and entry["after"] == last
        ]
        if plans:
            system = [request.system_message] if request.system_message else []
            text = f"A plan by an experienced advisor:\n{plans[-1]}"
            whole: Any = with_system_text(system, text)
            request = request.override(system_message=whole[0])
        if hints:
            hint = HumanMessage(f"An experienced advisor says: {hints[-1]}")
            request = request.override(messages=[*request.messages, hint])
        return request


def _refuse_tools(request: _Request) -> None:
    """Refuse tools that a student which makes every call cannot call, or may not."""
    model: Any = request.model
    pair = isinstance(model, GuidedKnowledgeTransferChain) and strategy_of(model.mode)
    if pair and pair.asks_student and pair.asks_teacher:  # its teacher can make calls
        return
    student = _student_of(request)
    if request.tools and not student.knows_tools:
        raise ConfigurationError(
            "AdvisorMiddleware needs a student that calls tools, and the chat template of this "
            f"{type(student.chat_model).__name__} has no place for them; use another student, or "
            "asked_tokens=0 and no tools"
        )
    for name in marked_tools(request.tools):
        raise ConfigurationError(
            f"the tool {name!r} is marked gkt_tools='teacher', but in this agent the student makes "
            "every call; let a GuidedKnowledgeTransferChain be the agent's model, or leave the "
            "tool out"
        )


def _refused(request: _Request, error: BudgetExceeded) -> ExtendedModelResponse[Any]:
    """Handle a call that a budget after the advisor refuses."""
    if (behind := budget_behind(request)) is None:
        raise error
    return behind.refused(request, error)


@contextmanager
def _counted(request: _Request) -> Iterator[RunnableConfig]:
    """Yield the config of calls that the agent's budget counts, before or after.

    To a budget the agent's own model is a teacher, and so are its samples.
    """
    behind = budget_behind(request)
    with behind.counting(request) if behind else nullcontext(handlers_in(request.model)) as heard:
        role = {"gkt_role": "teacher", "gkt_call_id": str(uuid.uuid4()), "gkt_mode": "teacher"}
        own: RunnableConfig = {"callbacks": heard, "metadata": role} if heard else {}
        yield merge_configs(ensure_config(), own)


def _text(guidance: Guidance) -> str:
    text = without_reasoning(guidance.text).strip()
    return text if guidance.complete else GuidancePolicy(cut="sentence").trim(text).strip()


def _student_of(request: _Request) -> Student:
    """Return the student inside an agent's model."""
    model: Any = request.model
    if isinstance(model, GuidedKnowledgeTransferChain):
        model = model.student if strategy_of(model.mode).asks_student else model.teacher
    return student_of(model)
