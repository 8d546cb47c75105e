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


def teacher_pass(
    path: str | Path, settings: Mapping[str, Any], rows: Collection[str]
) -> RunStore | None:
    """Return the run in a folder whose teacher got the same questions in the same way.

    Args:
        path: The folder of a sweep, or of a sweep over policies.
        settings: The settings of the new run.
        rows: Its rows' keys.

    Returns:
        The run, or None if no policy showed the teacher the same prompt.

    Raises:
        FileNotFoundError: If there is no run.
        ValueError: If it is a run of another kind, or damaged, another setting differs, no row is
            the same, or it is a sweep of a single, different prompt.
    """
    folder, named = RunStore(path).read(), f"teacher_from={str(path)!r}"
    kind = folder.manifest["kind"]
    if kind not in ("sweep", "policies"):
        raise ValueError(f"{named} holds a {kind}, not a sweep")
    runs = [folder]
    if kind == "policies":
        inner = sorted(file.parent for file in Path(path).glob(f"*/{MANIFEST}"))
        runs = [RunStore(path).read() for path in inner]
    if not runs:
        raise ValueError(f"{named} holds no policy's sweep yet")
    for run in runs:
        earlier = run.manifest["settings"]
        name = next((n for n in _SAME if _value(earlier, n) != _value(settings, n)), None)
        if name == _PROMPT:
            continue
        if name is not None:
            raise ValueError(
                f"{named} was made with {'.'.join(name)}={_value(earlier, name)!r}, and now it is "
                f"{_value(settings, name)!r}; its answers say nothing of this teacher: leave "
                "teacher_from out"
            )
        if not set(run.manifest["rows"]) & set(rows):
            raise ValueError(
                f"{named} holds none of these rows, or asked them with another prompt; name the "
                "folder of a run of the same questions"
            )
        return run
    if kind == "sweep":
        raise ValueError(
            f"{named} showed its teacher another teacher_prompt; give the chain the same one, or "
            "leave teacher_from out"
        )
    return None


def _value(settings: Mapping[str, Any], name: tuple[str, ...]) -> Any:
    value: Any = settings
    for part in name:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
