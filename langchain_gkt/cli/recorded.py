"""Options of a command that replays recorded answers instead of a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_gkt.cli.errors import existing_file, naming
from langchain_gkt.cli.options import option

if TYPE_CHECKING:
    from langchain_gkt import RecordedTeacher
    from langchain_gkt.cli.options import ModelOptions


@dataclass(frozen=True)
class RecordedOptions:
    """The place of recorded answers, and how to read them."""

    recorded: Path | None = option(
        None, "FILE", "Recorded answers, replayed in the place of a teacher; no provider is called."
    )
    columns: str | None = option(
        None,
        "LIST",
        "What the file's columns are called, such as question=prompt,answer=completion; a "
        "slash leads into nested objects.",
        "by their own names",
    )
    requests: Path | None = option(
        None, "FILE", "The requests of an OpenAI batch, if the file is its results."
    )
    tokenizer: str | None = option(
        None,
        "NAME",
        "Tokenizer of the recorded model: an encoding of tiktoken such as o200k_base, or a "
        "folder or hub id.",
    )


def read_recorded(
    options: RecordedOptions, models: ModelOptions, **live: Any
) -> RecordedTeacher | None:
    """Return a teacher that replays recorded answers, or None if none are wanted.

    Refuse options that only a live teacher can follow. ``live`` names further ones.
    """
    from langchain_gkt import RecordedTeacher

    if options.recorded is None:
        for name in ("columns", "requests", "tokenizer"):
            if getattr(options, name):
                raise ValueError(f"--{name} says how recorded answers are read; give --recorded")
        return None
    live |= {
        "--teacher": models.teacher != "demo",
        "--base-url": models.base_url,
        "--teacher-prompt": models.teacher_prompt,
    }
    for name, wanted in live.items():
        if wanted:
            raise ValueError(
                f"{name} needs a live teacher, and --recorded replays answers that are there; "
                f"drop one of them{_INSTEAD.get(name, '')}"
            )
    recorded = existing_file(options.recorded, "--recorded")
    requests = existing_file(options.requests, "--requests") if options.requests else None
    columns = _columns(options.columns) if options.columns else None
    with naming(requests=requests, tokenizer=options.tokenizer, recorded=recorded):
        return RecordedTeacher.from_file(
            recorded, columns=columns, requests=requests, tokenizer=options.tokenizer
        )


_INSTEAD = {
    "--teacher": ". --teacher-price openai:gpt-4o-mini says what the answers would cost",
    "--teacher-tokenizer": ". --tokenizer names that of the recorded answers",
}


def _columns(text: str) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for part in text.split(","):
        name, mark, column = (piece.strip() for piece in part.partition("="))
        if not (name and mark and column) or name in columns:
            raise ValueError(
                "--columns must name each column once, such as question=prompt,answer=completion, "
                f"not {text!r}"
            )
        columns[name] = column.split("/") if "/" in column else column
    return columns
