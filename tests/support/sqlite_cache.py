"""A cache of answers in a file: what it gives back was written down in between."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.load import dumps, loads


class SQLiteCache(BaseCache):
    """Keeps the generations of a prompt as LangChain serializes them."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False)
        self._connection.execute(
            "CREATE TABLE kept (prompt, model, text, PRIMARY KEY (prompt, model))"
        )

    def lookup(self, prompt: str, llm_string: str) -> Any:
        query = "SELECT text FROM kept WHERE prompt = ? AND model = ?"
        row = self._connection.execute(query, (prompt, llm_string)).fetchone()
        return row and [loads(text, allowed_objects="core") for text in json.loads(row[0])]

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        text = json.dumps([dumps(generation) for generation in return_val])
        values = (prompt, llm_string, text)
        self._connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", values)

    def clear(self, **kwargs: Any) -> None:
        self._connection.execute("DELETE FROM kept")

    def close(self) -> None:
        self._connection.close()
