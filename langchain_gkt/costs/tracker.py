"""CostTracker: listens to callbacks and counts tokens, seconds and money by role."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.context import register_configure_hook

from langchain_gkt.costs.prices import FREE, Money, Price, check_price, price_call
from langchain_gkt.costs.report import CostReport, Counts, Estimate


@dataclass(frozen=True, kw_only=True)
class CallRecord:
    """One model call, kept where ``keep_calls`` is set.

    Attributes:
        role: ``teacher`` or ``student``.
        model: The model's name.
        call_id: The chain call it belongs to.
        mode: The chain's mode in that call.
        usage: Usage metadata, or None where none was reported.
        seconds: Time between start and end.
        error: What it failed with, or None.
    """

    role: str
    model: str
    call_id: str
    mode: str
    usage: UsageMetadata | None
    seconds: float
    error: str | None = None


@dataclass(kw_only=True)
class _OpenRun:
    role: str
    call_id: str
    mode: str
    provider: str | None
    model: str
    base_url: str | None
    started: float


@dataclass(kw_only=True)
class _GuidedCall:
    """What the models' runs of one guided call came to, until the chain's run ends."""

    spent: Counts = field(default_factory=Counts)
    teacher: _OpenRun | None = None


class CostTracker(BaseCallbackHandler):
    """Counts what the teacher and the student of guided calls use, and what it costs.

    Give it as ``config={"callbacks": [tracker]}``, to the chain's constructor, or use
    `track_costs`. It may listen to several chains and threads at once.
    """

    run_inline = True
    gkt_children = True

    def __init__(
        self,
        *,
        teacher_price: Price | str | None = None,
        student_price: Price | str | None = None,
        keep_calls: bool = False,
    ) -> None:
        """Start at zero.

        Args:
            teacher_price: What the teacher costs, or a model that genai-prices knows, such as
                ``openai:gpt-4o-mini``; None to look up the model that was called.
            student_price: What the student costs; None for free.
            keep_calls: Keep a record of each call in `calls`. Memory then grows with them.

        Raises:
            TypeError: If a price is neither a `Price` nor a model reference.
        """
        check_price(teacher_price, "teacher_price")
        check_price(student_price, "student_price")
        self._prices = {
            "teacher": teacher_price,
            "student": FREE if student_price is None else student_price,
        }
        # Collecting a forgotten stream ends its run, perhaps in a thread that holds the lock.
        self._lock = threading.RLock()
        self._open: dict[UUID, _OpenRun] = {}
        self._guided: dict[str, _GuidedCall] = {}
        self._parents: dict[UUID, str] = {}
        self._counts = {"teacher": Counts(), "student": Counts()}
        self._estimate = Estimate()
        self._keep = keep_calls
        self.calls: list[CallRecord] = []

    # Handlers are given to models, which may be deep-copied: all copies count together.
    def __deepcopy__(self, memo: dict[int, Any]) -> CostTracker:
        """Return this very tracker."""
        return self

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember the role of a teacher's or student's run."""
        metadata = metadata or {}
        role = metadata.get("gkt_role")
        if role not in self._counts:
            return
        params = kwargs.get("invocation_params") or {}
        given = (serialized or {}).get("kwargs") or {}
        base_url = given.get("openai_api_base") or given.get("base_url") or params.get("base_url")
        run = _OpenRun(
            role=role,
            call_id=str(metadata.get("gkt_call_id")),
            mode=metadata.get("gkt_mode", "guided"),
            provider=metadata.get("ls_provider"),
            model=metadata.get("ls_model_name") or "unknown",
            base_url=base_url if isinstance(base_url, str) else None,
            started=time.perf_counter(),
        )
        with self._lock:
            self._open.setdefault(run_id, run)
            if run.mode == "guided" and (parent := kwargs.get("parent_run_id")):
                self._parents[parent] = run.call_id

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Count a run that ended well."""
        self._end(run_id, _message(response), None)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Count a run that failed, or one whose reader went away: it was paid for all the same."""
        response = kwargs.get("response")
        message = _message(response) if isinstance(response, LLMResult) else None
        self._end(run_id, message, error)

    def _end(self, run_id: UUID, message: AIMessage | None, error: BaseException | None) -> None:
        ended = time.perf_counter()
        with self._lock:
            run = self._open.pop(run_id, None)
        # A chain, even as another's teacher: its own models' runs are what is counted.
        if error is None and message is not None and "gkt" in message.response_metadata:
            self._end_of_guided_call(message)
            self._forget(run_id)
            return
        if run is None:
            self._forget(run_id)
            return
        usage = message.usage_metadata if message else None
        if message:
            named = message.response_metadata
            run.model = str(named.get("model_name") or named.get("model") or run.model)
        seconds = ended - run.started
        one = Counts(calls=1, seconds=seconds)
        # A reader that went away or a cancelled task is no failure of the model.
        failed = isinstance(error, Exception)
        if failed and not usage:
            one.failed_calls = 1
        elif _from_cache(usage):
            one.cache_hits = 1
        elif usage:
            _add_usage(one, usage, self._price(run, usage))
        else:
            one.unreported_calls = 1
        with self._lock:
            _add(self._counts[run.role], one)
            if run.mode == "guided":
                call = self._guided.setdefault(run.call_id, _GuidedCall())
                _add(call.spent, one)
                if run.role == "teacher":
                    call.teacher = run
            if self._keep:
                self.calls.append(
                    CallRecord(
                        role=run.role,
                        model=run.model,
                        call_id=run.call_id,
                        mode=run.mode,
                        usage=usage,
                        seconds=seconds,
                        error=repr(error) if failed else None,
                    )
                )

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a wrapper, such as with_retry, that a teacher's run was inside of."""
        with self._lock:
            self._parents.pop(run_id, None)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a wrapper that failed."""
        with self._lock:
            self._parents.pop(run_id, None)

    def _forget(self, run_id: UUID) -> None:
        """Drop what is left of a chain's call; one that broke has no estimate."""
        with self._lock:
            call_id = self._parents.pop(run_id, None)
            if call_id is not None and self._guided.pop(call_id, None) is not None:
                self._estimate.not_estimated_calls += 1

    def _price(self, run: _OpenRun, usage: UsageMetadata) -> Money:
        return price_call(
            self._prices[run.role],
            usage,
            provider=run.provider,
            model=run.model,
            base_url=run.base_url,
        )

    def _end_of_guided_call(self, message: AIMessage) -> None:
        """Add a guided call to the teacher-only estimate."""
        gkt = message.response_metadata["gkt"]
        with self._lock:
            call = self._guided.pop(str(gkt.get("call_id")), None)
        if call is None:  # another mode, an answer from the cache, or heard twice
            return
        usage = gkt.get("teacher_usage")
        alone = None
        measurable = usage and call.teacher and not _from_cache(usage)
        if measurable and not call.spent.unreported_calls:
            alone = _teacher_only(gkt, usage, len(str(message.text)))
        if alone is None or call.teacher is None:
            with self._lock:
                self._estimate.not_estimated_calls += 1
            return
        one = Counts(calls=1)
        _add_usage(one, alone, self._price(call.teacher, alone))
        with self._lock:
            self._estimate.calls += 1
            _add(self._estimate.counts, one)
            _add(self._estimate.guided, call.spent)

    def report(self) -> CostReport:
        """Return what was counted so far; calls may still be running."""
        with self._lock:
            return CostReport(
                teacher=copy.deepcopy(self._counts["teacher"]),
                student=copy.deepcopy(self._counts["student"]),
                estimate=copy.deepcopy(self._estimate),
                running=len(self._open),
            )


