"""The request of the responses API."""

from __future__ import annotations

from typing import Any, ClassVar

from langchain_core.messages import BaseMessage
from pydantic import Field, field_validator

from langchain_gkt.serving.api.fields import FieldError, without_nulls
from langchain_gkt.serving.api.messages import as_langchain, check_message
from langchain_gkt.serving.api.schema import HARMLESS, CompletionRequest, OptionalFields

_NOT_STORED = "nothing is stored here; send the whole conversation in input"
# An item is checked as a message of the other API.
_NAMES = {
    ".tool_calls[0].id": ".call_id",
    ".tool_calls[0].function.name": ".name",
    ".tool_calls[0].function.arguments": ".arguments",
    ".tool_call_id": ".call_id",
}


class TextOptions(OptionalFields):
    """The form of an answer's text."""

    format: dict[str, Any] | None = None


class ResponsesRequest(CompletionRequest):
    """A responses request. Nothing is stored, so the input is the whole conversation."""

    no_effect = (
        *HARMLESS,
        "include",
        "max_tool_calls",
        "reasoning",
        "stream_options",
        "truncation",
    )
    refused = {
        "background": "answers are given at once; leave it out",
        "conversation": _NOT_STORED,
        "previous_response_id": _NOT_STORED,
        "prompt": "there are no stored prompts here; send instructions and input",
        "top_logprobs": "log probabilities are not reported; leave it out",
    }
    names = {
        "max_tokens": "max_output_tokens",
        "messages": "input",
        "response_format": "text.format",
    }
    in_function = ""

    input: str | list[Any]
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    text: TextOptions = TextOptions()

    # Fields that this API lacks and a call of the chain needs.
    stop: ClassVar[None] = None
    continue_final_message: ClassVar[bool] = False

    @field_validator("tools", "tool_choice", mode="before")
    @classmethod
    def _nest(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [cls._nest(tool) for tool in value]
        if not isinstance(value, dict):
            return value
        # This API puts the fields of a function side by side with its type.
        inner = {name: inner for name, inner in value.items() if name != "type"}
        return {"type": value.get("type", "function"), "function": inner}

    @property
    def conversation(self) -> list[BaseMessage]:
        """The input, as LangChain's messages. Raises a `FieldError` as `as_langchain`."""
        messages: list[dict[str, Any]] = []
        if self.instructions is not None:
            messages.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            return as_langchain([*messages, {"role": "user", "content": self.input}])
        for at, item in enumerate(self.input):
            if not isinstance(item, dict):
                raise FieldError(f"input[{at}]", " must be an object, such as a message")
            message = _message(without_nulls(item), f"input[{at}]")
            last = messages[-1] if messages else {}
            if message and "tool_calls" in message and last.get("role") == "assistant":
                # Here the calls of one turn, and the text before them, are separate items.
                last["tool_calls"] = [*last.get("tool_calls", ()), *message["tool_calls"]]
            elif message:
                messages.append(message)
        if messages and messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]:
            raise FieldError("input", " ends with an assistant's message; end it with a user's")
        return as_langchain(messages)

    @property
    def response_format(self) -> dict[str, Any] | None:
        """The form of the answer, in the other API's form."""
        form = self.text.format
        if not form or form.get("type") in ("text", "json_object"):
            return form
        if form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict):
            raise FieldError(
                "text.format", " must be {'type': 'json_schema', 'name': ..., 'schema': {...}}"
            )
        inner = {k: v for k, v in form.items() if k != "type" and v is not None}
        return {"type": "json_schema", "json_schema": inner}

    @property
    def limit(self) -> int | None:
        """Maximum tokens of the answer. None for the models' own limits."""
        return self.max_output_tokens


def _message(item: dict[str, Any], place: str) -> dict[str, Any] | None:
    """Return an item as a message of the other API. None if our models do not need it."""
    kind, content = item.get("type", "message"), "content"
    if kind == "message":
        message = {
            "role": item.get("role"),
            "content": _content(item.get("content"), f"{place}.content"),
        }
    elif kind == "function_call":
        function = {name: item[name] for name in ("name", "arguments") if name in item}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        message = {"role": "assistant", "tool_calls": [call]}
    elif kind == "function_call_output":
        content = "output"
        output = _content(item.get("output"), f"{place}.output")
        message = {"role": "tool", "tool_call_id": item.get("call_id"), "content": output}
    elif kind == "reasoning":  # another model's, or an earlier turn's
        return None
    else:
        raise FieldError(
            f"{place}.type",
            f" {kind!r} is not supported; send messages, function_call and "
            f"function_call_output ({_NOT_STORED})",
        )
    try:
        check_message(message, place)
    except FieldError as error:
        field = error.field.removeprefix(place)
        field = _NAMES.get(field, field.replace(".content", f".{content}"))
        raise FieldError(f"{place}{field}", error.problem) from None
    return message


def _content(content: Any, place: str) -> Any:
    if not isinstance(content, list):
        return content
    return [_part(part, f"{place}[{at}]") for at, part in enumerate(content)]


def _part(part: Any, place: str) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": part.get("text")}
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    if kind == "input_image" and "image_url" in part:
        detail = {"detail": part["detail"]} if "detail" in part else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    raise FieldError(place, " must be input_text, output_text or input_image with its image_url")
