"""Which calls keep to their tools' schemas, and which do the same."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field

from langchain_gkt.structured_output.tool_calls import calls_key, fitting_calls
from langchain_gkt.structured_output.tools import in_openai_form, required_tool


class Place(BaseModel):
    """A place."""

    city: str
    country: str = "IT"


class Trip(BaseModel):
    """Plan a trip."""

    to: Place
    nights: int = Field(default=1, ge=1)
    budget: float | None = None
    tags: list[str] = Field(default_factory=list)
    fast: bool = False


TOOLS = [in_openai_form(Trip), {"type": "web_search"}]


def fitting(*arguments: Any, name: str = "Trip") -> Any:
    return fitting_calls([{"name": name, "arguments": one} for one in arguments], TOOLS)


def key(*arguments: Any) -> str:
    calls = fitting(*arguments)
    assert calls is not None
    return calls_key(calls, TOOLS)


ROME = {"to": {"city": "Rome"}}


@pytest.mark.parametrize(
    "same",
    [
        {"to": {"country": "IT", "city": "Rome"}},
        {"nights": 1.0, **ROME},
        {**ROME, "budget": None, "fast": False},
    ],
)
def test_defaults_order_and_whole_numbers_make_no_difference(same) -> None:
    assert key(same) == key(ROME)


@pytest.mark.parametrize(
    "other",
    [
        {"to": {"city": "rome"}},
        {**ROME, "nights": 2},
        {**ROME, "fast": True},
        {**ROME, "budget": 1},
    ],
)
def test_other_arguments_are_another_call(other) -> None:
    assert key(other) != key(ROME)


def test_a_set_of_calls_has_no_order_but_counts() -> None:
    oslo = {"to": {"city": "Oslo", "country": "NO"}}
    assert key(ROME, oslo) == key(oslo, ROME)
    assert key(ROME, ROME) != key(ROME)
    assert fitting() == []


def test_whole_numbers_become_integers_where_the_schema_says_so() -> None:
    (call,) = fitting({"nights": 2.0, **ROME})
    assert type(call["arguments"]["nights"]) is int
    assert list(call["arguments"]) == ["to", "nights"]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"to": "Rome"},
        {"to": {"country": "IT"}},
        {**ROME, "nights": "2"},
        {**ROME, "nights": 0},
        {**ROME, "nights": True},
        {**ROME, "hotel": "Ritz"},
        {**ROME, "tags": [1]},
        {**ROME, "budget": float("nan")},
        {"to": {"city": "\ud800"}},
    ],
)
def test_arguments_that_break_the_schema_do_not_fit(wrong) -> None:
    assert fitting(ROME, wrong) is None


def test_tools_that_are_not_bound_or_cannot_be_checked_do_not_fit() -> None:
    assert fitting(ROME, name="trip") is None
    odd = {"type": "object", "properties": {"x": {"not": {"type": "string"}}}}
    tool = {"type": "function", "function": {"name": "odd", "parameters": odd}}
    assert fitting_calls([{"name": "odd", "arguments": {"x": 1}}], [tool]) is None


def test_what_a_tool_choice_demands() -> None:
    assert [required_tool(c) for c in (None, False, "auto", "none", {"type": "auto"})] == [None] * 5
    assert [required_tool(c) for c in (True, "any", "required", {"type": "any"})] == ["any"] * 4
    named = ("add", {"type": "tool", "name": "add"}, {"function": {"name": "add"}})
    assert [required_tool(choice) for choice in named] == ["add"] * 3
