"""OpenTelemetryHandler: guided calls as spans and metrics in the OpenTelemetry GenAI conventions.

Names and buckets: https://github.com/open-telemetry/semantic-conventions-genai (development). They
are written out here, because the Python package marks its own copies as moved there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from langchain_core.messages import AIMessage, BaseMessage

from langchain_gkt.costs.prices import Prices, check_price
from langchain_gkt.costs.role_prices import RolePrices
from langchain_gkt.costs.runs.listener import RunListener
from langchain_gkt.costs.runs.model_runs import CHAIN_PROVIDER, ChainCall, ModelRun, RunResult
from langchain_gkt.metadata import from_cache

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
except ImportError as error:
    raise ImportError('OpenTelemetry is missing: pip install "langchain-gkt[otel]"') from error

_IN_PROCESS = (CHAIN_PROVIDER, "huggingface-local")
_SECOND_BUCKETS = [0.01 * 2**power for power in range(14)]
_TOKEN_BUCKETS = [4.0**power for power in range(14)]
# LangChain's names of providers that have other names in the conventions.
_PROVIDERS = {
    "amazon_bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
_CALL_FIELDS = ("call_id", "mode")
_OUTCOME = (*_CALL_FIELDS, "finished_by", "guidance_tokens", "fallback")
_WORKFLOW = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": CHAIN_PROVIDER}
_MESSAGE_ROLES = {"ai": "assistant", "human": "user"}


@dataclass(kw_only=True)
class _OpenSpan:
    span: trace.Span
    context: Context
    is_chain: bool
    labels: dict[str, Any]  # of the metrics


class _SpanRecorder:
    """Subscribes to runs. Opens and closes their spans and records their metrics."""

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: metrics.MeterProvider | None,
        prices: RolePrices,
        capture_content: bool,
    ) -> None:
        self._prices = prices
        self._capture = capture_content
        self._tracer = trace.get_tracer("langchain_gkt", tracer_provider=tracer_provider)
        meter = metrics.get_meter("langchain_gkt", meter_provider=meter_provider)

        def histogram(name: str, unit: str, buckets: list[float]) -> metrics.Histogram:
            name = f"gen_ai.client.{name}"
            return meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=buckets)

        self._tokens = histogram("token.usage", "{token}", _TOKEN_BUCKETS)
        self._duration = histogram("operation.duration", "s", _SECOND_BUCKETS)
        self._first_chunk = histogram("operation.time_to_first_chunk", "s", _SECOND_BUCKETS)
        self._cost = meter.create_counter("gkt.client.cost", "{usd}")
        # No lock, because each run has a key of its own, and one dict operation is atomic.
        self._open: dict[UUID, _OpenSpan] = {}

    def run_started(self, run: ModelRun, messages: Sequence[BaseMessage]) -> None:
        """Open the run's span."""
        model = run.metadata.get("ls_model_name")
        labels: dict[str, Any] = {"gkt.role": run.role}
        own = {
            f"gkt.{key}": run.metadata[f"gkt_{key}"]
            for key in _CALL_FIELDS
            if f"gkt_{key}" in run.metadata
        }
        if run.is_chain:
            name = f"invoke_workflow {CHAIN_PROVIDER}"
            attributes = _WORKFLOW | (labels if run.role else {})
        else:
            name = f"chat {model or ''}".rstrip()
            known = _PROVIDERS.get(str(run.provider), run.provider or "unknown")
            labels |= {"gen_ai.operation.name": "chat", "gen_ai.provider.name": known}
            labels |= _server(run.base_url) | ({"gen_ai.request.model": model} if model else {})
            attributes = labels
        parent = self._open.get(run.parent_id) if run.parent_id else None
        if parent and parent.is_chain:  # it learns its own call's id only at its end, if ever
            parent.span.set_attributes(own)
        kind = trace.SpanKind.INTERNAL if run.provider in _IN_PROCESS else trace.SpanKind.CLIENT
        span = self._tracer.start_span(
            name, parent.context if parent else None, kind, attributes | own
        )
        self._open[run.run_id] = _OpenSpan(
            span=span,
            context=trace.set_span_in_context(span),
            is_chain=run.is_chain,
            labels=labels,
        )
        if self._capture:
            span.set_attribute("gen_ai.input.messages", _json(messages))

    def run_ended(self, run: ModelRun, result: RunResult, call: ChainCall | None) -> None:
        """Describe the run on its span, record its metrics and close the span."""
        opened = self._open.pop(run.run_id, None)
        if opened is None:
            return
        span, error = opened.span, result.error
        failed = {"error.type": type(error).__qualname__} if result.failed else {}
        try:
            if failed:
                span.set_status(trace.StatusCode.ERROR, str(error))
                span.set_attributes(failed)
            elif error is not None:
                # A reader that left or a cancelled task is not a failure of the model.
                span.set_attribute("gkt.closed_early", True)
            if run.first_chunk_at is not None:
                waited = run.first_chunk_at - run.started_at
                span.set_attribute("gen_ai.response.time_to_first_chunk", waited)
            if result.message is not None:
                self._describe(opened, run, result.message)
            if not run.is_chain:
                self._measure(opened, run, result, failed)
        finally:
            span.end()

    def call_ended(self, call: ChainCall, message: AIMessage | None) -> None:
        """Ignore it, because the chain's own run reports it."""

    def _describe(self, opened: _OpenSpan, run: ModelRun, message: AIMessage) -> None:
        """Write the result on the span, and in the metrics' labels."""
        meta = message.response_metadata
        reason = meta.get("finish_reason") or meta.get("stop_reason") or meta.get("done_reason")
        if self._capture:
            ended = str(reason or "unknown")
            text = _json([message], finish_reason=ended)
            opened.span.set_attribute("gen_ai.output.messages", text)
        if run.is_chain:
            gkt = meta.get("gkt") or {}
            _set(opened.span, {f"gkt.{name}": gkt.get(name) for name in _OUTCOME})
            return
        if run.response_model:
            opened.labels["gen_ai.response.model"] = str(run.response_model)
        reasons = {"gen_ai.response.finish_reasons": reason and [str(reason)]}
        _set(opened.span, opened.labels | reasons)

    def _measure(
        self, opened: _OpenSpan, run: ModelRun, result: RunResult, failed: dict[str, str]
    ) -> None:
        span, labels, context, usage = opened.span, opened.labels, opened.context, result.usage
        if from_cache(usage):  # no model was called
            span.set_attribute("gkt.cache_hit", True)
            return
        self._duration.record(result.seconds, labels | failed, context)
        if run.first_chunk_at is not None:
            self._first_chunk.record(run.first_chunk_at - run.started_at, labels, context)
        if usage is None:
            return
        for kind, count in (("input", usage["input_tokens"]), ("output", usage["output_tokens"])):
            span.set_attribute(f"gen_ai.usage.{kind}_tokens", count)
            self._tokens.record(count, labels | {"gen_ai.token.type": kind}, context)
        read = (usage.get("input_token_details") or {}).get("cache_read")
        hidden = (usage.get("output_token_details") or {}).get("reasoning")
        _set(span, {"gen_ai.usage.cache_read.input_tokens": read})
        _set(span, {"gen_ai.usage.reasoning.output_tokens": hidden})
        cost = self._prices.cost(run, usage)
        span.set_attribute("gkt.cost.source", cost.source)
        if cost.prompt is not None and cost.completion is not None:
            usd = float(cost.prompt + cost.completion)
            span.set_attribute("gkt.cost.usd", usd)
            self._cost.add(usd, labels, context)


