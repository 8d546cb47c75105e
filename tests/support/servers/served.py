"""An ASGI application on a real socket, in a thread of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from langchain_gkt.serving.run import bind, server_config


@contextmanager
def served(app: Any, **options: Any) -> Iterator[str]:
    """Serve during the block; yield the address for an OpenAI client."""
    listener = bind("127.0.0.1", 0)
    options = {"read_seconds": 30.0, **options}
    server = uvicorn.Server(server_config(app, log_config=None, **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
