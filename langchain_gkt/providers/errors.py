"""Reads errors of any provider's client by their shape: what happened, and what to do."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime

from langchain_gkt.errors import BudgetExceeded, ConfigurationError, GKTError, TeacherError

# No request reached the provider, so nothing can have been billed.
_NEVER_SENT = {
    "ConnectError",
    "ConnectTimeout",
    "ConnectionRefusedError",
    "PoolTimeout",
    "UnicodeEncodeError",
    "UnsupportedProtocol",
    "gaierror",
}
# Clients' functions that write a request. A failure inside them precedes sending.
_WRITES_REQUEST = {
    "_build_request",  # the clients of openai, anthropic and groq
    "_chat_params",
    "_convert_message_to_dict",
    "_create_message_dicts",
    "_get_request_payload",
    "_messages_to_bedrock",
    "_prepare_request",
    "build_request",  # httpx
    "convert_message_to_dict",
}
# Errors of clients that fail on a reply they do not understand.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
_TRY_AGAIN = "try again with with_retry(), or name another teacher with with_fallbacks()"
_WITHOUT = "set on_teacher_error='student' to go on without guidance"

_OF_STATUS = {
    401: "the provider refuses the key: check the api_key of {who} (often an environment variable) "
    "and that its base_url belongs to that key",
    402: "the provider wants to be paid: add credit to the account of {who}",
    403: "the key is known but may not do this: give its project access to the model, or choose "
    "another model for {who}",
    404: "the provider knows no such model or address: check the model and the base_url of {who}",
    413: "the prompt is too big for the provider: shorten the messages, or show {who} less of them "
    "with teacher_prompt=LastTurns(...)",
}
_QUOTA = {"insufficient_quota", "billing_hard_limit_reached"}
_TOO_LONG = {"context_length_exceeded", "string_above_max_length"}
_RETRYABLE = {408, 409, 423, 425, 429}


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, each once.

    Not its ``__context__``, which may be an older error that the caller was handling.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of a provider's answer, from its client's error or the error's cause.

    None if there was no answer. A reply that could not be read has the status 200.
    """
    for cause in causes(error):
        response = getattr(cause, "response", None)
        for status in (getattr(cause, "status_code", None), getattr(response, "status_code", None)):
            if isinstance(status, int):
                return status
    return None


def may_have_billed(error: BaseException) -> bool:
    """Whether a provider may have billed a failed call.

    False if the provider answered with an HTTP error, was never reached, or the client could not
    even write its request. True for a reply that could not be read, a broken connection, a timeout,
    and a reader that left.
    """
    if (status := status_of(error)) is not None:
        return 200 <= status < 300
    failed = [cause for cause in causes(error) if isinstance(cause, Exception)]
    return not any(type(cause).__name__ in _NEVER_SENT or _in_writing(cause) for cause in failed)


def _in_writing(error: Exception) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name in _WRITES_REQUEST for frame, _ in frames)


def retry_after(error: BaseException) -> float | None:
    """Return the seconds, 0 or more, after which a provider wants a retry.

    They come from the header ``Retry-After``. None if it has no readable value.
    """
    for cause in causes(error):
        headers = getattr(getattr(cause, "response", None), "headers", None)
        if not isinstance(headers, Mapping):
            continue
        header = str(headers.get("retry-after") or "")
        try:
            return max(0.0, float(header)) if float(header) < float("inf") else None
        except ValueError:
            pass  # it may be a date
        try:
            return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
        except (ValueError, TypeError, OverflowError):
            continue
    return None


def teacher_error(error: Exception) -> GKTError:
    """Make the error to raise for a failed teacher call. The package's own stay as they are."""
    if isinstance(error, TeacherError | BudgetExceeded | ConfigurationError):
        return error
    return provider_error(error, TeacherError, "teacher")


def provider_error(error: Exception, kind: type[GKTError], who: str) -> GKTError:
    """Make an error of the package from one of a client. The caller sets its ``__cause__``.

    Args:
        error: The client's error.
        kind: The class of the error to make.
        who: ``teacher`` or ``student``.
    """
    status = status_of(error)
    hint, retryable = _advice(error, status, who)
    alone = f"; or {_WITHOUT}" if who == "teacher" else ""
    gkt_error = kind(
        f"the {who}'s call failed: {type(error).__name__}: {error}",
        hint=f"{hint}{alone}",
        retryable=retryable,
        status=status,
    )
    gkt_error.retry_after = retry_after(error)
    return gkt_error


def _advice(error: Exception, status: int | None, who: str) -> tuple[str, bool]:
    """Return what to do about an error, and whether the same call may succeed later."""
    names = {cls.__name__ for cause in causes(error) for cls in type(cause).__mro__}
    codes = {str(getattr(cause, "code", None)) for cause in causes(error)}
    after = retry_after(error)
    wait = "" if after is None else f"in {after:.0f} seconds (Retry-After) "
    if codes & _QUOTA:
        return f"the quota of the account is used up: {_OF_STATUS[402].format(who=who)}", False
    if codes & _TOO_LONG:
        return _OF_STATUS[413].format(who=who), False
    if status == 429:
        return (
            f"the provider limits the rate: try again {wait}with with_retry(), ask fewer questions "
            "at the same time (max_concurrency), or have the limit raised"
        ), True
    if status in _OF_STATUS:
        return _OF_STATUS[status].format(who=who), False
    if any("Timeout" in name for name in names):
        return (
            f"no answer came in time: give the {who} more time (its timeout), ask it for less "
            f"(guidance_tokens), or {_TRY_AGAIN}"
        ), True
    if status is not None and (status >= 500 or status in _RETRYABLE):
        return f"the provider failed by itself: {_TRY_AGAIN} {wait}".rstrip(), True
    if status is not None and 300 <= status < 400:
        return f"the address has moved: give the {who} the new base_url", False
    if status is not None and status >= 400:
        return (
            f"the provider refuses the request: check the arguments of the {who}, and its limit's "
            "name (teacher_limit_param)"
        ), False
    if names & _NEVER_SENT:
        return (
            f"the provider cannot be reached: check that {who} is reachable (its base_url, the "
            f"network, a proxy), or {_TRY_AGAIN}"
        ), True
    if any("Connection" in name or "ProtocolError" in name for name in names):
        return (
            f"the connection broke, and the call may have been billed: check that {who} is "
            f"reachable, or {_TRY_AGAIN}"
        ), True
    if status is not None or isinstance(error, _UNREADABLE):
        broken = bool(names & {"JSONDecodeError", "UnicodeDecodeError"})
        return (
            "the reply cannot be read, and may have been billed: check that the base_url of the "
            f"{who} is an API of the kind its client speaks and that no proxy answers in its "
            f"place, or {_TRY_AGAIN}"
        ), broken
    return (
        f"check that {who} is reachable and its key valid, or wrap it with with_retry() or "
        "with_fallbacks()"
    ), False
