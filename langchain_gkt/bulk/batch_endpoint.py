"""Guidance by the batch endpoint: writes a job's requests, and reads results into a checkpoint.

You send the file in between: ``client.files.create(purpose="batch")`` and
``client.batches.create(endpoint="/v1/chat/completions", completion_window="24h")``.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from langchain_gkt._langchain_compat import tracing_params
from langchain_gkt.bulk.chains import GuidanceKeys, check_chain, read_prompt, settings_of
from langchain_gkt.bulk.store import GuidanceStore
from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.chain.steps.batch_request import teacher_request
from langchain_gkt.costs import BillingScenario
from langchain_gkt.costs.prices import Prices, check_price, refuse_unlisted
from langchain_gkt.costs.role_prices import RolePrices
from langchain_gkt.costs.runs.model_runs import ModelRun, read_run
from langchain_gkt.costs.totals import CallRecord, UsageTotals
from langchain_gkt.costs.usage import CHARS_PER_TOKEN, Tokens, as_usage, read_tokens
from langchain_gkt.evaluation.running.records import TeacherReply, part_of
from langchain_gkt.providers.usage import believable
from langchain_gkt.teachers.batch_files import (
    BatchReply,
    BatchResults,
    read_results,
    write_requests,
)
from langchain_gkt.teachers.replies import finish_reason
from langchain_gkt.teachers.token_cuts import logprob_pieces
from langchain_gkt.teachers.wrappers import models_of

BATCH = "batch"
"""The service tier of the results' prices."""


def write_batch(
    chain: GuidedKnowledgeTransferChain,
    prompts: Iterable[str],
    path: str | Path,
    *,
    checkpoint: str | Path | None = None,
) -> list[Path]:
    """Write the teacher's requests of a job to a file for the batch endpoint.

    Args:
        chain: The chain that `guide_dataset` will get.
        prompts: The prompts, as in the dataset's column. A repeated prompt is asked once.
        path: The file, of JSON lines. If there are more requests than one file may hold, further
            files are written beside it.
        checkpoint: The job's folder, whose guidance is not requested again.

    Returns:
        The files. An empty list if nothing is left to ask.

    Raises:
        ValueError: If a prompt or the chain is invalid, or a file already exists.
        NotSupportedError: If the teacher does not speak OpenAI's chat completions.
    """
    check_chain(chain)
    keys, settings = GuidanceKeys(chain), settings_of(chain)
    store = GuidanceStore(checkpoint, run=None) if checkpoint is not None else None

    def bodies() -> Iterator[tuple[str, dict[str, Any]]]:
        known = set[str]()
        for prompt in prompts:
            messages = read_prompt(prompt, "prompts")
            key = keys.of(messages)
            if key not in known and (store is None or store.find(key) is None):
                yield key, teacher_request(settings, messages)
            known.add(key)

    try:
        return write_requests(path, bodies())
    finally:
        if store is not None:
            store.close()


@dataclass(frozen=True, kw_only=True)
class BatchBill:
    """The results and the cost of a batch.

    Attributes:
        results: The batch's results. `BatchResults.notes` names what is missing.
        bill: The cost of its replies. Failed requests that may have been billed are unreported.
        new: How many replies were not in the checkpoint before.
    """

    results: BatchResults
    bill: UsageTotals
    new: int

    def __str__(self) -> str:
        """Summarise results and cost."""
        counted = f"{len(self.results.replies)} replies, {self.new} of them new"
        money = self.bill.to_dict()["cost"]
        known = f"${money}" if money is not None else f"${self.bill.known_cost} and an unknown rest"
        return "; ".join([f"{counted}: {known}", *self.results.notes()])


