"""A server of chat completions that answers too slowly, or never to the end."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SLOW = ("drip", "comments", "silence", "half")
"""A byte of the body at a time; SSE comments for ever; nothing; a few chunks, then nothing."""


class SlowServer:
    """A server on 127.0.0.1, as a context manager; leaving it ends every reply."""

    def __init__(self, how: str, *, step: float = 0.05) -> None:
        self.how, self.step = how, step
        self.asked = 0
        self.over = threading.Event()

    def __enter__(self) -> SlowServer:
        outer = self

        class Handler(_Handler):
            slow = outer

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._http.shutdown()
        self._thread.join(5)
        self._http.server_close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    slow: SlowServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        one = self.slow
        one.asked += 1
        self.close_connection = True
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        streams = bool(body.get("stream"))
        try:
            if one.how == "silence":
                one.over.wait(30)
                return
            kind = "text/event-stream" if streams else "application/json"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Connection", "close")
            self.end_headers()
            if streams and one.how != "comments":
                for text in ("", "First we ", "add "):
                    self._send(f"data: {json.dumps(_chunk(text))}\n\n")
            if one.how == "half":
                one.over.wait(30)
                return
            until = time.monotonic() + 30
            while not one.over.wait(one.step) and time.monotonic() < until:
                self._send(": wait\n\n" if streams else " ")
        except (BrokenPipeError, ConnectionResetError):
            return  # the reader left

    def _send(self, text: str) -> None:
        self.wfile.write(text.encode())
        self.wfile.flush()


def _chunk(text: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "slow-1",
        "choices": [choice],
    }
