"""Tool calls of students whose vocabularies were made by others."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_gkt import HuggingFaceStudent


@tool
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"It rains in {city}."


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@pytest.mark.parametrize("choice", ["get_weather", "any"])
def test_a_tool_that_must_be_called_is_called(
    choice: str, qwen: HuggingFaceStudent, capfd: Any
) -> None:
    message = qwen.bind_tools([get_weather], tool_choice=choice).invoke("Weather in Paris?")
    assert [call["name"] for call in message.tool_calls] == ["get_weather"]
    assert set(message.tool_calls[0]["args"]) == {"city"}
    assert message.text == ""
    assert not message.invalid_tool_calls
    assert "Parser Error" not in capfd.readouterr().err


def test_objects_by_function_calling(qwen: HuggingFaceStudent) -> None:
    made = qwen.with_structured_output(Person, method="function_calling").invoke(
        "Tom is 30 years old."
    )
    assert made == Person(name="Tom", age=30)


def test_a_call_without_tags_is_read(qwen: HuggingFaceStudent) -> None:
    message = qwen.bind_tools([get_weather]).invoke("Use the tool: weather in Rome")
    assert [call["args"] for call in message.tool_calls] == [{"city": "Rome"}]
    assert message.text == ""
    assert message.response_metadata["finish_reason"] == "tool_calls"
