"""Ends the runs of an abandoned model, and keeps it from reporting them.

A model that is abandoned in a thread continues for a while. Abandoning it ends its runs for every
handler. Its later reports reach nobody, and stop it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.callbacks.manager import (
    AsyncCallbackManagerForChainRun,
    CallbackManagerForChainRun,
)
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_callback_manager_for_config

from langchain_gkt.teachers.wrappers import models_of


class Abandoned(BaseException):
    """Ends a model that nobody waits for. No retry and no handler catches it."""


# By whether the run is a model's, and whether an event loop awaits its handlers.
_MANAGERS: dict[tuple[bool, bool], Any] = {
    (True, False): CallbackManagerForLLMRun,
    (True, True): AsyncCallbackManagerForLLMRun,
    (False, False): CallbackManagerForChainRun,
    (False, True): AsyncCallbackManagerForChainRun,
}


class RunGuard(BaseCallbackHandler):
    """The first handler of a model's runs. It knows which are open, and can end them all."""

    run_inline = True

    def __init__(self) -> None:
        """Guard nothing yet."""
        self._lock = threading.Lock()
        self._open: dict[UUID, tuple[bool, dict[str, Any]]] = {}
        self._abandoned = False
        self._handlers: list[BaseCallbackHandler] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> RunGuard:
        """Return this very handler, because models may be deep-copied with their handlers."""
        return self

    def added_to(self, config: RunnableConfig, model: Runnable[Any, Any]) -> RunnableConfig:
        """Return the config of a model's run with this handler before all others."""
        manager = get_callback_manager_for_config(config).copy()
        heard = CallbackManager.configure(manager)
        for inner_model in _models(model):
            heard = CallbackManager.configure(heard, inner_model.callbacks)
        self._handlers = heard.handlers
        manager.handlers = [self, *manager.handlers]
        manager.inheritable_handlers = [self, *manager.inheritable_handlers]
        return {**config, "callbacks": manager}

    def abandon(self) -> None:
        """Cut all handlers off from these runs. The next event ends the model."""
        with self._lock:
            self._abandoned = True

    def end_runs(self, error: BaseException, chunks: Sequence[Any] = ()) -> None:
        """Abandon the model, and report to all handlers that its runs failed after these chunks."""
        for is_model, manager in self._take_open(asynchronous=False):
            if is_model:
                manager.on_llm_error(error, **_partial(chunks))
            else:
                manager.on_chain_error(error)

    async def aend_runs(self, error: BaseException, chunks: Sequence[Any] = ()) -> None:
        """Do what `end_runs` does, on the event loop."""
        for is_model, manager in self._take_open(asynchronous=True):
            if is_model:
                await manager.on_llm_error(error, **_partial(chunks))
            else:
                await manager.on_chain_error(error)

    def _take_open(self, *, asynchronous: bool) -> list[tuple[bool, Any]]:
        with self._lock:
            self._abandoned = True
            runs = list(reversed(self._open.values()))  # the innermost first
            self._open.clear()
        return [(is_model, _MANAGERS[is_model, asynchronous](**run)) for is_model, run in runs]

    def _start(self, kwargs: dict[str, Any], *, is_model: bool) -> None:
        with self._lock:
            self._refuse_abandoned()
            run = {
                "run_id": kwargs["run_id"],
                "handlers": self._handlers,
                "inheritable_handlers": self._handlers,
                "parent_run_id": kwargs.get("parent_run_id"),
                "tags": list(kwargs.get("tags") or ()),
                "metadata": dict(kwargs.get("metadata") or {}),
            }
            self._open[kwargs["run_id"]] = (is_model, run)

    def _refuse_abandoned(self) -> None:
        if self._abandoned:
            raise Abandoned

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        """Note the start of a model's run."""
        self._start(kwargs, is_model=True)

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        """Note the start of the run of a wrapper, such as ``with_retry``."""
        self._start(kwargs, is_model=False)

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        """Stop an abandoned model that still streams."""
        with self._lock:
            self._refuse_abandoned()

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        """Forget a run that has ended, badly or well. An error may come with a ``response``."""
        with self._lock:
            self._refuse_abandoned()
            self._open.pop(kwargs["run_id"], None)

    on_llm_start: Any = on_chat_model_start
    on_llm_end: Any = on_llm_error
    on_chain_end: Any = on_llm_error
    on_chain_error: Any = on_llm_error


def _models(model: Runnable[Any, Any]) -> list[Any]:
    try:
        return list(models_of(model))
    except TypeError:  # ``bind_tools`` may give any Runnable
        return []


def _partial(chunks: Sequence[Any]) -> dict[str, Any]:
    """Return what langchain-core reports to a handler of a truncated reply."""
    message_chunks = [chunk for chunk in chunks if isinstance(chunk, AIMessageChunk)]
    if not message_chunks:
        return {"response": LLMResult(generations=[])}
    whole = reduce(add, message_chunks)
    return {"response": LLMResult(generations=[[ChatGenerationChunk(message=whole)]])}
