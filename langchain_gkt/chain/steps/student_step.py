"""The student's step of a call: it prefills the prompt, and finishes the answer."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_gkt._langchain_compat import blocks_threads, copy_model
from langchain_gkt.chain.drivers import NEXT_CHUNK, BlockingWork, ModelCall
from langchain_gkt.chain.messages import RepeatedWhitespace, text_chunk, tool_call_chunk_of
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.chain.steps.received import received, without_reserved_calls
from langchain_gkt.errors import ConfigurationError
from langchain_gkt.gates import AgreementGate
from langchain_gkt.guidance import Guidance
from langchain_gkt.structured_output.tools import required_tool
from langchain_gkt.students.protocol import FirstToken, FirstTokenDetail, Student, student_of
from langchain_gkt.teachers.tools import tool_names
from langchain_gkt.texts.begun_answer import begun_text
from langchain_gkt.texts.reasoning import ReasoningFilter, answer_in

SAMPLE_TEMPERATURE = 0.7
"""Temperature of several answers to one question, if no other is above 0. At 0 all are equal."""


class CalledStudent(Student):
    """A student for gates within one call. Its samples are runs of that call."""

    def __init__(self, student: Student, config: RunnableConfig, arguments: dict[str, Any]) -> None:
        """Wrap it. The arguments are those of its calls, which a gate's own override."""
        self._student, self._config, self._arguments = student, config, arguments

    @property
    def chat_model(self) -> BaseChatModel:
        """The chat model itself."""
        return self._student.chat_model

    @property
    def first_token_detail(self) -> FirstTokenDetail:
        """What `first_tokens` reports."""
        return self._student.first_token_detail

    def first_tokens(self, messages: list[BaseMessage], *, tokens: int = 1) -> list[FirstToken]:
        """Ask the student."""
        return self._student.first_tokens(messages, tokens=tokens)

    async def afirst_tokens(
        self, messages: list[BaseMessage], *, tokens: int = 1
    ) -> list[FirstToken]:
        """Ask the student, on the event loop."""
        return await self._student.afirst_tokens(messages, tokens=tokens)

    def sample(
        self, messages: list[BaseMessage], samples: int, **arguments: Any
    ) -> list[AIMessage]:
        """Have the student answer several times, as runs of the call."""
        replies = self._student.sample(messages, samples, **self._of_call(arguments))
        return [shown_reply(self._student, reply) for reply in replies]

    async def asample(
        self, messages: list[BaseMessage], samples: int, **arguments: Any
    ) -> list[AIMessage]:
        """Do what `sample` does, on the event loop."""
        replies = await self._student.asample(messages, samples, **self._of_call(arguments))
        return [shown_reply(self._student, reply) for reply in replies]

    def _of_call(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"config": self._config, **self._arguments, **arguments}


def shown_reply(student: Student, reply: AIMessage, begun: str = "") -> AIMessage:
    """Leave out the reasoning of a student's reply, which continues the text ``begun``.

    If there is some, the result is a copy with plain text.
    """
    if student.filters_reasoning:
        return reply
    text = str(reply.text)
    visible = answer_in(text, has_begun=bool(begun))
    return reply if visible == text else reply.model_copy(update={"content": visible})


class NoRoom(ConfigurationError):
    """The requested answer does not fit into ``max_tokens``, whoever writes it."""


