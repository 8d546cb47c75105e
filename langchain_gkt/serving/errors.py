"""Errors in the form of OpenAI's API."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse

from langchain_gkt.errors import BudgetExceeded, StudentError, TeacherError
from langchain_gkt.providers.errors import status_of

_REFUSED = (400, 413, 422)
"""Statuses of a provider that finds fault with the request, which no retry mends."""
_NO_RETRY = {"x-should-retry": "false"}  # OpenAI's clients would ask again, for nothing


class APIError(Exception):
    """An error that a client is told.

    Attributes:
        status: The HTTP status.
        message: What is wrong, and what to do.
        kind: OpenAI's ``type`` of error.
        code: OpenAI's code, or one of our own.
        param: The field that is wrong, if it is one.
        headers: Headers of the response.
    """

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
        """Take the fields; see the class."""
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind
        self.code, self.param, self.headers = code, param, dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The body of the response."""
        found = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": found}

    def response(self) -> JSONResponse:
        """Return the response."""
        return JSONResponse(self.body, self.status, self.headers)


def as_api_error(error: BaseException) -> APIError:
    """Say to a client what an exception means.

    Args:
        error: What the chain or the web framework raised.

    Returns:
        The error. A provider's own message is kept from clients: it may name keys and addresses.
    """
    if isinstance(error, APIError):
        return error
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, BudgetExceeded):
        message = f"the budget does not allow this request: {error}"
        return APIError(
            429, message, kind="insufficient_quota", code="insufficient_quota", headers=_NO_RETRY
        )
    if isinstance(error, TeacherError):
        cause = error.__cause__
        why = f" ({type(cause).__name__})" if cause else f": {error}"
        if status_of(error) in _REFUSED:
            message = f"the teacher refuses this request{why}: it may be too long for it, or hold "
            message += "what it does not take, such as tools or an assistant message to continue; "
            message += "change the request, or ask the student's model"
            return APIError(400, message, code="teacher_refused")
        wait = _retry_after(error.retry_after)
        if status_of(error) == 429 and error.retryable:
            message = f"the teacher's provider limits the rate{why}; try again later, or ask the "
            message += "student's model"
            kind, code = "rate_limit_error", "teacher_rate_limited"
            return APIError(429, message, kind=kind, code=code, headers=wait)
        message = f"the teacher's call failed{why}; try again, or ask who runs this server"
        return APIError(502, message, kind="api_error", code="teacher_error", headers=wait)
    if isinstance(error, StudentError):
        return APIError(
            503, f"the student cannot answer: {error}", kind="api_error", code="student_error"
        )
    if isinstance(error, ValueError | TypeError | NotImplementedError):
        return APIError(400, str(error))
    return APIError(
        500,
        f"the server failed ({type(error).__name__}); its log has more under the request id",
        kind="api_error",
        code="internal_error",
    )


def _retry_after(seconds: float | None) -> dict[str, str]:
    """Pass on when a provider wants to be asked again: OpenAI's clients wait for it."""
    return {} if seconds is None else {"Retry-After": str(math.ceil(seconds))}


def _of_validation(error: RequestValidationError) -> APIError:
    found: list[str] = []
    param = None
    for one in error.errors():
        place = ".".join(str(part) for part in one["loc"] if part != "body")
        message = str(one.get("ctx", {}).get("error") or one["msg"])
        if one["type"] == "json_invalid":
            place, message = "", f"the body is no JSON: {message}"
        elif one["type"] == "model_attributes_type":
            place, message = "", "the body must be a JSON object, sent as application/json"
        param = param or place or None
        found.append(f"{place}: {message}" if place else message)
    return APIError(400, "; ".join(found), param=param)
