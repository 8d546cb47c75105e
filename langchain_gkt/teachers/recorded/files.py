"""Reads files of recorded answers: JSON lines, CSV, and exports by their shape."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from langchain_core.messages import AIMessage

from langchain_gkt.errors import ConfigurationError, refuse_unknown
from langchain_gkt.teachers.recorded.exports import from_batch, from_langsmith, messages_of
from langchain_gkt.teachers.recorded.recordings import (
    BadRow,
    Recording,
    asked_in,
    from_message,
    refuse_rows,
)

T = TypeVar("T")
Column: TypeAlias = str | Sequence[str]
"""A column's name, or the keys that lead to it in nested objects."""

COLUMNS = {
    "question": "the text of the last message of the user",
    "answer": "the whole answer",
    "id": "a name of the row",
    "input_tokens": "prompt tokens",
    "output_tokens": "completion tokens",
    "finish_reason": "why the answer ended",
    "logprobs": "its tokens: a list of texts, or OpenAI's `logprobs` object",
    "model": "the model that answered",
}
"""Columns of a file of rows. `question` and `answer` are required."""


def read_file(
    path: Path, columns: Mapping[str, Column] | None, requests: Path | None
) -> list[Recording]:
    """Read a file of recorded answers, in its order.

    Args:
        path: The file.
        columns: Columns by the names of `COLUMNS`. None to detect the shape.
        requests: The requests of a batch, which hold its questions.

    Raises:
        ConfigurationError: If the file has another form, or unusable rows.
    """
    refuse_unknown(columns or (), COLUMNS, "columns")
    questions = None
    if requests:
        questions = read_requests([requests], lambda body: _question(body["messages"]))
    rows = read_rows(
        [path],
        lambda row, place: _recording(row, place, columns, questions),
        "correct these rows of the file, leave them out, or see columns=",
    )
    if recordings := [recording for recording in rows if recording]:
        return recordings
    raise ConfigurationError(f"{path} holds no answer", hint="give a file with recorded answers")


def read_requests(paths: Sequence[Path], read: Callable[[dict[str, Any]], T]) -> dict[str, T]:
    """Read the requests of a batch, by ``custom_id``.

    Args:
        paths: The request files.
        read: Reads a request's body. May raise a `BadRow`.

    Raises:
        ConfigurationError: If a file has another form.
    """
    requests: dict[str, T] = {}

    def add(row: Any, place: str) -> None:
        try:
            name, body, _ = str(row["custom_id"]), row["body"], row["body"]["messages"]
        except (LookupError, TypeError):
            raise BadRow("holds no custom_id and body.messages") from None
        if name in requests:
            raise BadRow(f"repeats custom_id {name!r}")
        requests[name] = read(body)

    read_rows(paths, add, "give the file of chat completion requests that made the batch")
    return requests


def _question(messages: Any) -> str:
    if (asked := asked_in(messages_of(messages))) is None:
        raise BadRow("does not end in a message of the user")
    return str(asked.text)


def read_rows(paths: Sequence[Path], read: Callable[[Any, str], T], hint: str) -> list[T]:
    """Read the rows of some files. The faults of all rows make one error.

    Args:
        paths: Files of JSON lines, a JSON list, CSV or TSV.
        read: Takes a row and its place. May raise a `BadRow`.
        hint: How to correct faults.

    Raises:
        ConfigurationError: If a row has another form or cannot be read. It names file and line.
    """
    results, problems = list[T](), list[str]()
    for place, row in (pair for path in paths for pair in _rows_of(path)):
        try:
            results.append(read(row, place))
        except BadRow as error:
            problems.append(f"{place} {error}")
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            problems.append(f"{place} has another form ({type(error).__name__}: {error})")
    refuse_rows(problems, hint)
    return results


def _rows_of(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield each row of a file with its place."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 ({error})", hint="convert it") from None
    if path.suffix.lower() in (".csv", ".tsv"):
        yield from _csv_rows(path, text)
    elif text.lstrip().startswith("["):
        rows = _parsed(text, str(path))
        yield from ((f"{path}, entry {n}", row) for n, row in enumerate(rows, 1))
    else:  # not by splitlines(), because a JSON text may hold other line ends
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"{path}, line {number}", _parsed(line, f"{path}, line {number}")


