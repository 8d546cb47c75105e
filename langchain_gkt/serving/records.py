"""Records of requests, for the metrics and for the log, which never holds content."""

from __future__ import annotations

import json
import logging
import time
import traceback
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from langchain_gkt.costs import CostReport
from langchain_gkt.costs.totals import UsageTotals, amount

LOGGER = logging.getLogger("langchain_gkt.serving")


@dataclass(kw_only=True, eq=False)
class RequestRecord:
    """The facts about one request."""

    request_id: str  # the client's, or one of our own
    method: str
    path: str
    body_bytes: int = 0
    started: float = field(default_factory=time.monotonic)
    client: str | None = None  # the name of its key
    model: str | None = None  # None if there is no such model
    stream: bool = False
    status: int = 499  # unless the client stays until the response begins
    first_token_seconds: float | None = None
    seconds: float = 0.0
    guidance_share: float | None = None  # of the answer's tokens, as far as is known
    finished_by: str | None = None
    fallback: bool = False  # whether the student had to answer alone
    costs: CostReport | None = None  # None if no model was called
    error: str | None = None
    disconnected: bool = False

    def note_first_token(self) -> None:
        """Record the time of the first token, unless it is known."""
        if self.first_token_seconds is None:
            self.first_token_seconds = time.monotonic() - self.started

    def note_error(self, error: BaseException) -> None:
        """Record the type of an error and its place, not its message, which may hold content."""
        cause = error.__cause__ or error
        frames = traceback.extract_tb(cause.__traceback__)
        place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        status = getattr(cause, "status_code", None)
        self.error = f"{type(cause).__name__}{f' {status}' if status else ''}{place}"

    def to_dict(self) -> dict[str, Any]:
        """Return the line of the log."""
        names = ("request_id", "client", "method", "path", "model", "stream", "status")
        fields = {name: getattr(self, name) for name in names}
        fields["seconds"] = round(self.seconds, 4)
        if self.first_token_seconds is not None:
            fields["first_token_seconds"] = round(self.first_token_seconds, 4)
        if self.costs is not None:
            fields |= {"finished_by": self.finished_by, "fallback": self.fallback}
            fields |= {"teacher": role_fields(self.costs.teacher)}
            fields |= {"student": role_fields(self.costs.student)}
        if self.disconnected:
            fields["disconnected"] = True
        if self.error:
            fields["error"] = self.error
        return fields


def role_fields(totals: UsageTotals) -> dict[str, Any]:
    """Return a model's usage in a request, with estimates of unreported bills.

    US dollars are a decimal string. None if the price is unknown.
    """
    unpriced = totals.unpriced_calls or totals.unreported_unpriced_calls
    return {
        "calls": totals.calls,
        "prompt_tokens": totals.prompt_tokens + totals.unreported_prompt_tokens,
        "completion_tokens": totals.completion_tokens + totals.unreported_completion_tokens,
        "usd": None if unpriced else amount(totals.known_cost + totals.unreported_cost),
    }


class _JSONLines(logging.Formatter):
    """Writes records as JSON lines. Exceptions show only their type, as messages may hold text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        fields: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage().splitlines()[0] if record.getMessage() else "",
        }
        fields |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[0]:
            fields.setdefault("error", record.exc_info[0].__name__)
        return json.dumps(fields)


def log_settings() -> dict[str, Any]:
    """Return the logging settings of a server: JSON lines on standard error."""
    logger = {"handlers": ["stderr"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": _JSONLines}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "loggers": {"langchain_gkt.serving": logger, "uvicorn.error": logger},
    }


def log(event: str, **fields: Any) -> None:
    """Write one line of the log: what happened, and its facts, never content."""
    LOGGER.info(event, extra={"fields": fields})
