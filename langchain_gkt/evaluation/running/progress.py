"""A progress bar with rate, cost so far and time left."""

from __future__ import annotations

import sys
import time
from decimal import Decimal
from typing import Any


class ProgressBar:
    """One line per phase on standard error. A context manager."""

    def __init__(self, shown: bool | None) -> None:
        """Set it up. None shows it only if standard error is a terminal."""
        self._progress: Any = None
        self._task: Any = None
        if sys.stderr.isatty() if shown is None else shown:
            self._progress = _make()

    def __enter__(self) -> ProgressBar:
        """Start drawing."""
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop drawing. The lines stay."""
        if self._progress is not None:
            self._progress.stop()

    def begin(self, name: str, total: int) -> None:
        """Begin a phase."""
        self._begun, self._done = time.perf_counter(), 0
        if self._progress is not None and total:  # earlier sessions may have finished all
            self._task = self._progress.add_task(name, total=total, rate="", cost="")

    def step(self, cost: Decimal) -> None:
        """Finish a step. ``cost`` are the US dollars of the run so far, as far as known."""
        self._done += 1
        if self._progress is not None:
            rate = self._done / max(1e-9, time.perf_counter() - self._begun)
            self._progress.update(self._task, advance=1, rate=f"{rate:.1f}/s", cost=f"${cost:.4f}")


def _make() -> Any:
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    except ImportError as error:
        raise ImportError(
            'the progress bar needs rich: pip install "langchain-gkt[report]", or progress=False'
        ) from error
    return Progress(
        TextColumn("{task.description:16}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[cost]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