class OpenTelemetryHandler(RunListener):
    """Emits a span for each guided call, with one inside for each model, and GenAI metrics.

    Give it as ``config={"callbacks": [handler]}`` or to the chain's constructor. Spans:

    - ``invoke_workflow langchain-gkt`` (INTERNAL) for the chain's run, inside the span that is
      active when the chain is called. It carries no usage, so that sums count nothing twice.
    - ``chat {model}`` for each run of a model: CLIENT, or INTERNAL for a `HuggingFaceStudent`.
      Own attributes: ``gkt.role``, ``gkt.call_id``, ``gkt.mode``, ``gkt.cost.usd`` (double),
      ``gkt.cost.source``, ``gkt.cache_hit``, ``gkt.closed_early`` (no error: the reader left).

    Metrics, by model and ``gkt.role``: ``gen_ai.client.token.usage``,
    ``gen_ai.client.operation.duration``, ``gen_ai.client.operation.time_to_first_chunk`` (of
    streams) and ``gkt.client.cost`` (in {usd}, of priced runs).

    No span is made the current one, because a stream may end in another thread than it began in. So
    spans of an instrumented HTTP client lie beside the model's, not inside.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        teacher_price: Prices = None,
        student_price: Prices = None,
        capture_content: bool = False,
        tier: str | None = None,
    ) -> None:
        """Prepare the tracer and the instruments.

        Args:
            tracer_provider: Where spans go. None for the global provider.
            meter_provider: Where metrics go. None for the global provider.
            teacher_price: As for `CostTracker`.
            student_price: As for `CostTracker`, but not `MachineTime`.
            capture_content: Put messages, which may be private, on the spans as JSON. Otherwise the
                only free text is that of errors.
            tier: As for `CostTracker`.

        Raises:
            TypeError: If a price is neither a `Price` nor a model reference.
        """
        check_price(teacher_price, "teacher_price")
        check_price(student_price, "student_price")
        prices = RolePrices(teacher=teacher_price, student=student_price, tier=tier)
        self._settings = (tracer_provider, meter_provider, prices, capture_content)
        super().__init__(_SpanRecorder(tracer_provider, meter_provider, prices, capture_content))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings. The providers are those of the process where it is loaded."""
        tracers, meters, prices, capture = self._settings
        if tracers is not None or meters is not None:
            raise TypeError(
                "an OpenTelemetryHandler with providers of its own cannot be pickled; set the "
                "global providers, and leave out tracer_provider= and meter_provider="
            )
        own: dict[str, Any] = {"teacher_price": prices.teacher, "student_price": prices.student}
        own |= {"capture_content": capture, "tier": prices.tier}
        return partial(OpenTelemetryHandler, **own), ()


def _set(span: trace.Span, attributes: dict[str, Any]) -> None:
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})


def _server(base_url: str | None) -> dict[str, Any]:
    """Return the server's address and port, if the client was given a URL."""
    try:
        url = urlsplit(base_url or "")
        port = url.port or (80 if url.scheme == "http" else 443)
    except ValueError:  # not a URL after all, which the model will report itself
        return {}
    return {"server.address": url.hostname, "server.port": port} if url.hostname else {}


def _json(messages: Sequence[Any], **ending: str) -> str:
    """Return messages in the conventions' JSON form. Media are left out."""
    shown = []
    for message in messages:
        text, kind = str(message.text), message.type.removesuffix("MessageChunk").lower()
        parts: list[dict[str, Any]] = [{"type": "text", "content": text}] if text else []
        if kind == "tool":
            parts = [{"type": "tool_call_response", "id": message.tool_call_id, "response": text}]
        for call in getattr(message, "tool_calls", ()):
            fields = {"id": call["id"], "name": call["name"], "arguments": call["args"]}
            parts.append({"type": "tool_call", **fields})
        shown.append({"role": _MESSAGE_ROLES.get(kind, kind), "parts": parts, **ending})
    return json.dumps(shown, ensure_ascii=False, default=str)
