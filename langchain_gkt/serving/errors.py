"""Errors in the form of OpenAI's API."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from langchain_gkt.errors import BudgetExceeded, GKTError, StudentError, TeacherError, explain
from langchain_gkt.providers.errors import causes, status_of
from langchain_gkt.serving.api.fields import FieldError
from langchain_gkt.serving.api.schema import ChatCompletionRequest

_REFUSED = (400, 413, 422)
"""Statuses of a provider that rejects the request, which no retry fixes."""
NO_RETRY = {"x-should-retry": "false"}
"""Headers of an error for which OpenAI's clients would retry in vain."""

_PATHS = "POST /v1/chat/completions and /v1/responses, GET /v1/models, /health and /metrics"
# Libraries link to their own pages, and errors of clients name addresses of servers.
_ADDRESS = re.compile(
    r"\s*(?:\bFor (?:further information|troubleshooting)\W*visit:?\s*)?\bhttps?://[^\s'\")]+", re.I
)
_TOO_LONG = re.compile(
    r"context_length_exceeded|string_above_max_length|maximum context length|"
    r"context (?:length|window|size)|(?:prompt|input) is too long|too many (?:input )?tokens|"
    r"(?:input|prompt) token count",
    re.I,
)
_TOO_LONG_FOR_STUDENT = re.compile(r"tokens.* but the student's (?:context holds|encoder reads)")
# A message of the chain begins with the argument that it is about.
_FIELD = re.compile(r"([a-z][a-z0-9_]*)(?:\[\d+\]|\.[a-z_]+)*(?=[ :=.])")
# Pydantic's words for Python's types, in the words of JSON.
_WORDS = {
    "Field required": "is missing",
    "Input should be": "must be",
    " or object to extract fields from": "",
    "a valid string": "a text",
    "a valid dictionary": "an object",
    "a valid list": "a list",
    "List should have at least 1 item after validation, not 0": "must not be empty",
}


class APIError(Exception):
    """An error that is reported to a client, with OpenAI's ``type`` (``kind``), code and param."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take the fields. See the class."""
        super().__init__(message := _ADDRESS.sub("", message))
        self.status, self.message, self.kind = status, message, kind
        self.code, self.param, self.headers = code, param, dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The body of the response."""
        fields = {"message": self.message, "type": self.kind}
        return {"error": {**fields, "param": self.param, "code": self.code}}

    def renamed(self, names: Mapping[str, str]) -> APIError:
        """Rename the field from the chain's name to the API's."""
        for old, new in names.items():
            if self.param and re.match(rf"{old}\b", self.param):
                self.message = re.sub(rf"^{old}[^\s:=]*", new, self.message)
                self.param = new
        return self

    def response(self) -> Response:
        """Return the response."""
        # A message may quote half a character, which only ASCII can encode.
        text = json.dumps(self.body)
        return Response(text, self.status, self.headers, media_type="application/json")


def as_api_error(error: BaseException) -> APIError:
    """Turn an exception into an error for a client.

    Clients do not see a provider's own message, which may name keys and addresses.
    """
    if isinstance(error, APIError):
        return error
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, HTTPException):
        return _of_http(error)
    if isinstance(error, FieldError):
        return APIError(400, str(error), param=error.field)
    if isinstance(error, RecursionError):
        return APIError(400, "the body is nested too deeply; send fewer levels")
    if isinstance(error, BudgetExceeded):
        message = f"the budget does not allow this request: {error}"
        return APIError(
            429, message, kind="insufficient_quota", code="insufficient_quota", headers=NO_RETRY
        )
    if isinstance(error, TeacherError):
        return _of_teacher(error)
    if _is_too_long(error):
        return _too_long(_public(error))
    if isinstance(error, StudentError):
        cause = error.__cause__
        why = f" ({type(cause).__name__})" if cause else f": {error}"
        message = f"the student cannot answer{why}; try again, or ask who runs this server"
        return APIError(503, message, kind="api_error", code="student_error")
    if isinstance(error, ValueError | TypeError | NotImplementedError):
        message = _public(error)
        return APIError(400, message, param=_param(message))
    return APIError(
        500,
        f"the server failed ({type(error).__name__}); its log has more under the request id",
        kind="api_error",
        code="internal_error",
    )


def _of_teacher(error: TeacherError) -> APIError:
    cause = error.__cause__
    why = f" ({type(cause).__name__})" if cause else f": {error}"
    if status_of(error) in _REFUSED and _is_too_long(error):
        message = f"the messages are too long for the teacher{why}; shorten them, or ask the "
        return _too_long(f"{message}student's model")
    if status_of(error) in _REFUSED:
        return APIError(
            400,
            f"the teacher refuses this request{why}: it may hold what it does not take, such as "
            "tools or an assistant message to continue; change the request, or ask the student's "
            "model",
            code="teacher_refused",
        )
    # OpenAI's clients wait for as long as the provider says.
    after = error.retry_after
    wait = {} if after is None else {"Retry-After": str(math.ceil(after))}
    if status_of(error) == 429 and error.retryable:
        message = f"the teacher's provider limits the rate{why}; try again later, or ask the "
        kind, code = "rate_limit_error", "teacher_rate_limited"
        return APIError(429, f"{message}student's model", kind=kind, code=code, headers=wait)
    message = f"the teacher's call failed{why}; try again, or ask who runs this server"
    return APIError(502, message, kind="api_error", code="teacher_error", headers=wait)


def _is_too_long(error: BaseException) -> bool:
    for cause in causes(error):
        if isinstance(cause, GKTError | ValueError):
            if _TOO_LONG_FOR_STUDENT.search(str(cause)):
                return True
        elif _TOO_LONG.search(f"{getattr(cause, 'code', '')} {cause}"):
            return True
    return False


def _too_long(message: str) -> APIError:
    return APIError(400, message, code="context_length_exceeded", param="messages")


def _public(error: BaseException) -> str:
    """Return an error's text, without that of a library behind it."""
    for cause in causes(error):
        if isinstance(cause, ValidationError):
            return explain(cause)
    return str(error)


