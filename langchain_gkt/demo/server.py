"""An OpenAI-compatible HTTP server on 127.0.0.1 for one local model.

    python -m langchain_gkt.demo.server FOLDER --name NAME

It prints one line with its address. It ends when its standard input ends, so that it never outlives
the process that started it. A request without a temperature is decoded greedily, so that the demo
gives the same answers each time. ``completion_tokens`` counts every sampled token, including the
end-of-turn token.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from langchain_core.messages import AIMessage, AIMessageChunk
from starlette.concurrency import run_in_threadpool

from langchain_gkt.serving.api.chat_completions import ChatAnswer
from langchain_gkt.serving.api.schema import ChatCompletionRequest
from langchain_gkt.serving.errors import APIError, as_api_error
from langchain_gkt.students.generation import Generation
from langchain_gkt.students.huggingface import HuggingFaceStudent


class ChatCompletionService:
    """Answers chat completions requests with one model."""

    def __init__(self, model: HuggingFaceStudent, name: str, latency: float) -> None:
        """Take a loaded model, its name in requests, and the seconds that each waits first."""
        self.model, self.name, self.latency = model, name, latency
        self.active_requests = 0
        self.streamed_chunks = 0

    def prepare(self, body: ChatCompletionRequest) -> Generation:
        """Check a request and tokenize it. Raises an error that says why it cannot be answered."""
        if body.model != self.name:
            raise ValueError(f"model {body.model!r} does not exist; this server has {self.name!r}")
        if body.tools and not self.model.knows_tools:
            raise NotImplementedError(
                f"tools: the chat template of model {self.name!r} has no place for them; "
                "leave them out, or serve a model that was trained to call tools"
            )
        arguments = {
            "max_tokens": body.limit,
            "temperature": body.temperature or 0.0,
            "top_p": body.top_p or 1.0,
            "seed": body.seed,
            "tools": body.tools,
            "tool_choice": body.tool_choice,
        }
        return self.model._generation(body.conversation, body.stop, arguments)

    async def stream(self, generation: Generation) -> AsyncIterator[AIMessageChunk]:
        """Generate chunk by chunk. Closing the iterator stops the generation in one step."""
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
        """Generate the whole answer. Return None if the client disconnects before its end."""

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

    async def stream_events(
        self, generation: Generation, body: ChatCompletionRequest
    ) -> AsyncIterator[str]:
        """Yield the server-sent events of a streamed response."""
        form = ChatAnswer(self.name, include_usage=body.includes_usage)
        last = AIMessageChunk(content="")
        events = form.begin()
        async for last in self.stream(generation):
            for event in (*events, *form.more(last)):
                yield event
            events = iter(())
        for event in form.end(_billed(last), None):
            yield event


def _billed(answer: Any) -> Any:
    """Leave out cached tokens. They have a discount, and a bill must not depend on the past."""
    usage = answer.usage_metadata and {**answer.usage_metadata, "input_token_details": {}}
    return answer.model_copy(update={"usage_metadata": usage})


def build_app(service: ChatCompletionService) -> FastAPI:
    """Build the web application.

    Args:
        service: Answers the requests.

    Returns:
        An ASGI application.
    """
    app = FastAPI()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return as_api_error(error).response()

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
            return as_api_error(error).response()
        if body.stream:
            events = service.stream_events(generation, body)
            return StreamingResponse(events, media_type="text/event-stream")
        answer = await service.generate(generation, connection)
        if answer is None or answer.usage_metadata is None:
            return APIError(400, "the client went away").response()
        return ChatAnswer(service.name, include_usage=False).whole(_billed(answer), None)

    return app


def _exit_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)  # whatever still runs, nobody will read it


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="Serve one local model on 127.0.0.1.")
    parser.add_argument("folder")
    parser.add_argument("--name", default="demo-teacher")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--dtype", default="float32", help="as for HuggingFaceStudent")
    args = parser.parse_args()
    torch.set_num_threads(1)
    service = ChatCompletionService(
        HuggingFaceStudent(model=args.folder, dtype=args.dtype), args.name, args.latency_ms / 1000
    )
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # so that nobody who reads the address is refused
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)  # noqa: T201
    server = uvicorn.Server(uvicorn.Config(build_app(service), log_level="warning"))
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
