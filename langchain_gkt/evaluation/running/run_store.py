"""The folder of an evaluation run: a manifest, and one line for each finished item."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ValidationError, create_model

from langchain_gkt.evaluation.running.records import Answer, TeacherReply
from langchain_gkt.evaluation.validation import plain_error

SCHEMA_VERSION = 2
"""Grows when a field of a line or of the manifest is renamed or removed. Version 1 named no
signals, and its manifest called sessions ``sittings``. It can still be read.
"""

MANIFEST, LINES = "manifest.json", "lines.jsonl"
_PACKAGES = ("langchain-gkt", "langchain-core", "langchain-openai", "transformers", "torch")


def _shape(name: str, **fields: Any) -> type[BaseModel]:
    """Return a model of what must be there. More may be there."""
    create: Any = create_model
    shape: type[BaseModel] = create(name, **{field: (form, ...) for field, form in fields.items()})
    return shape


_MANIFEST = _shape(
    "manifest",
    schema_version=int,
    kind=str,  # compare, sweep or policies
    settings=dict[str, Any],  # in which all sessions of the run agree
    rows=list[str],  # keys
    questions=list[str],  # of these rows
    sessions=list[dict[str, Any]],  # when, and with which versions and options, each began
)
# By the type of a line. Other types are left to later releases.
_SHAPES = {
    "line": _shape("line", type=str),
    "answer": _shape("answer", answer=dict[str, Any]),
    "reply": _shape("reply", row=str, mode=str, reply=dict[str, Any]),
    "failure": _shape("failure", row=str, mode=str, length=int | None, error=str),
    "cut": _shape("cut", row=str, method=str),
    "check": _shape("check", row=str, method=str, length=int | None),
}
_RECORDS: dict[str, Callable[[Any], Any]]
_RECORDS = {"answer": Answer.from_dict, "reply": TeacherReply.from_dict}


def check_line(line: Any) -> None:
    """Refuse a line that cannot be read, with a ValueError that names the field."""
    kind = "line"
    try:
        _SHAPES[kind].model_validate(line)
        kind = line["type"]
        if kind in _SHAPES:
            _SHAPES[kind].model_validate(line)
    except ValidationError as error:
        raise ValueError(str(plain_error(error, kind))) from None
    if kind in _RECORDS:
        _RECORDS[kind](line[kind])


class RunStore:
    """Lines of JSON that are on the disk as soon as they are appended.

    If the process died in the middle of a line, reopening the folder drops that line.
    """

    def __init__(self, path: str | Path | None) -> None:
        """Name a folder, made if it does not exist. None keeps everything in memory."""
        self.path = None if path is None else Path(path)
        self.manifest: dict[str, Any] = {}
        self.lines: list[dict[str, Any]] = []
        self._file: IO[bytes] | None = None

    @contextmanager
    def writing(
        self,
        kind: str,
        settings: Mapping[str, Any],
        rows: Mapping[str, str],
        about: Mapping[str, Any],
    ) -> Iterator[None]:
        """Open the folder for one process, to begin a run or to continue it.

        Args:
            kind: ``compare``, ``sweep`` or ``policies``.
            settings: Settings in which all sessions of one run must agree.
            rows: The rows' keys with their questions. A later session may add some.
            about: Further facts about this session to write down.

        Raises:
            ValueError: If the folder holds another run.
            RuntimeError: If another process writes to it.
            ImportError: If the package filelock is missing.
        """
        session = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": _versions(),
            **json.loads(json.dumps(about, default=str)),
        }
        fresh = {
            "schema_version": SCHEMA_VERSION,
            "kind": kind,
            "settings": json.loads(json.dumps(settings)),
            "rows": list(rows),
            "questions": list(rows.values()),
            "sessions": [session],
        }
        if self.path is None:
            self.manifest = fresh
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with _alone(self.path):
            if (self.path / MANIFEST).exists():
                self.read(truncate=True)
                _refuse_other(self.path, self.manifest, fresh)
                fresh["sessions"] = [*self.manifest["sessions"], session]
                if len(rows) < len(self.manifest["rows"]):
                    fresh |= {name: self.manifest[name] for name in ("rows", "questions")}
            elif (self.path / LINES).exists():
                raise ValueError(
                    f"out={str(self.path)!r} holds {LINES} but no {MANIFEST}; choose another folder"
                )
            self.manifest = fresh
            # Under another name first, so that a crash leaves either the old one or the new one.
            draft = self.path / f".{MANIFEST}"
            # ASCII, because a model may write characters that no encoding can hold.
            draft.write_text(json.dumps(fresh, indent=1) + "\n", encoding="utf-8")
            os.replace(draft, self.path / MANIFEST)
            with open(self.path / LINES, "ab") as self._file:
                yield
            self._file = None

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line of JSON values, and wait until it is on the disk."""
        self.lines.append(dict(line))
        if self._file is not None:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def lines_of(self, kind: str) -> list[dict[str, Any]]:
        """Return the lines of a type."""
        return [line for line in self.lines if line["type"] == kind]

    def answers(self) -> list[Answer]:
        """Return the answers, outdated ones included."""
        return [Answer.from_dict(line["answer"]) for line in self.lines_of("answer")]

    def read(self, *, truncate: bool = False) -> RunStore:
        """Read the folder, without a truncated last line.

        Args:
            truncate: Whether to remove such a line from the file, so that others can follow.

        Raises:
            FileNotFoundError: If there is no run.
            ValueError: If a file is damaged, or of a newer version.
        """
        assert self.path is not None
        file = self.path / MANIFEST
        if not file.is_file():
            raise FileNotFoundError(
                f"{str(self.path)!r} holds no {MANIFEST}: it is not the folder of a run"
            )
        try:
            self.manifest = json.loads(file.read_text(encoding="utf-8"))
            version = self.manifest.get("schema_version", "none")
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{file} is damaged: {error}") from error
        if version not in range(1, SCHEMA_VERSION + 1):
            raise ValueError(
                f"{file} has schema_version {version}; this release reads 1 to {SCHEMA_VERSION}"
            )
        if "sittings" in self.manifest:
            self.manifest["sessions"] = self.manifest.pop("sittings")
        try:
            _MANIFEST.model_validate(self.manifest)
        except ValidationError as error:
            first = error.errors()[0]
            problem = str(plain_error(error, "manifest"))
            if first["type"] == "missing":
                problem = f"it has no {first['loc'][0]!r}"
            raise ValueError(f"{file} is damaged: {problem}") from None
        file = self.path / LINES
        data = file.read_bytes() if file.exists() else b""
        if data and not data.endswith(b"\n"):
            data = data[: data.rfind(b"\n") + 1]
            if truncate:
                os.truncate(file, len(data))
        self.lines = []
        for number, line in enumerate(data.splitlines(), 1):
            try:
                self.lines.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"{file}, line {number} is damaged: {error}") from error
            try:
                check_line(self.lines[-1])
            except ValueError as error:
                raise ValueError(
                    f"line {number} of {self.path} is damaged: {type(error).__name__}: {error}"
                ) from error
        return self


