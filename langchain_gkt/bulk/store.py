"""The paid results of a bulk job: guidance by content hash, and every bill."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from langchain_gkt.costs.totals import UsageTotals

FILE = "guidance.sqlite"
SCHEMA_VERSION = 1
"""Grows when a table changes."""

_TABLES = """
CREATE TABLE IF NOT EXISTS guidance (key TEXT PRIMARY KEY, reply TEXT NOT NULL, carrier TEXT);
CREATE TABLE IF NOT EXISTS bills (
    source TEXT PRIMARY KEY, role TEXT NOT NULL, totals TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS begun (key TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_LOCK_TIMEOUT = 30.0
"""Seconds to wait for the actor of a driver that was killed a moment ago."""

_TOTALS = TypeAdapter(UsageTotals)


class GuidanceStore:
    """A SQLite file with one writer. Its contents survive a killed process.

    Attributes:
        lost_calls: Calls that began and never ended, because their process was killed. They may
            have been billed, and nobody can know.
    """

    _lock: Any = None

    def __init__(
        self, folder: str | Path | None, *, run: str | None, stable_rows: bool = False
    ) -> None:
        """Open the file, or make it.

        Args:
            folder: Its folder. None to keep everything in memory.
            run: Names this session of the job. A restarted writer gives the same. None for a reader
                beside a writer.
            stable_rows: Whether rows have the same names in every session.

        Raises:
            RuntimeError: If another job writes to it.
            ImportError: If the package filelock is missing.
            ValueError: If it is not such a file, or has another version.
        """
        path = ":memory:"
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            path = str(Path(folder) / FILE)
            if run is not None:
                self._lock = _alone(Path(folder))
        self._db = sqlite3.connect(path, timeout=_LOCK_TIMEOUT, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_TABLES)
            self._begin(run, stable_rows, path)
        except sqlite3.DatabaseError as error:
            self.close()
            raise ValueError(
                f"checkpoint={str(folder)!r} holds a {FILE} that is damaged ({error})"
            ) from error
        except BaseException:
            self.close()
            raise

    def _begin(self, run: str | None, stable_rows: bool, path: str) -> None:
        about = dict(self._db.execute("SELECT name, value FROM about"))
        version = about.get("schema_version", str(SCHEMA_VERSION))
        if version != str(SCHEMA_VERSION):
            raise ValueError(
                f"{path} has schema_version {version}; this release reads {SCHEMA_VERSION}"
            )
        self.lost_calls = int(about.get("lost_calls", 0))
        if run is None:
            return
        if about.get("run") != run:
            self.lost_calls += self.in_flight
            self._db.execute("DELETE FROM begun")
            if not stable_rows:
                # Each session numbers the rows anew, so the last one's numbers mean nothing.
                self._db.execute("UPDATE guidance SET carrier = NULL")
        self._write_about(schema_version=SCHEMA_VERSION, run=run, lost_calls=self.lost_calls)

    @property
    def in_flight(self) -> int:
        """Calls that have begun and not ended."""
        return int(self._db.execute("SELECT COUNT(*) FROM begun").fetchone()[0])

    def _write_about(self, **values: object) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO about VALUES (?, ?)",
            [(name, str(value)) for name, value in values.items()],
        )

    def begin(self, key: str) -> None:
        """Record the start of a call. An unfinished one with the same key is lost."""
        if not self._db.execute("INSERT OR IGNORE INTO begun VALUES (?)", (key,)).rowcount:
            self.lost_calls += 1
            self._write_about(lost_calls=self.lost_calls)

    def find(self, key: str) -> str | None:
        """Return the recorded reply of a key, or None."""
        row = self._db.execute("SELECT reply FROM guidance WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def carries(self, key: str, row: str) -> bool:
        """Whether a row carries the cost of a recorded reply. The first that asks does."""
        self._db.execute(
            "UPDATE guidance SET carrier = ? WHERE key = ? AND carrier IS NULL", (row, key)
        )
        record = self._db.execute("SELECT carrier FROM guidance WHERE key = ?", (key,)).fetchone()
        return record is not None and record[0] == row

    def add(
        self, source: str, role: str, totals: UsageTotals, *, key: str = "", reply: str | None
    ) -> bool:
        """Record a bill and its reply, both or neither.

        Args:
            source: Names the bill. One that is already there changes nothing.
            role: ``teacher`` or ``student``.
            totals: Tokens and money.
            key: The key of the reply.
            reply: The reply. None if there is none.

        Returns:
            Whether the bill was new.
        """
        self._db.execute("BEGIN")
        try:
            written = self._db.execute(
                "INSERT OR IGNORE INTO bills VALUES (?, ?, ?)",
                (source, role, _TOTALS.dump_json(totals, exclude_defaults=True).decode()),
            )
            self._db.execute("DELETE FROM begun WHERE key = ?", (key,))
            if reply is not None:
                self._db.execute("INSERT OR IGNORE INTO guidance VALUES (?, ?, NULL)", (key, reply))
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        return bool(written.rowcount)

    def bills(self) -> Iterator[tuple[str, UsageTotals]]:
        """Yield each bill: its role, its tokens and money."""
        for role, totals in self._db.execute("SELECT role, totals FROM bills"):
            yield role, _TOTALS.validate_json(totals)

    def close(self) -> None:
        """Close the file, so that another may write to it."""
        self._db.close()
        if self._lock is not None:
            self._lock.release()


def _alone(folder: Path) -> Any:
    """Lock a folder for this process, until the process ends at the latest."""
    try:
        from filelock import FileLock, Timeout
    except ImportError as error:
        raise ImportError(
            'a checkpoint needs filelock: pip install "langchain-gkt[ray]"'
        ) from error
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=_LOCK_TIMEOUT)
    except Timeout as error:
        raise RuntimeError(
            f"checkpoint={str(folder)!r} is being written by another job; wait for it, or choose "
            "another folder"
        ) from error
    return lock
