"""Errors in the words of the command line. They name the option, not a library's field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def in_words(error: BaseException) -> str:
    """Return an error without the operating system's numbers and pydantic's frame."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        from langchain_gkt.errors import explain

        return explain(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return re.sub(r"\[(?:Errno|WinError) -?\d+\] ", "", str(error))


@contextmanager
def naming(**options: object) -> Iterator[None]:
    """Make errors name which of these options they are about. None stands for one not given."""
    values = {f"--{name.replace('_', '-')}": str(v) for name, v in options.items() if v is not None}
    try:
        yield
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        text = in_words(error)
        about = [name for name, value in values.items() if value in text]
        option = next(iter(about or (values if len(values) == 1 else ())), None)
        if option is None or option in text:
            raise
        raise ValueError(f"{option} {values[option]}: {text}") from error


def existing_file(path: Path, option: str) -> Path:
    """Return the path of a file that an option named, or raise that it is missing."""
    if path.is_dir():
        raise IsADirectoryError(f"{option} {path} is a folder; name the file in it")
    if not path.exists():
        raise FileNotFoundError(f"{option} {path}: there is no such file")
    return path


def writable_folder(path: Path | None) -> None:
    """Refuse an ``--out`` with a file in its way, before anything is paid."""
    for folder in (path, *path.parents) if path else ():
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"--out {path}: {folder} is a file; name a folder")
