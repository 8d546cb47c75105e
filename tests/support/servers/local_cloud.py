"""The demo's server in a thread: in a process of its own it would load torch again."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache

from langchain_gkt import HuggingFaceStudent
from langchain_gkt.demo.cloud import LocalCloud
from langchain_gkt.demo.server import ChatCompletionService, build_app
from support.servers.served import served


class ThreadCloud(LocalCloud):
    """A `LocalCloud` that is the same application on a real socket of this process."""

    def start(self) -> ThreadCloud:
        model = _load(str(self.folder), self.dtype)
        service = ChatCompletionService(model, self.name, self.latency_ms / 1000)
        self._running = ExitStack()
        self._url = self._running.enter_context(served(build_app(service)))
        return self

    def stop(self) -> None:
        self._running.close()

    @property
    def base_url(self) -> str:
        return self._url


@cache
def _load(folder: str, dtype: str) -> HuggingFaceStudent:
    return HuggingFaceStudent(model=folder, dtype=dtype)
