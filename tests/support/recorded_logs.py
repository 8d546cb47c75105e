"""Logs of recorded answers in the forms of several providers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration

from langchain_gkt import (
    RecordedTeacher,
)
from support.models.exam import solution

QUESTION = "What is one more than 11?"
ANSWER = solution(11)
TOKENS = len(ANSWER.split())
REASONED: Any = {"output_token_details": {"reasoning": 2}}
APPROXIMATE = "ignore:.*cut approximately:UserWarning"


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def tokens_of(text: str) -> dict[str, Any]:
    parts = text.split(" ")
    words = [parts[0], *(f" {part}" for part in parts[1:])]
    return {"content": [{"token": t, "bytes": list(t.encode()), "logprob": -0.1} for t in words]}


def completion(text: str, **choice: Any) -> dict[str, Any]:
    return {
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
                "logprobs": tokens_of(text),
                **choice,
            }
        ],
        "usage": {
            "prompt_tokens": 20,
            "completion_tokens": TOKENS + 1,
            "total_tokens": 21 + TOKENS,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    }


def result(name: str, text: str = ANSWER, **choice: Any) -> dict[str, Any]:
    body = completion(text, **choice)
    return {"custom_id": name, "response": {"status_code": 200, "body": body}, "error": None}


def request(name: str, question: str) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": question}]
    return {"custom_id": name, "method": "POST", "body": {"model": "m", "messages": messages}}


def run(question: str, text: str) -> dict[str, Any]:
    """A run as the tracer of LangChain writes it."""
    message = AIMessage(
        text,
        usage_metadata={"input_tokens": 20, "output_tokens": 16, "total_tokens": 36},
        response_metadata={
            "finish_reason": "stop",
            "model_name": "gpt-4o-mini",
            "logprobs": tokens_of(text),
        },
    )
    asked = [SystemMessage("Be short."), HumanMessage(question)]
    generation = ChatGeneration(message=message).model_dump() | {"message": message.to_json()}
    return {
        "id": "0190",
        "run_type": "llm",
        "inputs": {"messages": [[m.to_json() for m in asked]]},
        "outputs": {"generations": [[generation]], "llm_output": None},
        "extra": {"metadata": {"ls_provider": "openai", "ls_model_name": "gpt-4o-mini"}},
    }


def load_batch(path: Path, *results: Any, requests: Any = None, **fields: Any) -> RecordedTeacher:
    wanted = [request("a", QUESTION)] if requests is None else requests
    return RecordedTeacher.from_file(
        write_lines(path / "results.jsonl", *results),
        requests=write_lines(path / "requests.jsonl", *wanted),
        **fields,
    )
