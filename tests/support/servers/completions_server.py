"""A server of the chat completions API on 127.0.0.1 whose answers a function makes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from langchain_core.messages import AIMessage, convert_to_messages, convert_to_openai_messages

from support.models.scripted import ToolTeacher


def tool_teacher_choice(body: dict[str, Any]) -> dict[str, Any]:
    """Answer a request as `ToolTeacher` would: the response's choice, with the usage."""
    tool_choice = body.get("tool_choice")
    if isinstance(tool_choice, dict):
        tool_choice = tool_choice["function"]["name"]
    teacher = ToolTeacher(max_tokens=body.get("max_completion_tokens"))
    given = {"tools": body.get("tools"), "tool_choice": tool_choice}
    messages = convert_to_messages(body["messages"])
    reply: AIMessage = teacher._reply(messages, body.get("stop"), given)
    usage = reply.usage_metadata
    message: Any = convert_to_openai_messages(reply)
    for call in reply.invalid_tool_calls:  # cut off by the token limit
        function = {"name": call["name"], "arguments": call["args"]}
        message["tool_calls"] = [{"id": call["id"], "type": "function", "function": function}]
    return {
        "message": message,
        "finish_reason": reply.response_metadata["finish_reason"],
        "usage": {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage["output_tokens"],
            "total_tokens": usage["total_tokens"],
        },
    }


class _Handler(BaseHTTPRequestHandler):
    make_choice: Any = staticmethod(tool_teacher_choice)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            choice = self.make_choice(body)
        except ValueError as error:
            refusal = {"error": {"message": str(error), "type": "invalid_request_error"}}
            self._send(400, "application/json", json.dumps(refusal))
            return
        common = {"id": "1", "created": 1, "model": body["model"]}
        if body.get("stream"):
            chunks = [
                {**common, "object": "chat.completion.chunk", "choices": choices}
                for choices in _streamed_choices(choice)
            ]
            chunks[-1]["usage"] = choice["usage"]
            events = [*map(json.dumps, chunks), "[DONE]"]
            self._send(200, "text/event-stream", "".join(f"data: {event}\n\n" for event in events))
            return
        usage = choice.pop("usage")
        whole = {"object": "chat.completion", "choices": [{"index": 0, **choice}], "usage": usage}
        self._send(200, "application/json", json.dumps({**common, **whole}))

    def _send(self, status: int, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def _streamed_choices(choice: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the choices of each chunk; the last chunk has none, for the usage."""
    message = choice["message"]
    calls = message.get("tool_calls", [])
    deltas: list[dict[str, Any]] = [
        *({"role": "assistant", "content": character} for character in message["content"]),
        *({"tool_calls": [{"index": i, **call}]} for i, call in enumerate(calls)),
    ]
    last = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    return [
        *([{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas),
        [last],
        [],
    ]


@contextmanager
def completions_server(make_choice: Any = tool_teacher_choice) -> Iterator[str]:
    """Run the server and give its base URL.

    `make_choice` gets the body of a request. It returns the message, the finish reason and the
    usage, or raises a ValueError to refuse the request.
    """
    handler = type("Handler", (_Handler,), {"make_choice": staticmethod(make_choice)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
