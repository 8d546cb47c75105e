"""An OpenAI-compatible HTTP server on 127.0.0.1 for one local model.

    python -m langchain_gkt.demo.server FOLDER --name NAME

It prints one line with its address and ends when its standard input does, so that it never
outlives the process that started it. Where a request names no temperature it decodes
greedily, so that the demo repeats; ``completion_tokens`` counts every token sampled, the
end-of-turn token included.
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
from langchain_gkt.students.engine.engine import Request as Generation
from langchain_gkt.students.huggingface import HuggingFaceStudent


class StreamOptions(BaseModel):
    """What to add to a stream."""

    include_usage: bool = False


class Body(BaseModel):
    """The part of the chat completions request that the server knows; the rest is ignored."""

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


class Chat:
    """Answers requests with one model."""

    def __init__(self, model: HuggingFaceStudent, name: str, latency: float) -> None:
        """Take a loaded model.

        Args:
            model: The model.
            name: What requests call it.
            latency: Seconds each request waits first: a stand-in for a network.
        """
        self.model, self.name, self.latency = model, name, latency
        self.active = 0
        self.generated = 0

    def prepare(self, body: Body) -> tuple[Engine, Generation]:
        """Tokenise a request.

        Args:
            body: The request.

        Returns:
            The engine and what it is to generate.

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

    async def pieces(self, engine: Engine, generation: Generation) -> AsyncIterator[TokenChunk]:
        """Generate; closing the iterator stops within one step."""
        self.active += 1
        try:
            await asyncio.sleep(self.latency)
            async with aclosing(engine.agenerate(generation)) as produced:
                async for piece in produced:
                    self.generated += 1
                    yield piece
        finally:
            self.active -= 1

    async def whole(
        self, engine: Engine, generation: Generation, request: Request
    ) -> list[TokenChunk]:
        """Generate everything, unless the client goes away."""

        async def work() -> list[TokenChunk]:
            await asyncio.sleep(self.latency)
            return [piece async for piece in engine.agenerate(generation, stream=False)]

        self.active += 1
        working = asyncio.create_task(work())
        try:
            while not (await asyncio.wait([working], timeout=0.1))[0]:
                if await request.is_disconnected():
                    return []
            return await working
        finally:
            working.cancel()
            self.active -= 1

    def usage(self, generation: Generation, piece: TokenChunk) -> dict[str, Any]:
        """Return the usage of a finished request, as the API words it."""
        prompt = len(generation.prompt) + len(generation.prefill)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": piece.tokens,
            "total_tokens": prompt + piece.tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
        }

    def envelope(self, kind: str) -> dict[str, Any]:
        """Return the fields that every reply carries."""
        created = int(time.time())
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": kind,
            "created": created,
            "model": self.name,
        }

    async def events(
        self, engine: Engine, generation: Generation, body: Body
    ) -> AsyncIterator[str]:
        """Yield the server-sent events of a stream."""
        base, usage = self.envelope("chat.completion.chunk"), None
        delta: dict[str, Any] = {"role": "assistant"}
        async for piece in self.pieces(engine, generation):
            delta["content"] = piece.text
            choice = {"index": 0, "delta": delta, "finish_reason": piece.finish_reason}
            yield _event({**base, "choices": [choice]})
            delta, usage = {}, self.usage(generation, piece)
        if body.stream_options.include_usage:
            yield _event({**base, "choices": [], "usage": usage})
        yield "data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _refuse(message: str) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error", "code": None}
    return JSONResponse({"error": error}, status_code=400)


def make_app(chat: Chat) -> FastAPI:
    """Build the app.

    Args:
        chat: What answers.

    Returns:
        An ASGI application.
    """
    app = FastAPI()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _refuse(
            "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        )

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "active": chat.active, "streamed_pieces": chat.generated}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": chat.name, "object": "model"}]}

    @app.post("/v1/chat/completions", response_model=None)
    async def complete(body: Body, request: Request) -> dict[str, Any] | Any:
        try:
            engine, generation = await run_in_threadpool(chat.prepare, body)
        except (ValueError, NotImplementedError) as error:
            return _refuse(str(error))
        if body.stream:
            events = chat.events(engine, generation, body)
            return StreamingResponse(events, media_type="text/event-stream")
        pieces = await chat.whole(engine, generation, request)
        if not pieces or pieces[-1].finish_reason is None:
            return _refuse("the client went away")
        last = pieces[-1]
        message = {"role": "assistant", "content": "".join(piece.text for piece in pieces)}
        choice = {"index": 0, "message": message, "finish_reason": last.finish_reason}
        usage = chat.usage(generation, last)
        return {**chat.envelope("chat.completion"), "choices": [choice], "usage": usage}

    return app


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)  # whatever is running: nobody is left to read it


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
    chat = Chat(
        HuggingFaceStudent(model=args.folder, dtype="float32"), args.name, args.latency_ms / 1000
    )
    listener = socket.socket()
    listener.bind(("127.0.0.1", args.port))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201
    server = uvicorn.Server(uvicorn.Config(make_app(chat), log_level="warning"))
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
