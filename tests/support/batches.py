"""A stand-in for the batch endpoint: it reads a request file and writes a result file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

_REQUEST = TypeAdapter(CompletionCreateParamsNonStreaming)


def completion(
    body: dict[str, Any], text: str = "It is 7.", finish: str = "length", **usage: Any
) -> dict[str, Any]:
    """Answer a request as OpenAI would; both are checked against the types of its client."""
    _REQUEST.validate_python(body, strict=False, extra="forbid")
    used = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, **usage}
    made = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": f"{body['model']}-2024-07-18",
        "usage": used,
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "logprobs": None,
                "message": {"role": "assistant", "content": text, "refusal": None},
            }
        ],
    }
    return ChatCompletion.model_validate(made).model_dump(mode="json")


def result(request: dict[str, Any], number: int, **body: Any) -> dict[str, Any]:
    """Answer one line of a request file."""
    assert (request["method"], request["url"]) == ("POST", "/v1/chat/completions")
    answer = completion(request["body"], **body)
    return {
        "id": f"batch_req_{number}",
        "custom_id": request["custom_id"],
        "response": {"status_code": 200, "request_id": f"req_{number}", "body": answer},
        "error": None,
    }


def failed(request: dict[str, Any], *, status: int = 400, code: str | None = None) -> Any:
    """Fail one line of a request file."""
    error = {"code": code, "message": f"failed with {code or status}"}
    response = None if code else {"status_code": status, "body": {"error": error}}
    return {
        "id": f"batch_req_failed_{status}",
        "custom_id": request["custom_id"],
        "response": response,
        "error": error if code else None,
    }


def run_batch(requests: Path, results: Path, answer: Callable[[int, Any], list[Any]]) -> None:
    """Answer a file: ``answer`` gives the result lines of each request."""
    rows = [json.loads(line) for line in requests.read_text().splitlines()]
    lines = [line for number, row in enumerate(rows) for line in answer(number, row)]
    results.write_text("".join(json.dumps(line) + "\n" for line in lines))
