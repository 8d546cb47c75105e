"""A tokenizer's chat template: what it takes, what it drops, and where an answer begins."""

from __future__ import annotations

import itertools
import json
import re
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages.utils import convert_to_openai_messages, merge_message_runs

from langchain_gkt.errors import ConfigurationError
from langchain_gkt.prompts.conversation import leading_system
from langchain_gkt.texts.harmony import is_harmony, to_final
from langchain_gkt.texts.reasoning import closing, open_tags, tags_in

REASONING_OFF = {"enable_thinking": False, "thinking": False}
"""Arguments that turn reasoning off, in Qwen3 and SmolLM3, and in Granite and DeepSeek."""
_OWN = (
    "conversation",
    "messages",
    "tools",
    "chat_template",
    "add_generation_prompt",
    "continue_final_message",
    "tokenize",
)
_Arrange = Callable[[Sequence[BaseMessage]], list[BaseMessage]]
_KEPT_SHAPES = 256
_MOST_KEPT = 4096
"""Maximum number of template output characters to keep. They may include documents."""


def check_template_kwargs(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``chat_template_kwargs``. Refuse arguments that this package sets itself."""
    for name in value:
        if name in _OWN or name.startswith("return_"):
            raise ValueError(
                f"chat_template_kwargs holds {name!r}, which the student sets itself; name only "
                "what the template knows besides, such as enable_thinking"
            )
    return value


def turns_reasoning_off(arguments: Mapping[str, Any]) -> bool:
    """Whether arguments turn reasoning off, even if the template knows no such argument."""
    return any(arguments.get(name) is False for name in REASONING_OFF)


class _Plan(NamedTuple):
    """How a template takes conversations of one shape."""

    arrange: _Arrange  # the first that it renders in whole
    merges: bool  # whether successive messages of one role are joined, too
    header: str


class ChatTemplate:
    """The chat template of one tokenizer.

    Templates refuse or drop messages that they have no place for. To see what a template does, this
    class renders the conversation with marker texts, once for each order of roles.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Read the template of a Hugging Face tokenizer."""
        self._tokenizer = tokenizer
        own = tokenizer.chat_template or ""
        self.text = "\n".join(own.values()) if isinstance(own, dict) else str(own)
        """The template's source. Empty without one."""
        self.is_harmony = is_harmony(self.text)
        """Whether answers are messages on channels, as those of gpt-oss are."""
        self._plans: dict[bytes, _Plan] = {}
        self._warned: set[str] = set()

    @cached_property
    def knows_tools(self) -> bool:
        """Whether it has a place for tools."""
        if not self.text:
            return False
        return bool(re.search(r"\btools\b", self._tokenizer.get_chat_template(tools=[{}])))

    @cached_property
    def reasons(self) -> bool:
        """Whether the model is known to reason before it answers."""
        return self.is_harmony or tags_in(self.text) is not None

    @cached_property
    def _has_switch(self) -> bool:
        return any(re.search(rf"\b{name}\b", self.text) for name in REASONING_OFF)

    def render(self, turns: Any, tools: Any, arguments: Mapping[str, Any]) -> str:
        """Write the dicts of a conversation as a prompt, which ends where the answer begins.

        Raises:
            ConfigurationError: If the template refuses it.
        """
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tools=tools, add_generation_prompt=True, tokenize=False, **arguments
                )
            )
        except Exception as error:  # a template is a program of its own
            raise ConfigurationError(
                "the student's chat template refuses the conversation: "
                f"{type(error).__name__}: {error}",
                hint="change the order and the roles of messages as it says (such as user "
                "and assistant in turns, no system message)",
            ) from error

    def arrange(
        self,
        conversation: Sequence[BaseMessage],
        tools: Sequence[dict[str, Any]] | None,
        arguments: Mapping[str, Any],
    ) -> tuple[list[BaseMessage], str]:
        """Rearrange a conversation so that the template renders all of it.

        System texts that have no place come into the next user message. Messages of one role are
        joined if roles have to alternate.

        Returns:
            The conversation, and the template's output after the last message.

        Raises:
            ConfigurationError: If the template drops one of its messages.
        """
        # A digest, because conversations may be long, and arguments hold a user's documents.
        shape = f"{list(map(_kind, conversation))} {bool(tools)} {sorted(arguments.items())}"
        key = blake2b(shape.encode()).digest()
        if (plan := self._plans.get(key)) is None:
            plan = self._plan(conversation, tools, arguments)
            if len(self._plans) >= _KEPT_SHAPES:
                self._plans.clear()
            if len(plan.header) <= _MOST_KEPT:
                self._plans[key] = plan
        arranged = plan.arrange(conversation)
        if taken := _folded(plan.arrange, conversation):
            self._warn_once(f"{taken}; what the others say is put into the next user message")
        if plan.merges:
            arranged = _merged(arranged)
            self._warn_once("user and assistant in turns; messages of one role are joined")
        return arranged, plan.header

    def _warn_once(self, taken: str) -> None:
        if taken not in self._warned:
            self._warned.add(taken)
            text = f"the student's chat template takes {taken}"
            warnings.warn(text, UserWarning, stacklevel=2)

    def _plan(
        self,
        conversation: Sequence[BaseMessage],
        tools: Sequence[dict[str, Any]] | None,
        arguments: Mapping[str, Any],
    ) -> _Plan:
        dropped: BaseMessage | None = None
        # A template that takes no system message gives a reason other than the real fault.
        has_system = any(isinstance(m, SystemMessage) for m in conversation)
        arrangements = _ARRANGEMENTS if has_system else _ARRANGEMENTS[:1]
        for merges, arrange in itertools.product((False, True), arrangements):
            arranged = arrange(conversation)
            if merges:
                count, arranged = len(arranged), _merged(arranged)
                if len(arranged) == count:
                    continue
            nonce = secrets.token_hex(8)
            texts = [f"t{nonce}n{at}." for at in range(len(arranged))]
            marked = [with_text(m, text) for m, text in zip(arranged, texts, strict=True)]
            try:
                written = self.render(as_dicts(marked), tools, arguments)
            except ConfigurationError:
                continue
            shown = zip(arranged, texts, strict=True)
            missing = [m for m, text in shown if text not in written and not _has_calls(m)]
            if not missing:
                end = max(written.rfind(text) + len(text) for text in texts if text in written)
                return _Plan(arrange, merges, written[end:])
            if not any(isinstance(m, SystemMessage) for m in missing):
                dropped = missing[0]
        if dropped is not None:
            at = next((i for i, m in enumerate(conversation) if m is dropped), None)
            name = "a message" if at is None else f"messages[{at}]"
            raise ConfigurationError(
                f"the student's chat template drops {name} ({dropped.type}) of this conversation",
                hint="leave it out, or put its text into a message of the user; the template may "
                "take one question only",
            )
        return _Plan(arrangements[-1], False, "")

    def header(self, turns: list[dict[str, Any]], tools: Any, arguments: Mapping[str, Any]) -> str:
        """Return the template's output after the last message. The arguments are `render`'s."""
        mark = f"t{secrets.token_hex(8)}."
        last = {**turns[-1], "content": f"{turns[-1].get('content') or ''}{mark}"}
        _, separator, header = self.render([*turns[:-1], last], tools, arguments).rpartition(mark)
        return header if separator else ""

    def start(self, header: str, *, direct: bool) -> tuple[int, str]:
        """Return how many characters of a header to remove, and the text to add.

        A direct answer then begins without reasoning.
        """
        if not direct:
            return 0, ""
        if self.is_harmony:
            return to_final(header)
        if tags := self.opened(header):
            return 0, closing(header, tags)
        tags = tags_in(self.text)
        if tags is None or tags[1] in header or self._has_switch or tags[0] not in self._marks:
            return 0, ""
        # Such a model opens the block itself, as the first thing it writes.
        block = f"{tags[0]}\n" if tags[1].startswith("</") else tags[0]
        return 0, block + closing(block, tags)

    def opened(self, header: str) -> tuple[str, str] | None:
        """Return the tags of the reasoning block that a header ends in, or None."""
        return open_tags(header, [mark for mark in self._marks if mark.strip()], self.text)

    @cached_property
    def _marks(self) -> set[str]:
        return set(self._tokenizer.get_added_vocab())


