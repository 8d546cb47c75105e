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
from langchain_core.messages import convert_to_messages
from pydantic import BaseModel, Field, model_validator
from starlette.concurrency import run_in_threadpool

from langchain_gkt.students.engine.engine import Engine, TokenChunk
from langchain_gkt.students.engine.engine import Request as EngineRequest
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

    def tokenize(self, body: ChatCompletionRequest) -> tuple[Engine, EngineRequest]:
        """Check a request and tokenize it.

        Args:
            body: The request.

        Returns:
            The engine, and the request in its form.

        Raises:
            ValueError: If the request cannot be answered; the message says why.
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
        limit = body.max_completion_tokens or body.max_tokens
        arguments = {"temperature": body.temperature, "top_p": body.top_p, "seed": body.seed}
        stop = [body.stop] if isinstance(body.stop, str) else body.stop
        return self.model._request(messages, stop, {"max_tokens": limit, **arguments})

    async def stream(self, engine: Engine, request: EngineRequest) -> AsyncIterator[TokenChunk]:
        """Generate chunk by chunk; closing the iterator stops the generation in one step."""
        self.active_requests += 1
        try:
            await asyncio.sleep(self.latency)
            async with aclosing(engine.agenerate(request)) as produced:
                async for chunk in produced:
                    self.streamed_chunks += 1
                    yield chunk
        finally:
            self.active_requests -= 1

    async def generate(
        self, engine: Engine, request: EngineRequest, connection: Request
    ) -> list[TokenChunk]:
        """Generate the whole answer; return nothing if the client disconnects before its end."""

        async def work() -> list[TokenChunk]:
            await asyncio.sleep(self.latency)
            return [chunk async for chunk in engine.agenerate(request, stream=False)]

        self.active_requests += 1
        working = asyncio.create_task(work())
        try:
            while not (await asyncio.wait([working], timeout=0.1))[0]:
                if await connection.is_disconnected():
                    return []
            return await working
        finally:
            working.cancel()
            self.active_requests -= 1

    def usage(self, request: EngineRequest, last: TokenChunk) -> dict[str, Any]:
        """Return the usage of a finished request, in the fields of the API."""
        prompt = len(request.prompt) + len(request.prefill)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": last.tokens,
            "total_tokens": prompt + last.tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
        }

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
        self, engine: Engine, request: EngineRequest, body: ChatCompletionRequest
    ) -> AsyncIterator[str]:
        """Yield the server-sent events of a streamed response."""
        base, usage = self.common_fields("chat.completion.chunk"), None
        delta: dict[str, Any] = {"role": "assistant"}
        async for chunk in self.stream(engine, request):
            delta["content"] = chunk.text
            choice = {"index": 0, "delta": delta, "finish_reason": chunk.finish_reason}
            yield _event({**base, "choices": [choice]})
            delta, usage = {}, self.usage(request, chunk)
        if body.stream_options.include_usage:
            yield _event({**base, "choices": [], "usage": usage})
        yield "data: [DONE]\n\n"


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
            engine, request = await run_in_threadpool(service.tokenize, body)
        except (ValueError, NotImplementedError) as error:
            return _bad_request(str(error))
        if body.stream:
            events = service.stream_events(engine, request, body)
            return StreamingResponse(events, media_type="text/event-stream")
        chunks = await service.generate(engine, request, connection)
        if not chunks or chunks[-1].finish_reason is None:
            return _bad_request("the client went away")
        last = chunks[-1]
        message = {"role": "assistant", "content": "".join(chunk.text for chunk in chunks)}
        choice = {"index": 0, "message": message, "finish_reason": last.finish_reason}
        usage = service.usage(request, last)
        return {**service.common_fields("chat.completion"), "choices": [choice], "usage": usage}

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
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    service = ChatCompletionService(
        HuggingFaceStudent(model=args.folder, dtype="float32"), args.name, args.latency_ms / 1000
    )
    listener = socket.socket()
    listener.bind(("127.0.0.1", args.port))
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201
    server = uvicorn.Server(uvicorn.Config(build_app(service), log_level="warning"))
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
