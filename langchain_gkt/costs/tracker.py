"""CostTracker: listens to callbacks and counts tokens, seconds and money by role and model."""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import LLMResult

from langchain_gkt.costs.aggregator import Accounts
from langchain_gkt.costs.budget import Budget
from langchain_gkt.costs.compare import ComparesChains, Comparison
from langchain_gkt.costs.prices import MachineTime, Prices, check_price
from langchain_gkt.costs.report import CostReport
from langchain_gkt.costs.runs import CallRecord, OpenCall, OpenRun, TaskWatch, open_run
from langchain_gkt.costs.totals import BusyClock, Counts
from langchain_gkt.costs.usage import message_of, text_length

Role = Literal["teacher", "student"]
_ROLES: tuple[Role, ...] = ("teacher", "student")
_MOST_OPEN = 20_000
"""Open runs and calls to remember; beyond it the oldest are taken for lost."""


class CostTracker(ComparesChains, BaseCallbackHandler):
    """Counts what the teacher and the student of guided calls use, and what it costs.

    Give it as ``config={"callbacks": [tracker]}``, to the chain's constructor, or use
    `track_costs`. It may listen to several chains and threads at once, and ``report()`` may be
    called while they run.

    What no callback tells cannot be counted: attempts that a provider's client repeats inside
    one call (its ``max_retries``; set it to 0 and use ``with_retry``, whose attempts are seen).
    A call that is cancelled ends without an event: it is counted, as unreported, when its
    asyncio task ends.
    """

    run_inline = True
    gkt_children = True

    def __init__(
        self,
        *,
        teacher_price: Prices = None,
        student_price: Prices | MachineTime = None,
        budget: Budget | None = None,
        teacher_tokenizer: Callable[[str], int] | None = None,
        keep_calls: bool = False,
    ) -> None:
        """Start at zero.

        Args:
            teacher_price: What the teacher costs, or a model that genai-prices knows, such as
                ``openai:gpt-4o-mini``, or a mapping from model names to either; None to look up
                the model that was called.
            student_price: The same for the student, or `MachineTime`; None for free.
            budget: Limits that are checked before the teacher is asked.
            teacher_tokenizer: Number of the teacher's tokens in a text, for the teacher-only
                estimate; None for tiktoken where it has the model's file, else for the
                characters per token of the guidance.
            keep_calls: Keep a record of each call in `calls`. Memory then grows with them.

        Raises:
            TypeError: If a price is neither a `Price` nor a model reference.
        """
        check_price(teacher_price, "teacher_price")
        check_price(student_price, "student_price", machine_time=True)
        if budget is not None and not isinstance(budget, Budget):
            raise TypeError(f"budget must be a Budget(usd='5'), not {type(budget).__name__}")
        # Collecting a forgotten stream ends its run, perhaps in a thread that holds the lock.
        self._lock = threading.RLock()
        self._open: OrderedDict[UUID, OpenRun] = OrderedDict()
        self._calls: OrderedDict[str, OpenCall] = OrderedDict()
        self._roots: dict[UUID, str] = {}
        self._wrappers: dict[UUID, str] = {}
        self._id = str(uuid.uuid4())
        self._comparison: Comparison | None = None
        self._busy = BusyClock()
        self._tasks = TaskWatch(self._abandon, self._lock)
        self._accounts = Accounts(
            teacher_price=teacher_price,
            student_price=student_price,
            budget=budget,
            tokenizer=teacher_tokenizer,
            lock=self._lock,
        )
        self._keep = keep_calls
        self.calls: list[CallRecord] = []

    # Handlers are given to models, which may be deep-copied: all copies count together.
    def __deepcopy__(self, memo: dict[int, Any]) -> CostTracker:
        """Return this very tracker."""
        return self

    # --- what langchain-core tells ---

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
        """Remember a wrapper, such as ``with_retry``, that a model's run will be inside of."""
        if metadata and metadata.get("gkt_role") in _ROLES:
            with self._lock:
                self._call_of(metadata, parent_run_id).inside.add(run_id)
                self._wrappers[run_id] = str(metadata.get("gkt_call_id"))

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a wrapper."""
        with self._lock:
            call_id = self._wrappers.pop(run_id, None)
            call = self._calls.get(call_id) if call_id else None
            if call_id and call:
                call.inside.discard(run_id)
                self._drop_rootless(call_id, call)

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
        """Remember the role of a teacher's or student's run."""
        metadata = metadata or {}
        role = metadata.get("gkt_role")
        # A chain, even as another's teacher: its own models' runs are what is counted.
        if role not in _ROLES or metadata.get("ls_provider") == "langchain-gkt":
            return
        run = open_run(
            role,
            serialized,
            metadata,
            prompt_chars=sum(map(text_length, messages)),
            tags=tags or (),
            params=kwargs.get("invocation_params"),
        )
        run.compared = metadata.get("gkt_compared") == self._id
        with self._lock:
            if run_id in self._open:  # heard twice: from the config and from a block
                return
            self._call_of(metadata, parent_run_id)
            if role == "student":
                run.mark = self._busy.start(run.started)
            self._open[run_id] = run
            self._tasks.start(run_id)
            lost = next(iter(self._open)) if len(self._open) > _MOST_OPEN else None
        if lost:
            self._abandon(lost)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note when a stream's first token came."""
        run = self._open.get(run_id)
        if run is not None and run.first is None:
            message = getattr(kwargs.get("chunk"), "message", None)
            if token or getattr(message, "tool_call_chunks", None):
                run.first = time.perf_counter()

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Count a run that ended well."""
        message = message_of(response)
        if message is not None and "gkt" in message.response_metadata:
            self._end_of_chain_call(message, run_id)
            return
        self._end(run_id, response, None)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Count a run that failed, or one whose reader went away."""
        with self._lock:
            broken = self._roots.get(run_id)
        if broken is not None:
            self._finish(broken)
            return
        response = kwargs.get("response")
        known = response if isinstance(response, LLMResult) else LLMResult(generations=[])
        self._end(run_id, known, error)

    # --- runs ---

    def _call_of(self, metadata: Mapping[str, Any], parent: UUID | None) -> OpenCall:
        """Return the chain call a run belongs to. The caller holds the lock."""
        call_id = str(metadata.get("gkt_call_id"))
        call = self._calls.get(call_id)
        if call is None:
            call = self._calls[call_id] = OpenCall(mode=metadata.get("gkt_mode", "guided"))
            self._tasks.start(call_id)
            if len(self._calls) > _MOST_OPEN:
                self._finish(next(iter(self._calls)))
        if parent is not None and call.root is None and parent not in call.inside:
            call.root = parent
            self._roots[parent] = call_id
        return call

    def _drop_rootless(self, call_id: str, call: OpenCall) -> None:
        """Forget what ``guide()`` left: the teacher was asked alone, no answer is to come."""
        if call.root is None and not call.inside:
            self._calls.pop(call_id, None)
            self._tasks.end(call_id)

    def _abandon(self, key: UUID | str) -> None:
        """End a run, or a chain call, that nobody will end: what it was billed is not known."""
        if isinstance(key, str):
            self._finish(key)
            return
        with self._lock:
            run = self._open.get(key)
        if run is not None:
            self._end(key, LLMResult(generations=[]), GeneratorExit())
            self._finish(run.call_id)

    def _end(self, run_id: UUID, response: LLMResult, error: BaseException | None) -> None:
        ended = time.perf_counter()
        with self._lock:
            run = self._open.pop(run_id, None)
            if run is None:
                return
            self._tasks.end(run_id)
            one = Counts(calls=1, retries=int(run.retry), seconds=ended - run.started)
            if run.role == "student":
                one.busy_seconds = self._busy.end(ended, run.mark)
        # A reader that went away or a cancelled task is no failure of the model.
        failed = isinstance(error, Exception)
        one.failed_calls = int(failed)
        if run.first is not None:
            one.first_token_calls, one.first_token_seconds = 1, run.first - run.started
        usage = self._accounts.measure(run, one, response, error)
        with self._lock:
            self._accounts.book(run, one)
            call = self._calls.get(run.call_id)
            if call is not None:
                call.spent.add(one)
                if run.role == "teacher":
                    call.teacher = run
                self._drop_rootless(run.call_id, call)
            if self._keep:
                self.calls.append(
                    CallRecord(
                        role=run.role,
                        model=run.model,
                        call_id=run.call_id,
                        mode=run.mode,
                        usage=usage,
                        seconds=one.seconds,
                        first_token_seconds=one.first_token_seconds if run.first else None,
                        error=repr(error) if failed else None,
                        retry=run.retry,
                        counts=one,
                    )
                )

    # --- the chain's calls ---

    def _finish(self, call_id: str, message: AIMessage | None = None) -> None:
        """Forget a chain call; without an answer, or one to go by, it has no estimate."""
        with self._lock:
            call = self._calls.pop(call_id, None)
            self._tasks.end(call_id)
            if self._accounts.ledger:
                self._accounts.ledger.release(call_id)
            if call is None:  # no model was asked, or this end is heard twice
                return
            if call.root is not None:
                self._roots.pop(call.root, None)
            for wrapper in call.inside:
                self._wrappers.pop(wrapper, None)
        self._accounts.close(call, message)

    def _end_of_chain_call(self, message: AIMessage, run_id: UUID) -> None:
        with self._lock:
            call_id = self._roots.get(run_id)
        # An answer from the cache carries the id of the call that once made it.
        self._finish(call_id or str(message.response_metadata["gkt"].get("call_id")), message)

    # --- budget ---

    def admit_teacher(
        self,
        models: Sequence[Any],
        messages: Sequence[BaseMessage],
        *,
        call_id: str,
        mode: str,
        limit: int | None,
        root: UUID | None = None,
    ) -> None:
        """Reserve what the teacher's next call can come to. The chain asks before each.

        Args:
            models: The chat models the call may reach.
            messages: The prompt.
            call_id: The chain call it belongs to.
            mode: The chain's mode.
            limit: Most completion tokens of the call; None where it has no limit.
            root: The chain's run, at whose end a reservation that was not used is dropped.

        Raises:
            BudgetExceeded: If the call could pass the budget, or the budget is in money and a
                model unpriced. The call has cost nothing.
        """
        ledger = self._accounts.ledger
        if ledger is None:
            return
        claim = self._accounts.claim(models, messages, limit)
        with self._lock:
            call = self._calls.get(call_id)
            spent = call.spent.known_cost + call.spent.unreported_cost if call else Decimal(0)
            ledger.claim(call_id, claim, spent)
            if root is not None:
                self._call_of({"gkt_call_id": call_id, "gkt_mode": mode}, root)

    # --- what came of it ---

    def _probe(self) -> CostTracker:
        """Return a fresh tracker with the same prices."""
        return CostTracker(
            teacher_price=self._accounts.prices["teacher"],
            student_price=self._accounts.prices["student"],
            teacher_tokenizer=self._accounts.tokenizer,
        )

    def report(self) -> CostReport:
        """Return what was counted so far; calls may still be running."""
        with self._lock:
            books = self._accounts
            return CostReport(
                models=copy.deepcopy(books.models),
                estimate=copy.deepcopy(books.estimate),
                comparison=self._comparison,
                compared=copy.deepcopy(books.compared),
                budget=books.ledger.to_dict() if books.ledger else None,
                hidden_retries=tuple(sorted(books.hidden_retries)),
                running=len(self._open),
            )
