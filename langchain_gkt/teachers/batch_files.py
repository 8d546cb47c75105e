"""Files of OpenAI's batch endpoint: writes requests, and reads their results.

Other providers take the same files. Such requests cost about half, and return within a day.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from langchain_core.messages import AIMessage

from langchain_gkt.errors import ConfigurationError
from langchain_gkt.teachers.recorded.exports import from_completion
from langchain_gkt.teachers.recorded.files import read_requests, read_rows
from langchain_gkt.teachers.recorded.recordings import BadRow, first_few

ENDPOINT = "/v1/chat/completions"
"""The URL of a batch's requests. Also the ``endpoint`` of ``client.batches.create``."""
MAX_REQUESTS, MAX_BYTES = 50_000, 200_000_000
"""The limits of one file."""
_UNBILLED = ("batch_expired", "batch_cancelled")


def write_requests(path: str | Path, bodies: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Path]:
    """Write requests to a batch file, and to further ones if there are too many.

    Args:
        path: The first file. The others have the same name with a number.
        bodies: The ``custom_id`` of each request, all different, and its body.

    Raises:
        ConfigurationError: If a file already exists, or the path is not writable.
    """
    first, files = Path(path), list[Path]()
    count = size = 0
    with ExitStack() as opened:
        for name, body in bodies:
            request = {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body}
            line = json.dumps(request).encode() + b"\n"
            if not files or count == MAX_REQUESTS or size + len(line) > MAX_BYTES:
                opened.close()
                number = f"-{len(files) + 1}" if files else ""
                files.append(first.with_name(f"{first.stem}{number}{first.suffix}"))
                out, count, size = opened.enter_context(_created(files[-1])), 0, 0
            out.write(line)
            count, size = count + 1, size + len(line)
    return files


def _created(path: Path) -> IO[bytes]:
    try:
        return open(path, "xb")
    except FileExistsError as error:
        raise ConfigurationError(
            f"path={str(path)!r} is there already, and may have been sent",
            hint="name another file, or remove that one",
        ) from error


@dataclass(frozen=True, kw_only=True)
class BatchReply:
    """One answered request."""

    name: str  # its custom_id
    bill: str  # a name that no other billed reply has
    message: AIMessage


@dataclass(frozen=True, kw_only=True)
class BatchResults:
    """The results of a batch. Requests are named by their ``custom_id``."""

    requests: Mapping[str, Mapping[str, Any]]  # the sent bodies
    replies: tuple[BatchReply, ...] = ()  # every one that is billed, in the files' order
    failed: Mapping[str, str] = field(default_factory=dict)  # requests, and why they failed
    maybe_billed: frozenset[str] = frozenset()  # failed requests that may have been billed
    repeated: tuple[str, ...] = ()
    """Requests with more than one answer. Each id is billed, the first answer is used."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Requests with neither an answer nor an error."""
        known = {reply.name for reply in self.replies} | set(self.failed)
        return tuple(name for name in self.requests if name not in known)

    def notes(self) -> list[str]:
        """Describe what is missing or wrong in the results. Empty if nothing is."""
        failed = [f"{name} ({why})" for name, why in self.failed.items()]
        groups = (
            (self.missing, "have neither an answer nor an error in the result file"),
            (failed, "failed"),
            (self.repeated, "were answered more than once: each id is billed, the first used"),
        )
        return [
            f"{len(names)} of {len(self.requests)} requests {words}: {first_few(names)}"
            for names, words in groups
            if names
        ]


def read_results(
    results: str | Path | Sequence[str | Path], requests: str | Path | Sequence[str | Path]
) -> BatchResults:
    """Read the results of a batch.

    Args:
        results: The output file. With the error file, if there is one.
        requests: The files that you sent.

    Raises:
        ConfigurationError: If a file has another form, or a result answers no request.
    """
    sent = read_requests(_paths(requests), lambda body: body)
    replies, failed, maybe_billed = dict[str, BatchReply](), dict[str, str](), set[str]()
    answered = dict[str, bool]()  # whether more than once

    def read(row: Any, place: str) -> None:
        name = _name(row, sent)
        why, billed = _failure(row)
        if why:
            failed[name] = why
            maybe_billed.update([name] if billed else [])
            return
        body = row["response"].get("body") or {}
        bill = str(row.get("id") or row["response"].get("request_id") or body.get("id") or name)
        if bill in replies and replies[bill].name != name:  # ids that name nothing
            bill = f"{bill}:{name}"
        reply = BatchReply(name=name, bill=bill, message=from_completion(body))
        answered[name] = name in answered
        replies.setdefault(bill, reply)  # the same line may come twice

    hint = "give the output file of the batch that was made of these requests"
    read_rows(_paths(results), read, hint)
    return BatchResults(
        requests=sent,
        replies=tuple(replies.values()),
        # Others were tried again with success.
        failed={name: why for name, why in failed.items() if name not in answered},
        maybe_billed=frozenset(maybe_billed),
        repeated=tuple(name for name, is_repeated in answered.items() if is_repeated),
    )


def _paths(files: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]


def _name(row: Any, sent: Mapping[str, Any]) -> str:
    if not isinstance(row, dict) or "custom_id" not in row or not {"response", "error"} & set(row):
        raise BadRow("is no result of a batch: it holds no custom_id and response")
    name = str(row["custom_id"])
    if name not in sent:
        raise BadRow(f"answers custom_id {name!r}, which the requests do not hold")
    return name


def _failure(row: Mapping[str, Any]) -> tuple[str, bool]:
    """Return why a request failed, empty if it did not, and whether it may have been billed."""
    response, error = row.get("response") or {}, row.get("error")
    status = response.get("status_code", 200)
    if not error and status == 200 and response:
        return "", False
    reason = error or (response.get("body") or {}).get("error") or f"status {status}"
    code = reason.get("code") if isinstance(reason, dict) else None
    text = str(reason.get("message") or code) if isinstance(reason, dict) else str(reason)
    return text[:80] or "no reason given", not 400 <= status < 500 and code not in _UNBILLED
