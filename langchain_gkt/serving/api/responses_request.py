"""The request of the responses API, as one of the chat completions API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from langchain_gkt.errors import refuse_unknown
from langchain_gkt.serving.api.messages import check_message, without_nulls
from langchain_gkt.serving.api.schema import HARMLESS, ChatCompletionRequest, refuse_deep

_SAME = ("model", "temperature", "top_p", "parallel_tool_calls", "stream", "seed", "gkt")
_READ = ("input", "instructions", "max_output_tokens", "text", "tools", "tool_choice")
_NO_EFFECT = ("include", "max_tool_calls", "reasoning", "stream_options", "truncation", *HARMLESS)
_NOT_STORED = "nothing is stored here; send the whole conversation in input"
_REFUSED = {
    "background": "answers are given at once; leave it out",
    "conversation": _NOT_STORED,
    "previous_response_id": _NOT_STORED,
    "prompt": "there are no stored prompts here; send instructions and input",
    "top_logprobs": "log probabilities are not reported; leave it out",
}


class ResponsesRequest(ChatCompletionRequest):
    """A responses request: its fields are renamed, and checked as those of the other API."""

    @model_validator(mode="before")
    @classmethod
    def _translate(cls, values: Any) -> Any:
        return _as_chat(values) if isinstance(values, dict) else values


def _as_chat(values: Mapping[str, Any]) -> dict[str, Any]:
    refuse_deep(values)
    given = {name: value for name, value in values.items() if value is not None}
    for name, fix in _REFUSED.items():
        if given.pop(name, None):
            raise ValueError(f"{name}: {fix}")
    try:
        refuse_unknown(given, (*_SAME, *_READ, *_NO_EFFECT), "the request")
    except TypeError as error:
        raise ValueError(str(error)) from error
    chat = {name: given[name] for name in _SAME if name in given}
    chat["messages"] = _messages(given.get("instructions"), given.get("input"))
    if "max_output_tokens" in given:
        chat["max_completion_tokens"] = given["max_output_tokens"]
    if "tools" in given:
        chat["tools"] = _tools(given["tools"])
    if "tool_choice" in given:
        choice = given["tool_choice"]
        chat["tool_choice"] = _function(choice) if isinstance(choice, dict) else choice
    text = given.get("text", {})
    if not isinstance(text, dict):
        raise ValueError("text must be an object such as {'format': {'type': 'text'}}")
    if isinstance(form := text.get("format"), dict):
        inner = {name: value for name, value in form.items() if name != "type"}
        is_schema = form.get("type") == "json_schema"
        chat["response_format"] = (
            {"type": "json_schema", "json_schema": inner} if is_schema else form
        )
    return chat


def _function(value: dict[str, Any]) -> dict[str, Any]:
    """Put the fields of a function, which this API has side by side with its type, inside."""
    inner = {name: inner for name, inner in value.items() if name != "type"}
    return {"type": value.get("type", "function"), "function": inner}


def _tools(tools: Any) -> list[Any]:
    if not isinstance(tools, list):
        raise ValueError("tools must be a list")
    return [_function(tool) if isinstance(tool, dict) else tool for tool in tools]


def _messages(instructions: Any, given: Any) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if instructions is not None:
        messages.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list):
        raise ValueError("input must be a text or a list of items")
    for at, item in enumerate(given):
        place = f"input[{at}]"
        if not isinstance(item, dict):
            raise ValueError(f"{place} must be an object, such as a message")
        message = _message(without_nulls(item), place)
        if message is None:
            continue
        check_message(message, place)
        last = messages[-1] if messages else {}
        if "tool_calls" in message and last.get("role") == "assistant":
            # The calls of one turn, and the text before them, are items of their own here.
            last["tool_calls"] = [*last.get("tool_calls", ()), *message["tool_calls"]]
        else:
            messages.append(message)
    return messages


def _message(item: dict[str, Any], place: str) -> dict[str, Any] | None:
    kind = item.get("type", "message")
    if kind == "message":
        return {"role": item.get("role"), "content": _content(item.get("content"), place)}
    if kind == "function_call":
        function = {name: item[name] for name in ("name", "arguments") if name in item}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return {"role": "assistant", "tool_calls": [call]}
    if kind == "function_call_output":
        output = _content(item.get("output"), place)
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": output}
    if kind == "reasoning":  # another model's, or an earlier turn's
        return None
    raise ValueError(
        f"{place}.type {kind!r} is not supported; send messages, function_call and "
        f"function_call_output ({_NOT_STORED})"
    )


def _content(content: Any, place: str) -> Any:
    if not isinstance(content, list):
        return content
    return [_part(part, f"{place}.content[{at}]") for at, part in enumerate(content)]


def _part(part: Any, place: str) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": part.get("text")}
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    if kind == "input_image" and "image_url" in part:
        detail = {"detail": part["detail"]} if "detail" in part else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    raise ValueError(f"{place} must be input_text, output_text or input_image with its image_url")
