"""Reads rows of OpenAI's batches and of LangSmith's exports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    convert_to_messages,
    messages_from_dict,
)

from langchain_gkt.providers.usage import completed
from langchain_gkt.teachers.recorded.recordings import BadRow, Recording, asked_in, from_message


def from_batch(row: dict[str, Any], place: str, questions: Mapping[str, str] | None) -> Recording:
    """Read a result of an OpenAI batch.

    Args:
        row: The result. Raises a `BadRow` if it has no whole answer or no question.
        place: File and line.
        questions: The questions by ``custom_id``. None if not given.
    """
    name, response = str(row["custom_id"]), row["response"] or {}
    if questions is None:
        raise BadRow(
            "is a result of a batch, which holds no question; give its requests as requests="
        )
    if name not in questions:
        raise BadRow(f"answers custom_id {name!r}, which the requests do not hold")
    if row.get("error") or response.get("status_code", 200) != 200:
        failed = row.get("error") or response.get("body")
        raise BadRow(f"is a failed request: {str(failed)[:80]}")
    body = response.get("body") or {}
    return from_message(questions[name], from_completion(body), place, id=name, provider="openai")


def from_completion(body: dict[str, Any]) -> AIMessage:
    """Make a message from a chat completion in OpenAI's form. Raises a `BadRow` if it is none."""
    try:
        choice = body["choices"][0]
        content = choice["message"]["content"]
    except (LookupError, TypeError):
        raise BadRow("holds no choices[0].message, so it is no chat completion") from None
    calls = choice["message"].get("tool_calls")
    return AIMessage(
        content or "",
        additional_kwargs={"tool_calls": calls} if calls else {},
        usage_metadata=body.get("usage_metadata") or _usage_of(body.get("usage")),
        response_metadata={
            "finish_reason": choice.get("finish_reason"),
            "logprobs": choice.get("logprobs"),
            "model_name": body.get("model"),
        },
    )


def _usage_of(report: Any) -> Any:
    """Make usage metadata from OpenAI's report."""
    if (usage := completed(None, {"usage": report})) is None:
        return None
    prompt, completion = usage["input_tokens"] or 0, usage["output_tokens"] or 0
    known = {name: value for name, value in usage.items() if value}
    counts = {"input_tokens": prompt, "output_tokens": completion}
    return {**known, **counts, "total_tokens": prompt + completion}


def from_langsmith(row: dict[str, Any], place: str) -> Recording | None:
    """Read a run exported from LangSmith. None for a run of something other than a model.

    Raises a `BadRow` if the run has no whole answer or no question.
    """
    if row.get("run_type", "llm") != "llm":
        return None  # a chain around the model, which would count twice
    inputs, outputs = (_unpacked(row[key]) for key in ("inputs", "outputs"))
    if row.get("error") or not outputs:
        raise BadRow(f"is a run without an answer: {str(row.get('error'))[:80]}")
    asked = asked_in(messages_of(inputs.get("messages")))
    if asked is None:
        raise BadRow("has no inputs.messages that end in a message of the user")
    message = from_completion(outputs) if "choices" in outputs else _from_generations(outputs)
    extra = _unpacked(row.get("extra")).get("metadata") or {}
    model = message.response_metadata.get("model_name") or extra.get("ls_model_name")
    return from_message(
        str(asked.text),
        message,
        place,
        id=str(row["id"]) if row.get("id") else None,
        model=model,
        provider=extra.get("ls_provider"),
    )


def _from_generations(outputs: dict[str, Any]) -> AIMessage:
    """Make a message from the first of some generations, which may be nested lists."""
    generation: Any = outputs.get("generations")
    while isinstance(generation, list) and generation:
        generation = generation[0]
    if not isinstance(generation, dict):
        raise BadRow("has no outputs.generations")
    stored = generation.get("message")
    (message,) = messages_of([stored]) if stored else [AIMessage(str(generation.get("text") or ""))]
    if not isinstance(message, AIMessage):
        raise BadRow(f"holds a message of type {message.type!r} as its answer")
    report = (outputs.get("llm_output") or {}).get("token_usage")
    metadata = {**(generation.get("generation_info") or {}), **message.response_metadata}
    # The conversion drops a serialized message's usage.
    serialized = stored.get("kwargs") or stored if isinstance(stored, dict) else {}
    usage = message.usage_metadata or serialized.get("usage_metadata") or _usage_of(report)
    return message.model_copy(update={"response_metadata": metadata, "usage_metadata": usage})


def _unpacked(cell: Any) -> dict[str, Any]:
    """Read an object that bulk exports write as a text."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            raise BadRow(f"holds no JSON: {cell[:40]!r}") from None
    return cell if isinstance(cell, dict) else {}


def messages_of(exported: Any) -> list[BaseMessage]:
    """Read messages in any form of exports: a list of them, or a list that holds one.

    Raises a `BadRow` if their form is unknown.
    """
    while isinstance(exported, list) and len(exported) == 1 and isinstance(exported[0], list):
        exported = exported[0]
    if not isinstance(exported, list):
        return []
    try:
        if all(isinstance(message, dict) and "data" in message for message in exported):
            return messages_from_dict(exported)
        return convert_to_messages(exported)
    except (ValueError, TypeError, LookupError, AttributeError, NotImplementedError) as error:
        raise BadRow(f"holds messages that cannot be read ({str(error)[:80]})") from None
