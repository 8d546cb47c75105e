"""RunListener: follows LangChain's callbacks and reports guided calls' runs to a subscriber."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, get_args
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import LLMResult
from typing_extensions import Self

from langchain_gkt.costs.runs.fork_safe_lock import ForkSafeLock
from langchain_gkt.costs.runs.model_runs import (
    CHAIN_PROVIDER,
    CancelledTaskMonitor,
    ChainCall,
    ModelRun,
    RunResult,
    read_run,
)
from langchain_gkt.costs.usage import message_of, text_length, usage_of
from langchain_gkt.metadata import Role
from langchain_gkt.providers.usage import repeated, service_tier

_ROLES = get_args(Role)
_OF_RUNS = ("_open", "_calls", "_roots", "_wrappers", "_tasks")
_MAX_OPEN = 40_000
"""Maximum open runs, and calls, to remember. Beyond it the oldest count as lost."""


class RunSubscriber(Protocol):
    """Receives the events of runs. May be called from any thread."""

    def run_started(self, run: ModelRun, messages: Sequence[BaseMessage]) -> None:
        """Handle the start of a run of a model or of the chain."""

    def run_ended(self, run: ModelRun, result: RunResult, call: ChainCall | None) -> None:
        """Handle the end of a run. Every run that started ends, once.

        ``call`` is the chain call it belongs to, if that has not ended.
        """

    def call_ended(self, call: ChainCall, message: AIMessage | None) -> None:
        """Handle the end of a chain call, with its answer if it has one."""


class RunListener(BaseCallbackHandler):
    """A callback handler that follows the runs of guided calls for a subscriber.

    Only a run's start event has its role, so the listener keeps the run until its end. If the
    asyncio task of a run or call is cancelled, there is no end event. The listener then ends it
    with its task.
    """

    run_inline = True  # the caller's context is known only in its own thread and task
    gkt_children = True

    def __init__(self, subscriber: RunSubscriber, lock: ForkSafeLock | None = None) -> None:
        """Listen for one subscriber, with the lock that it shares with the listener, if any."""
        self._subscriber = subscriber
        # Collecting a forgotten stream ends its run, perhaps in a thread that holds the lock.
        self._lock = lock or ForkSafeLock()
        self._start_runs()

    def _start_runs(self) -> None:
        self._open: OrderedDict[UUID, ModelRun] = OrderedDict()
        self._calls: OrderedDict[str, ChainCall] = OrderedDict()
        self._roots: dict[UUID, str] = {}
        self._wrappers: dict[UUID, ChainCall] = {}
        self._tasks = CancelledTaskMonitor(self._left_open, self._lock)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the counts. Open runs stay with their own process."""
        return {name: value for name, value in self.__dict__.items() if name not in _OF_RUNS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Continue listening in another process, or later."""
        self.__dict__.update(state)
        self._start_runs()

    # Handlers are given to models, which may be deep-copied. All copies listen together.
    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return this very handler."""
        return self

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember a wrapper, such as ``with_retry``, around a later run of a model."""
        if metadata and metadata.get("gkt_role") in _ROLES:
            with self._lock:
                call = self._call_of(metadata, parent_run_id)
                call.wrappers[run_id] = parent_run_id
                self._wrappers[run_id] = call

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a wrapper."""
        with self._lock:
            call = self._wrappers.pop(run_id, None)
            if call is not None:
                del call.wrappers[run_id]
                self._drop_if_rootless(call)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a wrapper that failed."""
        self.on_chain_end(None, run_id=run_id)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Sequence[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Open a run of a teacher, a student or a chain. Other runs are ignored."""
        metadata = metadata or {}
        role = metadata.get("gkt_role")
        if role not in _ROLES:
            role = None
            if metadata.get("ls_provider") != CHAIN_PROVIDER:
                return
        run = read_run(
            role,
            serialized,
            metadata,
            prompt_chars=sum(map(text_length, messages)),
            run_id=run_id,
            tags=tags or (),
            params=kwargs.get("invocation_params"),
        )
        with self._lock:
            if run_id in self._open:  # reported twice: from the config and from a block
                return
            run.parent_id = parent_run_id
            while run.parent_id in self._wrappers:
                run.parent_id = self._wrappers[run.parent_id].wrappers[run.parent_id]
            if not run.is_chain:  # its models' runs identify a chain's call
                self._call_of(metadata, parent_run_id).runs.add(run_id)
            self._open[run_id] = run
            self._tasks.start(run_id)
            lost = next(iter(self._open)) if len(self._open) > _MAX_OPEN else None
        self._subscriber.run_started(run, messages[0] if messages else [])
        if lost:
            self._lose(lost, GeneratorExit())

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note when a stream's first chunk and first token arrived."""
        run = self._open.get(run_id)
        if run is None:
            return
        message = getattr(kwargs.get("chunk"), "message", None)
        if usage := getattr(message, "usage_metadata", None):
            run.usages.append(usage)
        if run.first_token_at is not None:
            return
        now = time.perf_counter()
        if run.first_chunk_at is None:
            run.first_chunk_at = now
        if token or getattr(message, "tool_call_chunks", None):
            run.first_token_at = now

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """End a run that ended well, and with the chain's run its call."""
        self._end(run_id, response, None)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End a run that failed, or whose reader left."""
        self._end(run_id, kwargs.get("response"), error)

    def _end(self, run_id: UUID, response: Any, error: BaseException | None) -> None:
        ended_at = time.perf_counter()
        message = message_of(response)
        with self._lock:
            run = self._open.pop(run_id, None)
            self._tasks.end(run_id)
            call_id = self._roots.get(run_id)
            call = self._calls.get(run.call_id) if run else None
            if call is not None:
                call.runs.discard(run_id)
        if run is not None:
            if message is not None:
                said, llm_output = message.response_metadata, response.llm_output or {}
                run.response_model = said.get("model_name") or said.get("model") or None
                run.tier = service_tier(said, llm_output)
            result = RunResult(
                message=message,
                usage=_usage_of(run, response, message),
                seconds=ended_at - run.started_at,
                error=error,
            )
            self._subscriber.run_ended(run, result, None if run.is_chain else call)
        if error is None and message and call_id is None and (run is None or run.is_chain):
            # An answer from the cache has the id of the call that once made it.
            call_id = (message.response_metadata.get("gkt") or {}).get("call_id")
        if call_id is not None:
            with self._lock:
                call = self._calls.get(call_id)
                still_open = [child for child in call.runs if child in self._open] if call else []
            for child in still_open:  # a client failed after its run's end
                self._end(child, None, error or GeneratorExit())
            self._end_call(call_id, None if error else message)
        elif call is not None:
            with self._lock:
                self._drop_if_rootless(call)

    def _call_of(self, metadata: Mapping[str, Any], parent: UUID | None) -> ChainCall:
        """Return the chain call of a run. The caller holds the lock."""
        call_id = str(metadata.get("gkt_call_id"))
        call = self._calls.get(call_id)
        if call is None:
            call = ChainCall(call_id=call_id, compared=bool(metadata.get("gkt_compared")))
            self._calls[call_id] = call
            self._tasks.start(call_id)
            if len(self._calls) > _MAX_OPEN:
                self._end_call(next(iter(self._calls)), None)
        if parent is not None and call.root is None and parent not in call.wrappers:
            call.root = parent
            self._roots[parent] = call_id
        return call

    def _drop_if_rootless(self, call: ChainCall) -> None:
        """Forget the call of ``guide()``, which asked only the teacher and has no answer."""
        if call.root is None and not call.wrappers and self._calls.get(call.call_id) is call:
            del self._calls[call.call_id]
            self._tasks.end(call.call_id)

    def _end_call(self, call_id: str, message: AIMessage | None) -> None:
        with self._lock:
            call = self._calls.pop(call_id, None)
            self._tasks.end(call_id)
            if call is None:  # no model was asked, or this end came twice
                return
            if call.root is not None:
                self._roots.pop(call.root, None)
            for wrapper in call.wrappers:
                self._wrappers.pop(wrapper, None)
        self._subscriber.call_ended(call, message)

    def _left_open(self, key: UUID | str, cancelled: bool) -> None:
        """End what an asyncio task left open, if nobody else can end it."""
        if isinstance(key, str):
            # One task opens a chain call, and another task that awaits it ends it.
            if cancelled:
                self._end_call(key, None)
            return
        run = self._open.get(key)
        # Another task may continue reading a stream that has begun.
        if run is not None and (cancelled or run.first_chunk_at is None):
            self._lose(key, asyncio.CancelledError())
            parent = self._open.get(run.parent_id) if cancelled and run.parent_id else None
            if parent is not None:  # so was the chain, whose task may live on
                self._left_open(parent.run_id, True)

    def _lose(self, run_id: UUID, error: BaseException) -> None:
        """End a run that nobody will end, and whose bill is unknown."""
        run = self._open.get(run_id)
        if run is not None:
            self._end(run_id, None, error)
            if not run.is_chain:
                self._end_call(run.call_id, None)


def _usage_of(run: ModelRun, response: Any, message: AIMessage | None) -> UsageMetadata | None:
    if not isinstance(response, LLMResult):
        return None
    if message is not None and (usage := repeated(run.usages)):
        message = message.model_copy(update={"usage_metadata": usage})
    return usage_of(response, message)
