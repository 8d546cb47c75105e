"""Whole teacher answers of an earlier sweep, for a sweep with another student."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from langchain_gkt.evaluation.running.run_store import MANIFEST, RunStore

_SAME = (
    ("task",),
    ("teacher",),
    ("teacher_bound",),
    ("chain", "max_tokens"),
    ("chain", "temperature"),
    ("chain", "stop"),
    ("prices", "teacher"),
    ("prices", "tier"),
    ("prices", "scenario"),
    _PROMPT := ("chain", "teacher_prompt"),
)
"""Settings that decide a teacher's answers and price. Policies differ in the last."""


class TeacherPasses:
    """The teacher's answers in the folder of a sweep, or of a sweep over policies."""

    def __init__(self, path: str | Path) -> None:
        """Read the folder. No model is called.

        Raises:
            FileNotFoundError: If there is no run.
            ValueError: If it is a run of another kind, or damaged.
        """
        self._path = Path(path)
        folder = RunStore(self._path).read()
        kind = folder.manifest["kind"]
        self._only_one = kind == "sweep"
        if self._only_one:
            self._runs = [folder]
        elif kind == "policies":
            inner = sorted(file.parent for file in self._path.glob(f"*/{MANIFEST}"))
            self._runs = [RunStore(path).read() for path in inner]
        else:
            raise ValueError(f"teacher_from={str(path)!r} holds a {kind}, not a sweep")
        if not self._runs:
            raise ValueError(f"teacher_from={str(path)!r} holds no policy's sweep yet")

    def find(self, settings: Mapping[str, Any], rows: Collection[str]) -> RunStore | None:
        """Return the run whose teacher got the same questions in the same way.

        Returns:
            The run, or None if no run showed the teacher the same prompt.

        Raises:
            ValueError: If another setting differs, no row is the same, or it is a sweep of a
                single, different prompt.
        """
        for run in self._runs:
            earlier = run.manifest["settings"]
            name = next((n for n in _SAME if _value(earlier, n) != _value(settings, n)), None)
            if name == _PROMPT:
                continue
            if name is not None:
                raise ValueError(
                    f"teacher_from={str(self._path)!r} was made with {'.'.join(name)}="
                    f"{_value(earlier, name)!r}, and now it is {_value(settings, name)!r}; its "
                    "answers say nothing of this teacher: leave teacher_from out"
                )
            if not set(run.manifest["rows"]) & set(rows):
                raise ValueError(
                    f"teacher_from={str(self._path)!r} holds none of these rows, or asked them "
                    "with another prompt; name the folder of a run of the same questions"
                )
            return run
        if self._only_one:
            raise ValueError(
                f"teacher_from={str(self._path)!r} showed its teacher another teacher_prompt; "
                "give the chain the same one, or leave teacher_from out"
            )
        return None


def _value(settings: Mapping[str, Any], name: tuple[str, ...]) -> Any:
    value: Any = settings
    for part in name:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