def read_batch(
    chain: GuidedKnowledgeTransferChain,
    results: str | Path | Sequence[str | Path],
    requests: str | Path | Sequence[str | Path],
    *,
    checkpoint: str | Path,
    teacher_price: Prices = None,
    scenario: BillingScenario | None = None,
) -> BatchBill:
    """Put the results of a batch into a job's checkpoint, priced as a batch.

    `guide_dataset` with the same chain and checkpoint then asks the teacher only for the missing
    rows. The same file read twice is billed once.

    Args:
        chain: The chain of the requests.
        results: The batch's output file. With its error file, if there is one.
        requests: The files that you sent.
        checkpoint: The job's folder. No job may be using it.
        teacher_price: As for `CostTracker`.
        scenario: As for `CostTracker`. None for the tier ``batch``.

    Returns:
        The bill, and what is missing, failed or answered twice.

    Raises:
        ValueError: If a file has another form, or answers other requests.
        RuntimeError: If a job writes to the checkpoint.
    """
    check_price(teacher_price, "teacher_price")
    refuse_unlisted(teacher_price, "teacher_price")
    tier = None if scenario and scenario.tier else BATCH
    prices = RolePrices(teacher=teacher_price, student=None, tier=tier, scenario=scenario)
    batch = read_results(results, requests)
    model = next(iter(models_of(settings_of(chain).teacher)))
    bill, new = UsageTotals(), 0
    with closing(GuidanceStore(checkpoint, run=uuid.uuid4().hex, stable_rows=True)) as store:
        for answer in batch.replies:
            run = _run_of(model, batch.requests[answer.name], answer)
            totals, reply = _priced(run, answer, prices)
            if store.add(
                f"batch:{answer.bill}",
                "teacher",
                totals,
                key=answer.name,
                reply=None if reply is None else json.dumps(asdict(reply)),
            ):
                new += 1
            bill.add(totals)
        for name in batch.maybe_billed & set(batch.failed):
            totals = UsageTotals(calls=1, failed_calls=1)
            run = _run_of(model, batch.requests[name], None)
            _estimate(run, totals, "", prices)
            store.add(f"batch:{name}", "teacher", totals, key=name, reply=None)
            bill.add(totals)
    return BatchBill(results=batch, bill=bill, new=new)


def _run_of(model: Any, body: Any, reply: BatchReply | None) -> ModelRun:
    """Describe a request as the model run that it would have been."""
    chars = sum(len(str(message.get("content") or "")) for message in body["messages"])
    run = read_run("teacher", None, tracing_params(model), prompt_chars=chars, params=dict(body))
    if reply is not None:
        run.response_model = reply.message.response_metadata.get("model_name")
    return run


def _priced(
    run: ModelRun, answer: BatchReply, prices: RolePrices
) -> tuple[UsageTotals, TeacherReply | None]:
    """Return a reply's bill, and the reply. None if it holds no text."""
    totals, text = UsageTotals(calls=1), str(answer.message.text)
    usage, _ = believable(answer.message.usage_metadata, wrote=bool(text), chars=len(text))
    if usage is None:
        _estimate(run, totals, text, prices)
    else:
        usage = prices.billed(run, usage)
        tokens = read_tokens(usage, prices.tier_of(run))
        totals.add_measured(tokens, prices.cost(run, usage))
    if not text.strip():
        return totals, None
    call = CallRecord(
        role="teacher",
        model=run.model,
        call_id=answer.name,
        mode="guided",
        usage=usage,
        seconds=0.0,
        counts=totals,
    )
    reply = TeacherReply(
        text=text,
        usage=None if usage is None else dict(usage),
        finish_reason=finish_reason(answer.message),
        pieces=logprob_pieces(answer.message),
        part=part_of([call], "teacher"),
    )
    return totals, reply


def _estimate(run: ModelRun, totals: UsageTotals, text: str, prices: RolePrices) -> None:
    """Add a call that reported no usage, so that nothing is booked as free."""
    completion = round(len(text) / CHARS_PER_TOKEN) if text else run.limit or 0
    tokens = Tokens(prompt=round(run.prompt_chars / CHARS_PER_TOKEN), completion=completion)
    totals.add_unreported(tokens, run.limit, prices.cost(run, as_usage(tokens)))
