"""The settings of one call of a student: its fields combined with the call's arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from langchain_gkt.errors import refuse_unknown
from langchain_gkt.structured_output.tools import required_tool
from langchain_gkt.students.tokenization.chat_template import check_template_kwargs

STUDENT_VARIABLE = "GKT_STUDENT"
"""Environment variable with the folder or hub id of a student that nothing else names."""

SAMPLING = ("max_tokens", "temperature", "top_p", "seed")
"""Fields of a student that a call may replace."""
TemplateKwargs = Annotated[dict[str, Any], AfterValidator(check_template_kwargs)]
"""Arguments of a chat template."""
_CALL_ONLY = ("tools", "tool_choice", "response_format", "hold_calls")
OnLongPrompt = Literal["raise", "truncate"]
"""What to do with a prompt that leaves the context no room."""


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How one answer is generated: fields of a `HuggingFaceStudent` and arguments of a call."""

    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
    on_long_prompt: OnLongPrompt
    chat_template_kwargs: Mapping[str, Any]
    tools: Sequence[dict[str, Any]] | None = None  # in OpenAI's form
    tool_choice: str | bool | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None  # the form that the answer must have
    hold_calls: bool = False  # whether optional calls are constrained to their schemas, too

    @classmethod
    def of_call(
        cls,
        student: Any,
        stop: Sequence[str] | None = None,
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> GenerationSettings:
        """Combine the fields of a `HuggingFaceStudent` with a call's arguments.

        None stands for the student's own. ``chat_template_kwargs`` are added to the student's.

        Raises:
            TypeError: If an argument is unknown.
            ValueError: If the chat template is given an argument that the student sets itself.
        """
        owner = f"a call of {type(student).__name__}"
        refuse_unknown(arguments, (*SAMPLING, *_CALL_ONLY, "chat_template_kwargs"), owner)
        fields = {name: getattr(student, name) for name in SAMPLING}
        given = {name: value for name, value in arguments.items() if value is not None}
        return cls(
            **{**fields, **given},
            stop=tuple(stop if stop is not None else student.stop or ()),
            on_long_prompt=student.on_long_prompt,
            chat_template_kwargs={
                **student.chat_template_kwargs,
                **check_template_kwargs(chat_template_kwargs or {}),
            },
        )

    @property
    def offered_tools(self) -> Sequence[dict[str, Any]] | None:
        """The tools that the model may call. None if it must call none."""
        return (self.tools or None) if self.tool_choice != "none" else None

    @property
    def is_held(self) -> bool:
        """Whether decoding is constrained to a form."""
        return bool(self.response_format or self.required_tool)

    @property
    def required_tool(self) -> str | None:
        """The tool that must be called, ``any`` for any of them, None if no call is required."""
        return required_tool(self.tool_choice) if self.offered_tools else None