def _param(message: str) -> str | None:
    """Return the field of the request that a message begins with."""
    match = _FIELD.match(message)
    return match[0] if match and match[1] in ChatCompletionRequest.model_fields else None


def _of_http(error: HTTPException) -> APIError:
    """Turn the web framework's complaint about a path, method or body into an error."""
    headers = error.headers
    if error.status_code == 404:
        return APIError(404, f"this path is not known; this server has {_PATHS}", code="not_found")
    if error.status_code == 405:
        message = f"this path does not take this method; this server has {_PATHS}"
        return APIError(405, message, code="method_not_allowed", headers=headers)
    cause = error.__cause__
    if isinstance(cause, UnicodeError):
        message = "the body is no JSON: it is not UTF-8; send it in that encoding, uncompressed"
    elif isinstance(cause, RecursionError):
        message = "the body is nested too deeply; send fewer levels"
    elif cause is not None:  # a number with thousands of digits
        message = f"the body is no JSON: {str(cause).partition(';')[0]}"
    else:
        message = str(error.detail)
    return APIError(error.status_code, message, headers=headers)


def _of_validation(error: RequestValidationError) -> APIError:
    problems: dict[str, str] = {}
    for detail in error.errors():
        place, message = _place(detail["loc"][1:], error.body), detail["msg"]
        cause = detail.get("ctx", {}).get("error")
        if detail["type"] == "json_invalid":
            place, message = "", f"the body is no JSON: {cause}"
        elif isinstance(cause, FieldError):
            place, message = cause.field, str(cause)
        elif cause is not None:
            message = str(cause)
        elif not place:
            message = "the body must be a JSON object, sent as application/json"
        else:
            for theirs, ours in _WORDS.items():
                message = message.replace(theirs, ours)
            message = f"{place}: {message}"
            if place in problems:  # another kind of value that the field allows
                message = f"{problems[place]}, or {message.removeprefix(f'{place}: must be ')}"
        problems[place] = message
    return APIError(400, "; ".join(problems.values()), param=next(iter(problems)) or None)


def _place(path: Sequence[str | int], body: Any) -> str:
    """Return the place of a value in a body. Pydantic's path also names kinds of values."""
    place, value = "", body
    for depth, part in enumerate(path):
        is_missing = isinstance(value, dict) and depth == len(path) - 1
        if isinstance(value, list) and isinstance(part, int):
            value, place = value[part], f"{place}[{part}]"
        elif isinstance(value, dict) and (part in value or is_missing):
            value, place = value.get(str(part)), f"{place}.{part}"
    return place.removeprefix(".")