@dataclass(frozen=True)
class StudentStep:
    """Has the student finish an answer."""

    settings: CallSettings

    @property
    def tools(self) -> Sequence[dict[str, Any]] | None:
        """The tools that the student may call by itself. None if there are none."""
        settings = self.settings
        if settings.is_text_turn or not settings.tools or not self.student.knows_tools:
            return None
        reserved = settings.policy.teacher_tools
        return [tool for tool in settings.tools if not {*tool_names([tool])} & {*reserved}] or None

    @property
    def tools_behind_teacher(self) -> Sequence[dict[str, Any]] | None:
        """The tools that it may call after the teacher's words. None if calls are voted on."""
        return self.tools if self.settings.policy.tools == "teacher" else None

    @property
    def lacks_demanded_tool(self) -> bool:
        """Whether the caller demands a call that the student cannot make by itself."""
        names = tool_names(self.tools or ())
        demanded = required_tool(self.settings.tool_choice)
        return self.settings.forces_tool and not (
            demanded in names or (demanded == "any" and names)
        )

    @property
    def student(self) -> Student:
        """The student's abilities besides chatting."""
        return student_of(self.settings.student)

    @property
    def for_gates(self) -> Student:
        """The student whose samples are runs of the call."""
        settings = self.settings
        return CalledStudent(self.student, settings.child("student"), settings.student_arguments)

    def prepare(self, messages: list[BaseMessage], *, asks_teacher: bool) -> BlockingWork:
        """Check the prompt before a teacher is paid, and let the student prefill it.

        The request's result is the minimum number of tokens that the student needs, and a context
        that frees the prompt's KV cache.
        """
        return BlockingWork(
            partial(self._prepare, messages, asks_teacher),
            undo=lambda result: result[1].__exit__(None, None, None),
        )

    def _prepare(
        self, messages: list[BaseMessage], asks_teacher: bool
    ) -> tuple[int, AbstractContextManager[Any]]:
        settings, student = self.settings, self.student
        arguments: dict[str, Any] = {
            "tools": self.tools,
            "response_format": settings.response_format,
        }
        guidance_room = settings.limit or 0 if asks_teacher else 0
        forced: dict[str, Any] = {}
        is_teachers = required_tool(settings.tool_choice) in settings.policy.teacher_tools
        may_have_to = (settings.fall_back and not is_teachers) or not asks_teacher
        if self.tools and settings.forces_tool and may_have_to:
            forced["tool_choice"] = settings.tool_choice
        reserved = student.check(messages, reserve=guidance_room, **arguments, **forced)
        if forced:  # the call takes the student's tokens only if no teacher makes it
            reserved = 0
        limit, whose = settings.max_tokens, ""
        refused: type[ConfigurationError] = NoRoom
        if limit is None:  # without one the student's own counts, which does not limit a teacher
            limit, refused = getattr(settings.student, "max_tokens", None), ConfigurationError
            whose = "the student's own "
        if isinstance(limit, int) and reserved > limit:
            raise refused(
                f"{whose}max_tokens={limit} cannot hold an answer of this schema, whose "
                f"shortest takes {reserved} tokens; raise max_tokens"
            )
        if not asks_teacher:
            return reserved, nullcontext()
        arguments["tools"] = self.tools_behind_teacher
        return reserved, student.prefill(messages, **arguments)

    def model_call(
        self,
        messages: list[BaseMessage],
        guidance: Guidance | None,
        teacher_tokens: int,
        *,
        streaming: bool,
    ) -> ModelCall | None:
        """Make the request with which the student finishes an answer.

        The teacher has used some tokens of ``max_tokens``. None if nothing is left to write.
        """
        settings = self.settings
        if guidance and guidance.complete:
            return None
        arguments = {**settings.stop_arguments, **settings.temperature_argument}
        if settings.max_tokens is not None:
            left = max(0, settings.max_tokens - teacher_tokens)
            if not left and not settings.response_format:  # an object must be finished
                return None
            arguments["max_tokens"] = left
        if settings.response_format:
            arguments["response_format"] = settings.response_format
        if guidance and guidance.text:
            messages = self.behind(messages, guidance.text)
        return ModelCall(
            model=self._model(guidance),
            messages=messages,
            config=settings.child("student"),
            arguments=arguments,
            streams=streaming and "shown-student-reasoning" not in settings.warned,
            blocks=blocks_threads(settings.student),
        )

    def behind(self, messages: list[BaseMessage], begun: str) -> list[BaseMessage]:
        """Return a conversation that ends in a begun answer. It may have begun one already."""
        if (earlier := begun_text(messages)) is not None:
            begun, messages = f"{earlier}{begun}", messages[:-1]
        if not self.student.continues_whitespace:
            begun = begun.rstrip() or begun
        return [*messages, AIMessage(begun)]

    def sampled(self, call: ModelCall, samples: int) -> BlockingWork:
        """Have the student answer a request of `model_call` several times."""
        temperature = self.settings.temperature or SAMPLE_TEMPERATURE
        arguments = {**call.arguments, "config": call.config, "temperature": temperature}
        return self._samples(call.messages, samples, arguments)

    def sampled_turns(self, messages: list[BaseMessage], gate: AgreementGate) -> BlockingWork:
        """Have the student write a turn, in which it may call tools, as often as a gate says."""
        settings = self.settings
        arguments = {
            **settings.student_arguments,
            **self.student.turn_arguments(settings.tools, settings.tool_choice),
            "config": settings.child("student"),
            "temperature": gate.temperature,
        }
        return self._samples(messages, gate.samples, arguments)

    def _samples(
        self, messages: list[BaseMessage], samples: int, arguments: dict[str, Any]
    ) -> BlockingWork:
        student = self.student
        return BlockingWork(
            partial(student.sample, messages, samples, **arguments),
            partial(student.asample, messages, samples, **arguments),
        )

    def _model(self, guidance: Guidance | None) -> Runnable[Any, Any]:
        settings = self.settings
        model: Any = settings.student
        if not self.student.names_weights and model.cache is None:
            # Others may look alike to LangChain's cache. The chain's own entry is enough.
            model = copy_model(model, {"cache": False})
        if tools := self.tools_behind_teacher if guidance else self.tools:
            # The choice was the teacher's. Begun text is not a tool call that could be forced.
            choice = None if guidance else settings.tool_choice
            model = model.bind_tools(tools, tool_choice=choice)
        elif (
            settings.tools
            and guidance is None
            and not settings.asks_teacher
            and (settings.forces_tool or not self.student.knows_tools)
        ):
            raise NotImplementedError(
                "without a teacher (mode='student', guidance_tokens=0) tools need a student "
                "whose chat template knows tools, and that are none of GuidancePolicy.teacher_tools"
            )
        return model  # type: ignore[no-any-return]

    def write(
        self,
        call: ModelCall,
        begun: str,
        shown: list[str],
        block: Mapping[str, Any] | None = None,
    ) -> Generator[Any, Any, AIMessage]:
        """Have the student write, show its text, and return its whole reply.

        ``begun`` is the guidance and ``block`` its content block, both of which have been shown.
        ``shown`` collects the student's own text.
        """
        repeated = self._repeated(begun)
        reply = yield call
        if call.streams:
            answer = None
            if not self.student.filters_reasoning:
                answer = ReasoningFilter(has_begun=bool(begun))
            chunk, reply = reply, None
            while chunk is not None:
                reply = chunk if reply is None else reply + chunk
                text = str(chunk.text)
                if new := repeated.drop(answer.feed(text) if answer else text):
                    shown.append(new)
                    yield text_chunk(new, block)
                chunk = yield NEXT_CHUNK
            text = answer.finish() if answer else ""
            reply = self._without_shown(reply, begun, "".join([*shown, text]))
        else:
            reply = shown_reply(self.student, reply, begun)
            text = str(reply.text)
        if new := repeated.drop(text, last=True):
            yield text_chunk(new, block)
        reply = without_reserved_calls(self.settings, reply)
        if reply.tool_calls or reply.invalid_tool_calls:
            yield tool_call_chunk_of(reply, "")
        return received(self.settings, reply, "student")

    def _without_shown(self, reply: AIMessage, begun: str, shown: str) -> AIMessage:
        """Leave out a reply's reasoning. Warn once if its stream has shown it."""
        answer = shown_reply(self.student, reply, begun)
        if len(str(answer.text).strip()) < len(shown.strip()):
            self.settings.warn_of_reasoning("student")
        return answer

    def show(
        self, reply: AIMessage, begun: str, block: Mapping[str, Any] | None = None
    ) -> Generator[Any, Any, None]:
        """Show a reply that has been written already. See `write`."""
        if new := self._repeated(begun).drop(str(reply.text), last=True):
            yield text_chunk(new, block)

    def _repeated(self, begun: str) -> RepeatedWhitespace:
        whitespace = "" if self.student.continues_whitespace else begun[len(begun.rstrip()) :]
        return RepeatedWhitespace(whitespace)
