"""An OpenAI-compatible HTTP server on 127.0.0.1 for one local model.

    python -m langchain_gkt.demo.server FOLDER --name NAME

It prints one line with its address. It ends when its standard input ends, so that it never
outlives the process that started it. A request without a temperature is decoded greedily, so
that the demo gives the same answers each time. ``completion_tokens`` counts every token sampled,
the end-of-turn token included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Literal

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from langchain_core.messages import AIMessage, AIMessageChunk, convert_to_messages
from langchain_core.messages.ai import UsageMetadata
from pydantic import BaseModel, Field, model_validator
from starlette.concurrency import run_in_threadpool

from langchain_gkt.students.generation import Generation
from langchain_gkt.students.huggingface import HuggingFaceStudent


class StreamOptions(BaseModel):
    """What a stream holds besides the text."""

    include_usage: bool = False


class ChatCompletionRequest(BaseModel):
    """The fields of a chat completions request that the server knows; others are ignored."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    n: Literal[1] = 1
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    continue_final_message: bool = False
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        # The API lets every optional field be null, which means its default.
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}


class ChatCompletionService:
    """Answers chat completions requests with one model."""

    def __init__(self, model: HuggingFaceStudent, name: str, latency: float) -> None:
        """Take a loaded model.

        Args:
            model: The model.
            name: What requests call it.
            latency: Seconds that each request waits first, as a network would make it.
        """
        self.model, self.name, self.latency = model, name, latency
        self.active_requests = 0
        self.streamed_chunks = 0

    def prepare(self, body: ChatCompletionRequest) -> Generation:
        """Check a request and tokenize it.

        Args:
            body: The request.

        Returns:
            What generates the answer.

        Raises:
            ValueError: If the request cannot be answered; the message says why.
            NotImplementedError: If it offers tools that the model's template has no place for.
        """
        if body.model != self.name:
            raise ValueError(f"model {body.model!r} does not exist; this server has {self.name!r}")
        try:
            messages = convert_to_messages(body.messages)
        except KeyError as error:
            raise ValueError(f"messages hold one without its field {error}; add it") from error
        if messages[-1].type == "ai" and not body.continue_final_message:
            raise ValueError(
                "messages end with an assistant message; set continue_final_message to continue it"
            )
        if body.continue_final_message and messages[-1].type != "ai":
            raise ValueError("continue_final_message needs messages that end with an assistant's")
        if body.tools and not self.model.knows_tools:
            raise NotImplementedError(
                f"tools: the chat template of model {self.name!r} has no place for them; "
                "leave them out, or serve a model that was trained to call tools"
            )
        arguments = {
            "max_tokens": body.max_completion_tokens or body.max_tokens,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "seed": body.seed,
            "tools": body.tools,
            "tool_choice": body.tool_choice,
        }
        stop = [body.stop] if isinstance(body.stop, str) else body.stop
        return self.model._generation(messages, stop, arguments)

    async def stream(self, generation: Generation) -> AsyncIterator[AIMessageChunk]:
        """Generate chunk by chunk; closing the iterator stops the generation in one step."""
        self.active_requests += 1
        try:
            await asyncio.sleep(self.latency)
            async with aclosing(generation.astream()) as produced:
                async for chunk in produced:
                    self.streamed_chunks += 1
                    assert isinstance(chunk.message, AIMessageChunk)
                    yield chunk.message
        finally:
            self.active_requests -= 1

    async def generate(self, generation: Generation, connection: Request) -> AIMessage | None:
        """Generate the whole answer; return nothing if the client disconnects before its end."""

        async def work() -> Any:
            await asyncio.sleep(self.latency)
            return (await generation.aresult()).generations[0].message

        self.active_requests += 1
        working = asyncio.create_task(work())
        try:
            while not (await asyncio.wait([working], timeout=0.1))[0]:
                if await connection.is_disconnected():
                    return None
            answer: AIMessage = await working
            return answer
        finally:
            working.cancel()
            self.active_requests -= 1

    def common_fields(self, kind: str) -> dict[str, Any]:
        """Return the fields that every response has."""
        created = int(time.time())
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": kind,
            "created": created,
            "model": self.name,
        }

    async def stream_events(
        self, generation: Generation, body: ChatCompletionRequest
    ) -> AsyncIterator[str]:
        """Yield the server-sent events of a streamed response."""
        base, usage = self.common_fields("chat.completion.chunk"), None
        delta: dict[str, Any] = {"role": "assistant"}
        async for chunk in self.stream(generation):
            delta["content"] = chunk.text
            if chunk.tool_call_chunks:
                delta["tool_calls"] = [
                    {"index": index, **_tool_call(call["id"], call["name"], call["args"])}
                    for index, call in enumerate(chunk.tool_call_chunks)
                ]
            reason = chunk.response_metadata.get("finish_reason")
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            yield _event({**base, "choices": [choice]})
            delta, usage = {}, chunk.usage_metadata
        if body.stream_options.include_usage and usage:
            yield _event({**base, "choices": [], "usage": _usage(usage)})
        yield "data: [DONE]\n\n"


def _usage(usage: UsageMetadata) -> dict[str, Any]:
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def _tool_call(call_id: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _assistant(answer: AIMessage) -> dict[str, Any]:
    calls = [_tool_call(c["id"], c["name"], json.dumps(c["args"])) for c in answer.tool_calls]
    calls += [_tool_call(c["id"], c["name"], c["args"]) for c in answer.invalid_tool_calls]
    message = {"role": "assistant", "content": str(answer.text) or (None if calls else "")}
    return {**message, "tool_calls": calls} if calls else message


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _bad_request(message: str) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error", "code": None}
    return JSONResponse({"error": error}, status_code=400)


def build_app(service: ChatCompletionService) -> FastAPI:
    """Build the web application.

    Args:
        service: What answers the requests.

    Returns:
        An ASGI application.
    """
    app = FastAPI()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _bad_request(
            "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        )

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "active": service.active_requests,
            "streamed_chunks": service.streamed_chunks,
        }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": service.name, "object": "model"}]}

    @app.post("/v1/chat/completions", response_model=None)
    async def chat_completions(
        body: ChatCompletionRequest, connection: Request
    ) -> dict[str, Any] | Any:
        try:
            generation = await run_in_threadpool(service.prepare, body)
        except (ValueError, NotImplementedError) as error:
            return _bad_request(str(error))
        if body.stream:
            events = service.stream_events(generation, body)
            return StreamingResponse(events, media_type="text/event-stream")
        answer = await service.generate(generation, connection)
        if answer is None or answer.usage_metadata is None:
            return _bad_request("the client went away")
        reason = answer.response_metadata["finish_reason"]
        choice = {"index": 0, "message": _assistant(answer), "finish_reason": reason}
        common = service.common_fields("chat.completion")
        return {**common, "choices": [choice], "usage": _usage(answer.usage_metadata)}

    return app


def _exit_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)  # whatever still runs: nobody will read it


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="Serve one local model on 127.0.0.1.")
    parser.add_argument("folder")
    parser.add_argument("--name", default="demo-teacher")
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--dtype", default="float32", help="as for HuggingFaceStudent")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    service = ChatCompletionService(
        HuggingFaceStudent(model=args.folder, dtype=args.dtype), args.name, args.latency_ms / 1000
    )
    listener = socket.socket()
    listener.bind(("127.0.0.1", args.port))
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201
    server = uvicorn.Server(uvicorn.Config(build_app(service), log_level="warning"))
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