def _alone(path: Path) -> Any:
    """Lock a folder, until the end of the context that this returns."""
    try:
        from filelock import FileLock, Timeout
    except ImportError as error:
        raise ImportError(
            'a run folder needs filelock: pip install "langchain-gkt[report]"'
        ) from error
    try:
        return FileLock(path / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise RuntimeError(
            f"out={str(path)!r} is being written by another process; wait for it, or choose "
            "another folder"
        ) from error


def _refuse_other(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to continue a run of other settings. Name the first that differs."""
    advice = "; give the same, or another folder"
    if old["kind"] != new["kind"]:
        raise ValueError(f"out={str(path)!r} holds a {old['kind']}, not a {new['kind']}{advice}")
    if difference := _difference(old["settings"], new["settings"], ""):
        name, was, now = difference
        raise ValueError(
            f"out={str(path)!r} was begun with {name}={was!r}, and now it is {now!r}{advice}"
        )
    fewer = min(len(old["rows"]), len(new["rows"]))
    if old["rows"][:fewer] != new["rows"][:fewer]:
        raise ValueError(f"out={str(path)!r} was begun with other rows or prompts{advice}")


def _difference(old: Any, new: Any, name: str) -> tuple[str, Any, Any] | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            inner = f"{name}.{key}" if name else key
            if difference := _difference(old.get(key), new.get(key), inner):
                return difference
        return None
    return None if old == new else (name, old, new)


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # an optional one
            continue
    return versions