def _csv_rows(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for row in reader:
            place, line = f"{path}, line {line + 1}", reader.line_num
            if None in row or None in row.values():
                raise ConfigurationError(
                    f"{place} has more or fewer fields than the file has columns",
                    hint="put a text that holds the delimiter or a line end into quotes",
                )
            yield place, row
    except csv.Error as error:
        raise ConfigurationError(
            f"{path}, line {line + 1} is not CSV ({error})", hint="correct it, or use JSON lines"
        ) from None


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{place} is not JSON ({error})",
            hint="give JSON lines (an object a line), a JSON list, or a .csv file",
        ) from None


def _recording(
    row: Any,
    place: str,
    columns: Mapping[str, Column] | None,
    questions: Mapping[str, str] | None,
) -> Recording | None:
    """Read a row by its shape, unless its columns are given."""
    if not isinstance(row, dict):
        raise BadRow(f"holds a {type(row).__name__}, not an object")
    if columns is not None:
        return _from_columns(row, place, columns)
    if row.keys() >= {"custom_id", "response"}:
        return from_batch(row, place, questions)
    if row.keys() >= {"custom_id", "body"}:
        raise BadRow("is a request; give the results here, and this file as requests=")
    if row.keys() >= {"inputs", "outputs"}:
        return from_langsmith(row, place)
    return _from_columns(row, place, {})


def _from_columns(row: dict[str, Any], place: str, columns: Mapping[str, Column]) -> Recording:
    cells: dict[str, Any] = {}
    for name in COLUMNS:
        column = columns.get(name, name)
        keys: Sequence[str] = [column] if isinstance(column, str) else column
        cell: Any = row
        try:
            for key in keys:
                cell = cell[key]
        except (LookupError, TypeError):
            if name in columns or name in ("question", "answer"):
                raise BadRow(
                    f"has no {' / '.join(keys)!r} for columns[{name!r}]; it has: "
                    f"{', '.join(map(str, row))}"
                ) from None
        else:
            cells[name] = None if cell == "" else cell
    for name in ("question", "answer"):
        if not isinstance(cells[name], str | None):
            raise BadRow(f"has a {type(cells[name]).__name__} as its {name}, not a text")
    usage = {
        name: _count(name, cells[name])
        for name in ("input_tokens", "output_tokens")
        if cells.get(name) is not None
    }
    metadata = {
        "finish_reason": cells.get("finish_reason"),
        "logprobs": _logprobs(cells.get("logprobs")),
        "model_name": cells.get("model"),
    }
    message = AIMessage(cells["answer"] or "", response_metadata=metadata)
    return from_message(
        cells["question"] or "",
        message,
        place,
        id=None if cells.get("id") is None else str(cells["id"]),
        usage=usage,
    )


def _count(name: str, cell: Any) -> int:
    """Read a number of tokens. Tables often hold it as 12.0."""
    try:
        count = int(float(cell))
    except (TypeError, ValueError, OverflowError):
        count = 0
    if isinstance(cell, bool) or count < 1 or count != float(cell):
        raise BadRow(f"has {name}={cell!r}, which is no number of tokens")
    return count


def _logprobs(cell: Any) -> Any:
    """Read recorded tokens, in OpenAI's form or as a list of texts, perhaps as JSON in a table."""
    raw = cell
    try:
        cell = json.loads(cell) if isinstance(cell, str) else cell
    except ValueError:
        cell = raw
    tokens = cell.get("content") if isinstance(cell, dict) else cell
    if tokens is None:
        return None
    if isinstance(tokens, list):
        content = [{"token": token} if isinstance(token, str) else token for token in tokens]
        if all(isinstance(item, dict) and isinstance(item.get("token"), str) for item in content):
            return {"content": content}
    raise BadRow(f"has logprobs that hold no list of tokens: {str(raw)[:40]!r}")
