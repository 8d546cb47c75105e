"""The listener's records of a chat model's run, of its end, and of a chain call."""

from __future__ import annotations

import asyncio
import re
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from langchain_gkt.costs.totals import UsageTotals
from langchain_gkt.metadata import Mode, Role
from langchain_gkt.providers.limits import LIMIT_FIELDS

CHAIN_PROVIDER = "langchain-gkt"
"""``ls_provider`` of the guided chain's own runs."""

_RETRY_TAG = re.compile(r"retry:attempt:([2-9]|\d\d)")
# These clients retry by themselves by default.
_RETRYING_PROVIDERS = {"openai", "azure", "anthropic", "groq", "mistralai", "together", "fireworks"}


@dataclass(kw_only=True)
class ModelRun:
    """A run of the teacher, of the student, or of the chain itself.

    Attributes:
        parent_id: The run around it, apart from wrappers such as ``with_retry``.
        role: ``teacher`` or ``student``. None for a chain that is nobody's teacher.
        is_chain: Whether it is a run of the chain, whose usage is the sum of its models' runs.
        call_id: The chain call it belongs to. The text ``None`` if its metadata names none.
        model: The model's name in the request.
        limit: Maximum completion tokens of the request, if known.
        retry: Whether it repeats a failed attempt.
        retries_inside: Whether its client may retry without reporting it to callbacks.
        started_at: When it started, in seconds of `time.perf_counter`.
        first_chunk_at: When its first chunk arrived, if it streams. It may be empty.
        first_token_at: When the first chunk with text or a tool call arrived.
        response_model: The model's name in the response.
        tier: The service tier in the response.
        usages: Usage in the chunks of its stream.
    """

    run_id: UUID
    parent_id: UUID | None = None
    role: Role | None
    is_chain: bool = False
    call_id: str
    mode: Mode
    metadata: Mapping[str, Any]
    provider: str | None
    model: str
    base_url: str | None
    limit: int | None
    prompt_chars: int
    retry: bool
    retries_inside: bool
    started_at: float
    first_chunk_at: float | None = None
    first_token_at: float | None = None
    response_model: str | None = None
    tier: str | None = None
    usages: list[UsageMetadata] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        message: The reply. A partial one, or None, after an error.
        error: The error that ended it early, or None.
    """

    message: AIMessage | None
    usage: UsageMetadata | None
    seconds: float
    error: BaseException | None

    @property
    def failed(self) -> bool:
        """Whether the model failed. A reader that left or a cancelled task is not a failure."""
        return isinstance(self.error, Exception)


@dataclass(kw_only=True, eq=False)
class ChainCall:
    """One call of the chain, until the chain's run ends.

    Attributes:
        compared: Whether its bill is compared with that of the teacher alone.
        root: The chain's run. None if the teacher was asked outside of one.
        wrappers: Open runs of wrappers, such as ``with_retry``, each with the run around it.
        runs: Open runs of its models.
        spent: Sums of its ended runs, if its subscriber counts them.
        teacher: Its teacher's last run, likewise.
    """

    call_id: str
    compared: bool
    root: UUID | None = None
    wrappers: dict[UUID, UUID | None] = field(default_factory=dict)
    runs: set[UUID] = field(default_factory=set)
    spent: UsageTotals = field(default_factory=UsageTotals)
    teacher: ModelRun | None = None


def read_run(
    role: Role | None,
    serialized: dict[str, Any] | None,
    metadata: Mapping[str, Any],
    *,
    prompt_chars: int,
    run_id: UUID | None = None,
    tags: Sequence[str] = (),
    params: dict[str, Any] | None = None,
) -> ModelRun:
    """Read a run from its start event, whose arguments these are.

    Without a ``run_id`` it is a hypothetical run. ``params`` are the arguments of the model's call.
    """
    params, settings = params or {}, (serialized or {}).get("kwargs") or {}
    base_url = settings.get("openai_api_base") or settings.get("base_url") or params.get("base_url")
    limits = [params.get(name) for name in LIMIT_FIELDS] + [metadata.get("ls_max_tokens")]
    provider = metadata.get("ls_provider")
    return ModelRun(
        run_id=run_id or uuid4(),
        role=role,
        is_chain=provider == CHAIN_PROVIDER,
        call_id=str(metadata.get("gkt_call_id")),
        mode=metadata.get("gkt_mode", "guided"),
        metadata=metadata,
        provider=provider,
        model=metadata.get("ls_model_name") or "unknown",
        base_url=base_url if isinstance(base_url, str) else None,
        limit=next((limit for limit in limits if isinstance(limit, int)), None),
        prompt_chars=prompt_chars,
        retry=any(_RETRY_TAG.fullmatch(tag) for tag in tags),
        started_at=time.perf_counter(),
        retries_inside=provider in _RETRYING_PROVIDERS and settings.get("max_retries") != 0,
    )


class CancelledTaskMonitor:
    """Notices what a finished asyncio task left open, as a cancelled one does.

    langchain-core sends no event for a cancelled ``ainvoke``. A task gets a single callback,
    however much it opens, so that a long-lived task keeps nothing that was closed.
    """

    def __init__(
        self, on_left_open: Callable[[UUID | str, bool], None], lock: AbstractContextManager[Any]
    ) -> None:
        """Watch nothing yet.

        Args:
            on_left_open: Called with each run (its id) and each chain call (a string) that a task
                left open, and with whether the task was cancelled.
            lock: The owner's lock, which it holds around `start` and `end`.
        """
        self._on_left_open, self._lock = on_left_open, lock
        self._keys_of: weakref.WeakKeyDictionary[asyncio.Task[Any], set[UUID | str]] = (
            weakref.WeakKeyDictionary()
        )
        self._task_of: dict[UUID | str, weakref.ref[asyncio.Task[Any]]] = {}

    def start(self, key: UUID | str) -> None:
        """Watch a run or call that the current task opens, if there is a task."""
        try:
            task = asyncio.current_task()
        except RuntimeError:  # a thread without an event loop
            return
        if task is None:
            return
        if task not in self._keys_of:
            self._keys_of[task] = set()
            task.add_done_callback(self._done)
        self._keys_of[task].add(key)
        self._task_of[key] = weakref.ref(task)

    def end(self, key: UUID | str) -> None:
        """Forget a closed run or call."""
        ref = self._task_of.pop(key, None)
        task = ref() if ref else None
        if task is not None and task in self._keys_of:
            self._keys_of[task].discard(key)

    def _done(self, task: asyncio.Task[Any]) -> None:
        with self._lock:
            keys = self._keys_of.pop(task, set())
            for key in keys:
                self._task_of.pop(key, None)
        for key in sorted(keys, key=lambda key: isinstance(key, str)):  # runs before their calls
            self._on_left_open(key, task.cancelled())
