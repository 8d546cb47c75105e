"""GuidedKnowledgeTransferChain: a big teacher begins each answer, a small student finishes it."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel

from langchain_gkt.chain.call import Call
from langchain_gkt.chain.callbacks import open_run
from langchain_gkt.chain.model import CALL_ARGUMENTS, GuidedModel
from langchain_gkt.chain.tool import answering_tool
from langchain_gkt.errors import refuse_unknown
from langchain_gkt.guidance import Guidance
from langchain_gkt.structured_output.schema import Method, binding, schema_in, structured
from langchain_gkt.teachers import settings as teachers


class GuidedKnowledgeTransferChain(GuidedModel):
    """A chat model whose answers are begun by a teacher and finished by a local student.

    The teacher writes at most ``guidance_tokens`` tokens; the student reads the conversation
    with that guidance as the beginning of its own answer and writes the rest (Yao, Li & Zhao,
    "GKT", Findings of ACL 2024, section 3). No fine-tuning, no shared vocabulary.

    ``message.response_metadata["gkt"]`` of an answer holds ``guidance`` (text),
    ``guidance_tokens`` (the teacher's completion tokens, what was cut away included),
    ``finished_by``, ``teacher_usage``, ``student_usage``, ``fallback``, ``mode`` and
    ``call_id``.

    Example:
        >>> chain = GuidedKnowledgeTransferChain(  # doctest: +SKIP
        ...     teacher=ChatOpenAI(model="gpt-4o-mini"),
        ...     student="path/or/repo-id",
        ...     guidance_tokens=40,
        ... )
        >>> chain.invoke("Q: ...").text  # doctest: +SKIP

    Raises:
        TypeError: If an argument is unknown, or teacher or student are of no known kind.
        ValueError: If a value makes no sense.
    """

    # --- the doors ---

    def _for_one_call(self, run: BaseRunManager | None) -> GuidedKnowledgeTransferChain:
        """Return a copy that remembers the run it serves; it shares both models."""
        copy = self.model_copy()
        copy._run = run
        return copy

    def _configured(self, config: RunnableConfig | None) -> GuidedKnowledgeTransferChain:
        """Return the chain with the teacher that a config asks for."""
        if not teachers.is_configurable(self.teacher):
            return self
        return self.model_copy(update={"teacher": teachers.resolved(self.teacher, config)})

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Answer a prompt.

        Args:
            input: A prompt, messages or a prompt value.
            config: Runnable config; ``configurable`` reaches a configurable teacher.
            stop: Strings that end the answer.
            **kwargs: Call-time ``guidance_tokens``, ``guidance``, ``mode``, ``max_tokens``,
                ``temperature``, or ``model``: the teacher's model for this call alone.

        Returns:
            The answer.

        Raises:
            TeacherError: If the teacher fails and ``on_teacher_error`` is ``raise``.
            StudentError: If the student cannot continue.
            ValueError: If the messages are empty, too long, or hold more than text.
        """
        one = self._configured(config)
        return BaseChatModel.invoke(one, input, config, stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Answer a prompt asynchronously; see `invoke`.

        Args:
            input: A prompt, messages or a prompt value.
            config: Runnable config.
            stop: Strings that end the answer.
            **kwargs: As for `invoke`.

        Returns:
            The answer.
        """
        one = self._configured(config)
        return await BaseChatModel.ainvoke(one, input, config, stop=stop, **kwargs)

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Stream an answer: the guidance word by word, then the student's tokens.

        Args:
            input: A prompt, messages or a prompt value.
            config: Runnable config.
            stop: Strings that end the answer.
            **kwargs: As for `invoke`.

        Yields:
            Message chunks; their joined text is the answer ``invoke`` gives.
        """
        config, run = open_run(config, asynchronous=False)
        one = self._configured(config)._for_one_call(run)
        chunks: Any = BaseChatModel.stream(one, input, config, stop=stop, **kwargs)
        try:
            yield from chunks
        finally:
            if one._producer is not None:
                one._producer.close()  # ends the children's runs now, not when collected

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Stream an answer asynchronously; see `stream`.

        Args:
            input: A prompt, messages or a prompt value.
            config: Runnable config.
            stop: Strings that end the answer.
            **kwargs: As for `invoke`.

        Yields:
            Message chunks; their joined text is the answer ``ainvoke`` gives.
        """
        config, run = open_run(config, asynchronous=True)
        one = self._configured(config)._for_one_call(run)
        chunks: Any = BaseChatModel.astream(one, input, config, stop=stop, **kwargs)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            if one._producer is not None:
                await one._producer.aclose()  # the children's runs end before their parent's
            await chunks.aclose()

    # What `stream_events(version="v3")` is made of.
    def _chat_model_stream_v3(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        config, run = open_run(config, asynchronous=False)
        one = self._configured(config)._for_one_call(run)
        return BaseChatModel._chat_model_stream_v3(one, input, config, **kwargs)

    async def _achat_model_stream_v3(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        config, run = open_run(config, asynchronous=True)
        one = self._configured(config)._for_one_call(run)
        return await BaseChatModel._achat_model_stream_v3(one, input, config, **kwargs)

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        one = self._for_one_call(run_manager)
        return BaseChatModel._generate_with_cache(one, messages, stop, run_manager, **kwargs)

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        one = self._for_one_call(run_manager)
        return await BaseChatModel._agenerate_with_cache(one, messages, stop, run_manager, **kwargs)

    # --- tools and schemas ---

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the teacher call tools; answers in text are guided as ever.

        A tool call is the teacher's own, whole and unchanged: one that runs into the limit
        of the guidance is asked for once more without it, and where a tool must be called
        there is no limit from the start. A student whose chat template knows tools gets
        them, and calls them where it finishes an answer.

        Args:
            tools: Tools in any form LangChain knows.
            tool_choice: As the teacher's ``bind_tools`` takes it.
            **kwargs: Further arguments of the teacher's ``bind_tools``, or of each call: give
                ``guidance_tokens`` here so that it holds a whole tool call, and the words that
                your teacher puts in front of one.

        Returns:
            The chain with the tools bound.

        Raises:
            NotImplementedError: If the teacher takes no tools.
        """
        if tools and self.mode != "student" and not teachers.is_configurable(self.teacher):
            teachers.refuse_toolless(self.teacher)
        formatted = [convert_to_openai_tool(tool) for tool in tools]
        # What LangChain notes for traces is the chain's, not the teacher's.
        notes = {key: kwargs.pop(key) for key in ("ls_structured_output_format",) if key in kwargs}
        own = {key: kwargs.pop(key) for key in CALL_ARGUMENTS if key in kwargs}
        if tool_choice is not None:
            own["tool_choice"] = tool_choice
        if notes:
            own["quiet"] = True
        if kwargs:
            own["tool_arguments"] = kwargs
        return self.bind(tools=formatted, **own, **notes)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Method | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answer with an object of a schema.

        Args:
            schema: A pydantic class, a TypedDict class or a JSON schema.
            include_raw: Whether to return ``raw``, ``parsed`` and ``parsing_error``.
            method: ``json_schema`` (or ``json_mode``, which is the same here): the teacher
                begins the JSON object, the student finishes it, held to the schema token by
                token. ``function_calling``: the teacher alone writes it, as a tool call. None
                takes the first, unless llguidance (extra ``structured``) is missing, the student
                is not a `HuggingFaceStudent`, or the schema is one it cannot be held to.
            strict: Taken for compatibility; the student always keeps to the schema.
            **kwargs: Further arguments of each call.

        Returns:
            A runnable giving objects of the schema.

        Raises:
            ImportError: If ``method`` needs llguidance and it is missing.
            ValueError: If the schema cannot be enforced.
            TypeError: If ``method`` needs a `HuggingFaceStudent` and there is none.
        """
        from langchain_gkt.students.huggingface import HuggingFaceStudent

        local = isinstance(self.student, HuggingFaceStudent)
        if method not in (None, "json_schema", "json_mode", "function_calling"):
            raise ValueError(
                f"method must be 'json_schema', 'json_mode' or 'function_calling', not {method!r}"
            )
        if method is None:
            able = local and importlib.util.find_spec("llguidance")
            method = "json_schema" if able and _can_be_held(schema) else "function_calling"
        if method == "function_calling":
            # The arguments are fields too; langchain-core's method takes none for its calls.
            refuse_unknown(kwargs, type(self).model_fields, "with_structured_output")
            one = self.model_copy(update=kwargs) if kwargs else self
            return BaseChatModel.with_structured_output(one, schema, include_raw=include_raw)
        if not local:
            raise TypeError(
                f"method={method!r} needs a HuggingFaceStudent, which can be held to a schema; "
                f"with a {type(self.student).__name__} use method='function_calling'"
            )
        from langchain_gkt.structured_output.grammar import json_grammar

        bound = binding(schema, method)
        json_grammar(schema_in(bound["response_format"]))  # refuses now what fails later
        return structured(self.bind(**bound, **kwargs), schema, include_raw=include_raw)

    def as_tool(
        self,
        args_schema: type[BaseModel] | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        arg_types: dict[str, type] | None = None,
    ) -> BaseTool:
        """Make a tool that answers questions, for an agent; it returns text.

        Args:
            args_schema: Arguments of the tool; None for one, ``question``. The value of a
                single argument is the prompt; several are written as ``name: value`` lines.
            name: The tool's name; None for ``answer``.
            description: What the calling model is told of it.
            arg_types: Names and types of the arguments, in place of ``args_schema``.

        Returns:
            The tool. Its runs have the chain's run as their child.
        """
        return answering_tool(
            self, args_schema, name=name, description=description, arg_types=arg_types
        )

    # --- guidance alone ---

    def _guide_call(
        self, messages: LanguageModelInput, config: RunnableConfig | None
    ) -> tuple[Call, list[BaseMessage], RunnableConfig]:
        call = self._configured(config)._settings(None, None, {})
        if not call.asks_teacher:
            raise ValueError(
                "guide() asks the teacher; use mode='guided' and guidance_tokens of 1 or more"
            )
        merged = merge_configs(config, call.child("teacher"))
        return call, self._convert_input(messages).to_messages(), merged

    def guide(self, messages: LanguageModelInput, config: RunnableConfig | None = None) -> Guidance:
        """Ask the teacher for guidance and nothing else.

        Args:
            messages: A prompt, messages or a prompt value.
            config: Runnable config; the teacher's run is a run of its own here.

        Returns:
            The guidance the student would continue.

        Raises:
            ValueError: If the chain asks no teacher (mode ``student``, or 0 tokens).
            TeacherError: If the teacher fails or writes nothing.
        """
        call, prompt, config = self._guide_call(messages, config)
        return call.guide(prompt, config)

    async def aguide(
        self, messages: LanguageModelInput, config: RunnableConfig | None = None
    ) -> Guidance:
        """Ask the teacher for guidance asynchronously; see `guide`.

        Args:
            messages: A prompt, messages or a prompt value.
            config: Runnable config.

        Returns:
            The guidance the student would continue.
        """
        call, prompt, config = self._guide_call(messages, config)
        return await call.aguide(prompt, config)


def _can_be_held(schema: dict[str, Any] | type) -> bool:
    from langchain_gkt.structured_output.grammar import json_grammar

    try:
        json_grammar(schema_in(binding(schema, "json_schema")["response_format"]))
    except ValueError:
        return False
    return True