def with_text(message: BaseMessage, text: str) -> BaseMessage:
    """Return a message with another text in place of its content."""
    return message.model_copy(update={"content": text})


def as_dicts(conversation: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Make the dicts that chat templates read, with texts, and tool arguments as objects."""
    plain = [with_text(message, str(message.text)) for message in conversation]
    turns: Any = convert_to_openai_messages(plain)
    for turn in turns:
        for call in turn.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return list(turns)


def _kind(message: BaseMessage) -> tuple[Any, ...]:
    role = getattr(message, "role", None) or message.additional_kwargs.get("__openai_role__")
    return message.type, role, _has_calls(message)


def _has_calls(message: BaseMessage) -> bool:
    return isinstance(message, AIMessage) and bool(message.tool_calls)


def _as_system(conversation: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Give messages of the role ``developer`` the role that every template knows."""
    return [SystemMessage(m.content) if isinstance(m, SystemMessage) else m for m in conversation]


def _one_system(conversation: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Join the system messages at the beginning. Put later ones into the next user message."""
    count = leading_system(conversation)
    first = [str(m.text) for m in conversation[:count]]
    rest = _no_system(conversation[count:])
    return [*([SystemMessage("\n\n".join(first))] if first else []), *rest]


def _no_system(conversation: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Put system texts into the next user message, or after the last one."""
    folded: list[BaseMessage] = []
    waiting: list[str] = []
    for message in conversation:
        if isinstance(message, SystemMessage):
            waiting.append(str(message.text))
        elif waiting and isinstance(message, HumanMessage):
            folded.append(with_text(message, "\n\n".join([*waiting, str(message.text)])))
            waiting = []
        else:
            folded.append(message)
    if waiting and folded and isinstance(folded[-1], HumanMessage):
        asked = folded.pop()
        folded.append(with_text(asked, "\n\n".join([str(asked.text), *waiting])))
    elif waiting:
        folded.append(HumanMessage("\n\n".join(waiting)))
    return folded


_ARRANGEMENTS: tuple[_Arrange, ...] = (list, _as_system, _one_system, _no_system)


def _merged(conversation: Sequence[BaseMessage]) -> list[BaseMessage]:
    texts = [with_text(message, str(message.text)) for message in conversation]
    return merge_message_runs(texts, chunk_separator="\n\n")


def _folded(arrange: _Arrange, conversation: Sequence[BaseMessage]) -> str:
    """Return what a template takes if the others come into a message of the user. Else nothing."""
    if arrange is _no_system:
        return "no system message"
    system = sum(isinstance(m, SystemMessage) for m in conversation)
    folds = arrange is _one_system and system > leading_system(conversation)
    return "one system message" if folds else ""
