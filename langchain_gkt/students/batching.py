"""Batches: how many inputs run at the same time, in threads that Ctrl-C can leave.

LangChain's own default depends on the machine's cores, and would leave most of the engine's batch
empty. Its threads keep an interrupted program waiting until all of them have ended.
"""

from __future__ import annotations

import os
import threading
from abc import ABC
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from langchain_core.runnables.config import RunnableConfig, get_config_list, merge_configs

from langchain_gkt.errors import field_errors
from langchain_gkt.pickling import PortableChatModel

T = TypeVar("T")


class InterruptibleChatModel(PortableChatModel, ABC):
    """A chat model whose ``batch`` ends at once when the program is interrupted.

    Wrong arguments raise errors of the package.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the fields. One that is unknown or makes no sense is a ConfigurationError."""
        with field_errors():
            super().__init__(*args, **kwargs)

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Answer several inputs side by side. ``max_concurrency`` of the first config counts."""
        if not inputs:
            return []
        configs = get_config_list(config, len(inputs))

        def ask(index: int) -> Any:
            try:
                return self.invoke(inputs[index], configs[index], **kwargs)
            except Exception as error:
                if return_exceptions:
                    return error
                raise

        if len(inputs) == 1:
            return [ask(0)]
        return run_batch(ask, len(inputs), configs[0].get("max_concurrency"))


def run_batch(work: Callable[[int], T], count: int, most: int | None = None) -> list[T]:
    """Run tasks side by side, in threads that do not keep an interrupted program waiting.

    Args:
        work: Does the task of a number.
        count: How many there are.
        most: Maximum number of threads. None for the default of `concurrent.futures`.

    Raises:
        BaseException: The first that a task raised. No further task begins, and running ones are
            waited for. An interruption of the caller is raised at once. What runs then continues,
            and its results are dropped.
    """
    todo, taking, is_over = iter(range(count)), threading.Lock(), threading.Event()
    results: dict[int, T] = {}
    failures: dict[int, BaseException] = {}
    context = copy_context()

    def serve() -> None:
        while not is_over.is_set():
            with taking:
                index = next(todo, None)
            if index is None:
                return
            try:
                results[index] = context.copy().run(work, index)
            except BaseException as error:  # noqa: BLE001  raised again where it is waited for
                is_over.set()
                failures[index] = error

    size = min(count, most or min(32, (os.cpu_count() or 1) + 4))
    threads = [threading.Thread(target=serve, name="gkt-batch", daemon=True) for _ in range(size)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        is_over.set()
        raise
    if failures:
        raise failures[min(failures)]
    return [results[index] for index in range(count)]


def with_max_concurrency(
    config: RunnableConfig | list[RunnableConfig] | None, count: int, limit: int
) -> list[RunnableConfig]:
    """Return one config per input, with this ``max_concurrency`` unless it sets its own."""
    default = RunnableConfig(max_concurrency=max(1, min(count, limit)))
    configs = config if isinstance(config, list) else [config or RunnableConfig()] * count
    return [
        merge_configs(default, per_input) if per_input.get("max_concurrency") is None else per_input
        for per_input in configs
    ]
