"""Readers of benchmark rows and few-shot exemplars: files, the hub, and our own exemplars."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module, resources
from os import PathLike
from pathlib import Path
from typing import Any

_MARK = re.compile(r"\s*(Q|Question|A|Answer)\s*:[ \t]*")


@dataclass(frozen=True)
class PublishedRow:
    """One row as its publisher wrote it.

    Attributes:
        where: File and line, or another way to find the row. Begins every error.
        fields: The row.
        inside: What to put before a field's name in errors, such as ``question.``.
    """

    where: str
    fields: Mapping[str, Any]
    inside: str = ""

    def error(self, field: str, problem: str) -> ValueError:
        """Return an error that names row and field. The problem ends its sentence."""
        return ValueError(f"{self.where}: field '{self.inside}{field}' {problem}")

    def need(self, field: str) -> Any:
        """Return a field that must be there."""
        if field not in self.fields:
            has = ", ".join(map(str, self.fields)) or "nothing"
            raise self.error(field, f"is missing; the row has: {has}")
        return self.fields[field]

    def text(self, field: str) -> str:
        """Return a field that must hold text, without the whitespace around it."""
        value = self.need(field)
        if not isinstance(value, str):
            raise self.error(field, f"must be a text, not {type(value).__name__}")
        if not value.strip():
            raise self.error(field, "is empty")
        return value.strip()


def read_rows(path: str | PathLike[str], argument: str = "data") -> list[PublishedRow]:
    """Read JSON lines, or one JSON list of objects. Its first character shows which.

    Blank lines are skipped. Errors name the argument that named the file.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If ``path`` is not a path.
        ValueError: If it is not UTF-8 text, holds no rows, or a row is not a JSON object.
    """
    file, text = _read(path, argument)
    rows: list[tuple[str, Any]]
    if text.lstrip().startswith("["):
        listed = _decode(text, file.name, 0)
        rows = [(f"{file.name}, row {i}", row) for i, row in enumerate(listed, 1)]
    else:
        # Only a line feed ends a row. JSON text may hold the other line ends of Unicode.
        lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        rows = [(f"{file.name}, line {i}", _decode(line, file.name, i)) for i, line in lines]
    if not rows:
        raise ValueError(f"{argument}={file.name!r} holds no rows")
    for where, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{where}: must be a JSON object, not {type(row).__name__}")
    return [PublishedRow(where, row) for where, row in rows]


def hub_rows(repo: str, config: str | None, split: str) -> list[PublishedRow]:
    """Download rows with the ``datasets`` package.

    Raises:
        ImportError: If the package is missing.
        OSError: If it cannot deliver the rows.
    """
    instead = "or give data= the path of a file in the publisher's format"
    try:
        datasets = import_module("datasets")  # heavy, and only this needs it
    except ImportError as error:
        raise ImportError(
            f"{repo} is read with the datasets package: pip install datasets, {instead}."
        ) from error
    try:
        rows = list(datasets.load_dataset(repo, name=config, split=split))
    except Exception as error:
        raise OSError(
            f"the datasets package could not deliver {repo} ({split}): "
            f"{type(error).__name__}: {error} Check that the hub is reachable, {instead}."
        ) from error
    return [PublishedRow(f"{repo} ({split}), row {i}", row) for i, row in enumerate(rows, 1)]


def read_exemplars(path: str | PathLike[str]) -> list[tuple[str, str]]:
    """Read few-shot exemplars.

    Args:
        path: ``.json`` (a list) or ``.jsonl`` of objects with ``question`` and ``answer`` or
            ``target``, or ``.txt`` of blocks ``Q: ...`` / ``A: ...`` (``Question:`` and
            ``Answer:`` too) with a blank line between them.

    Returns:
        Question and answer of each, in order.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If ``path`` is no path.
        ValueError: If its name or content has another form.
    """
    kind = _path(path, "exemplars").suffix.lower()
    if kind == ".txt":
        return _text_exemplars(path)
    if kind not in (".json", ".jsonl"):
        raise ValueError(f"exemplars={str(path)!r} must be a .json, .jsonl or .txt file")
    exemplars = []
    for row in read_rows(path, "exemplars"):
        names = [name for name in ("answer", "target") if name in row.fields]
        if not names:
            raise row.error("answer", "is missing, and so is 'target'")
        exemplars.append((row.text("question"), row.text(names[0])))
    return exemplars


def own_exemplars(name: str) -> list[tuple[str, str]]:
    """Return the exemplars that this package brings for a task."""
    file = resources.files("langchain_gkt.evaluation.tasks") / "exemplars" / f"{name}.json"
    return [(pair["question"], pair["answer"]) for pair in json.loads(file.read_text("utf-8"))]


def _text_exemplars(path: str | PathLike[str]) -> list[tuple[str, str]]:
    file, text = _read(path, "exemplars")
    blocks: list[tuple[int, list[str], list[str]]] = []  # line, question, answer
    after_blank = True
    for i, line in enumerate(text.split("\n"), 1):
        mark = _MARK.match(line)
        if not line.strip():
            after_blank = True
            continue
        if mark and mark[1].startswith("Q"):
            blocks.append((i, [line[mark.end() :]], []))
        elif mark and blocks and not blocks[-1][2]:
            blocks[-1][2].append(line[mark.end() :])
        elif not blocks or after_blank:
            raise ValueError(
                f"{file.name}, line {i}: a block must begin with 'Q:' and go on with 'A:'; "
                "only between blocks is there a blank line"
            )
        else:
            (blocks[-1][2] or blocks[-1][1]).append(line)
        after_blank = False
    exemplars = []
    for i, *parts in blocks:
        question, answer = ("\n".join(map(str.rstrip, part)).strip() for part in parts)
        if not question or not answer:
            missing = "answer ('A:')" if question else "text after 'Q:'"
            raise ValueError(f"{file.name}, line {i}: the question has no {missing}")
        exemplars.append((question, answer))
    if not exemplars:
        raise ValueError(f"exemplars={file.name!r} holds no 'Q:' blocks")
    return exemplars


def _path(path: str | PathLike[str], argument: str) -> Path:
    if not isinstance(path, str | PathLike):
        raise TypeError(f"{argument} must be the path of a file, not {type(path).__name__}")
    return Path(path).expanduser()


def _read(path: str | PathLike[str], argument: str) -> tuple[Path, str]:
    file = _path(path, argument)
    try:
        # utf-8-sig: some editors write a byte order mark.
        return file, file.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{argument}={str(path)!r}: there is no such file") from error
    except IsADirectoryError as error:
        raise ValueError(f"{argument}={str(path)!r} is a folder; name the file in it") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{argument}={str(path)!r} is no UTF-8 text: {error}") from error


def _decode(text: str, name: str, line: int) -> Any:
    """Decode JSON. ``line`` 0 stands for a text of many lines."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}, line {line or error.lineno}: no valid JSON: {error}") from error
