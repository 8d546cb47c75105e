"""The rows of the Berkeley Function-Calling Leaderboard, and what students answered to them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

SAMPLES, TEMPERATURE = 5, 0.7
"""How often a student answers a row besides the greedy answer, and at what temperature."""
_TYPES = {
    "dict": "object",
    "float": "number",
    "double": "number",
    "long": "integer",
    "bool": "boolean",
    "tuple": "array",
    "list": "array",
    "any": "string",
}


@cache
def rows_of(package: Path, category: str) -> list[dict[str, Any]]:
    """Read the rows of a category, with their right answers where it has some."""
    data = package / "bfcl_eval" / "data"
    name = f"BFCL_v4_{category}.json"
    rows = [json.loads(line) for line in (data / name).read_text().splitlines()]
    if (answers := data / "possible_answer" / name).exists():
        known = {one["id"]: one for one in map(json.loads, answers.read_text().splitlines())}
        for row in rows:
            row["ground_truth"] = known[row["id"]]["ground_truth"]
    return rows


def prompt_of(row: dict[str, Any]) -> tuple[list[BaseMessage], list[dict[str, Any]]]:
    """Return a row's conversation, and its functions as tools in OpenAI's form."""
    kinds = {"user": HumanMessage, "system": SystemMessage}
    messages = [kinds[one["role"]](one["content"]) for one in row["question"][0]]
    tools = [
        {
            "type": "function",
            "function": {
                **function,
                "name": function["name"].replace(".", "_"),
                "parameters": _json_schema(function["parameters"]),
            },
        }
        for function in row["function"]
    ]
    return messages, tools


def _json_schema(schema: Any) -> Any:
    """Rename the leaderboard's types to those of JSON schemas."""
    if isinstance(schema, list):
        return [_json_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _TYPES.get(value, value)
        if key == "type" and isinstance(value, str)
        else _json_schema(value)
        for key, value in schema.items()
    }


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file. None if it is not there yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