class _FanOut(BaseCallbackHandler):
    """The one handler of a context; it feeds every tracker whose block encloses the call."""

    run_inline = True
    gkt_children = True

    def __init__(self, trackers: tuple[CostTracker, ...]) -> None:
        self.trackers = trackers

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        for tracker in self.trackers:
            tracker.on_chat_model_start(*args, **kwargs)

    def on_chain_end(self, *args: Any, **kwargs: Any) -> None:
        for tracker in self.trackers:
            tracker.on_chain_end(*args, **kwargs)

    def on_chain_error(self, *args: Any, **kwargs: Any) -> None:
        for tracker in self.trackers:
            tracker.on_chain_error(*args, **kwargs)

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        for tracker in self.trackers:
            tracker.on_llm_end(*args, **kwargs)

    def on_llm_error(self, *args: Any, **kwargs: Any) -> None:
        for tracker in self.trackers:
            tracker.on_llm_error(*args, **kwargs)


_active: ContextVar[_FanOut | None] = ContextVar("langchain_gkt_costs", default=None)
register_configure_hook(_active, inheritable=True)


@contextmanager
def track_costs(
    *,
    teacher_price: Price | str | None = None,
    student_price: Price | str | None = None,
    keep_calls: bool = False,
) -> Iterator[CostTracker]:
    """Count what guided calls inside the block use and cost. Blocks nest.

    Args:
        teacher_price: As for `CostTracker`.
        student_price: As for `CostTracker`.
        keep_calls: As for `CostTracker`.

    Yields:
        The tracker; ask it for a ``report()``.
    """
    tracker = CostTracker(
        teacher_price=teacher_price, student_price=student_price, keep_calls=keep_calls
    )
    outer = _active.get()
    token = _active.set(_FanOut((*(outer.trackers if outer else ()), tracker)))
    try:
        yield tracker
    finally:
        _active.reset(token)


def _message(response: LLMResult) -> AIMessage | None:
    """Return the reply in a result; a partial one comes first after an early end."""
    for generations in response.generations:
        for generation in generations:
            if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
                return generation.message
    return None


def _from_cache(usage: Any) -> bool:
    # How langchain-core marks an answer from its cache (_convert_cached_generations).
    return bool(usage) and usage.get("total_cost") == 0


def _add_usage(counts: Counts, usage: UsageMetadata, money: Money) -> None:
    counts.prompt_tokens += usage["input_tokens"]
    counts.completion_tokens += usage["output_tokens"]
    counts.cached_prompt_tokens += (usage.get("input_token_details") or {}).get("cache_read", 0)
    counts.reasoning_tokens += (usage.get("output_token_details") or {}).get("reasoning", 0)
    counts.sources.add(money.source)
    if money.prompt is None or money.completion is None:
        counts.unpriced_calls += 1
    else:
        counts.prompt_cost += money.prompt
        counts.completion_cost += money.completion


def _add(total: Counts, one: Counts) -> None:
    for name, value in vars(one).items():
        if name == "sources":
            total.sources |= value
        else:
            setattr(total, name, getattr(total, name) + value)


def _teacher_only(
    gkt: dict[str, Any], usage: UsageMetadata, answer_chars: int
) -> UsageMetadata | None:
    """Estimate the usage of the whole answer by the teacher alone."""
    if gkt.get("finished_by") == "teacher":
        return usage
    hidden = (usage.get("output_token_details") or {}).get("reasoning", 0)
    visible = usage["output_tokens"] - hidden
    if visible <= 0 or not gkt.get("written_chars"):
        return None
    completion = hidden + round(answer_chars * visible / gkt["written_chars"])
    return {
        **usage,
        "output_tokens": completion,
        "total_tokens": usage["input_tokens"] + completion,
    }
