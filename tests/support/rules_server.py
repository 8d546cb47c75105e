"""`ToolTeacher`, or another teacher, behind the chat completions API on 127.0.0.1."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from langchain_core.messages import AIMessage, convert_to_messages, convert_to_openai_messages

from support.scripted import ToolTeacher


def completion(body: dict[str, Any]) -> dict[str, Any]:
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        choice = choice["function"]["name"]
    teacher = ToolTeacher(max_tokens=body.get("max_completion_tokens"))
    given = {"tools": body.get("tools"), "tool_choice": choice}
    reply: AIMessage = teacher._reply(
        convert_to_messages(body["messages"]), body.get("stop"), given
    )
    usage = reply.usage_metadata
    message: Any = convert_to_openai_messages(reply)
    for call in reply.invalid_tool_calls:  # cut by the limit
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


class Handler(BaseHTTPRequestHandler):
    complete: Any = staticmethod(completion)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            done = self.complete(body)
        except ValueError as error:
            told = json.dumps({"error": {"message": str(error), "type": "invalid_request_error"}})
            self.send_response(400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told.encode())
            return
        base = {"id": "1", "created": 1, "model": body["model"]}
        finish = {"index": 0, "finish_reason": done["finish_reason"]}
        self.send_response(200)
        if body.get("stream"):
            deltas = [{"role": "assistant", "content": c} for c in done["message"]["content"]]
            calls = done["message"].get("tool_calls", [])
            deltas += [{"tool_calls": [{"index": i, **call}]} for i, call in enumerate(calls)]
            choices = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
            choices += [[{**finish, "delta": {}}], []]
            events = [{**base, "object": "chat.completion.chunk", "choices": c} for c in choices]
            events[-1]["usage"] = done["usage"]
            data = (
                "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
            )
            kind = "text/event-stream"
        else:
            choice = {**finish, "message": done["message"], "logprobs": done.get("logprobs")}
            whole = {"object": "chat.completion", "choices": [choice], "usage": done["usage"]}
            data, kind = json.dumps({**base, **whole}), "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data.encode())))
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def rules_server(complete: Any = completion) -> Iterator[str]:
    """Run the server and give its base URL; `complete` answers the requests' bodies."""
    handler = type("Answering", (Handler,), {"complete": staticmethod(complete)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
