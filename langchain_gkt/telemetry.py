"""OpenTelemetryHandler: guided calls as spans and metrics in the OpenTelemetry GenAI conventions.

Names and buckets: https://github.com/open-telemetry/semantic-conventions-genai (development).
They are written out, as the Python package marks its own copies as moved there.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import LLMResult

from langchain_gkt.costs.prices import FREE, Price, check_price, price_call

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
except ImportError as error:
    raise ImportError('OpenTelemetry is missing: pip install "langchain-gkt[otel]"') from error

_CHAIN = "langchain-gkt"
_IN_PROCESS = (_CHAIN, "huggingface-local")
_SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
_TOKENS = [4.0**power for power in range(14)]
# LangChain's names of providers that the conventions call otherwise.
_PROVIDERS = {
    "amazon_bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
_OWN = ("call_id", "mode")
_OUTCOME = (*_OWN, "finished_by", "guidance_tokens", "fallback")
_WORKFLOW = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": _CHAIN}
_ROLES = {"ai": "assistant", "human": "user"}


@dataclass(kw_only=True)
class _OpenRun:
    span: trace.Span
    context: Context
    parent: UUID | None
    is_chain: bool
    called: dict[str, Any]  # what price_call asks for
    labels: dict[str, Any]  # of the metrics
    started: float = field(default_factory=time.perf_counter)
    first_chunk: float | None = None
    release: Callable[[], object] = lambda: None  # lets go of the task that asked


class OpenTelemetryHandler(BaseCallbackHandler):
    """Emits a span for each guided call, with one inside for each model, and GenAI metrics.

    Give it as ``config={"callbacks": [handler]}`` or to the chain's constructor. Spans:

    - ``invoke_workflow langchain-gkt`` (INTERNAL) for the chain's run, inside the span active
      where the chain is called. It carries no usage, so that sums count nothing twice.
    - ``chat {model}`` for each run of a model: CLIENT, or INTERNAL for a `HuggingFaceStudent`.
      Own attributes: ``gkt.role``, ``gkt.call_id``, ``gkt.mode``, ``gkt.cost.usd`` (double),
      ``gkt.cost.source``, ``gkt.cache_hit``, ``gkt.closed_early`` (no error: the reader left).

    Metrics, by model and ``gkt.role``: ``gen_ai.client.token.usage``,
    ``gen_ai.client.operation.duration``, ``gen_ai.client.operation.time_to_first_chunk`` (of
    streams) and ``gkt.client.cost`` ({usd}; of priced runs).

    No span is made the current one, because a stream may end in another thread than it began
    in: spans of an instrumented HTTP client lie beside the model's, not inside.
    """

    run_inline = True  # the caller's active span is known only in its own context
    gkt_children = True

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        teacher_price: Price | str | None = None,
        student_price: Price | str | None = None,
        capture_content: bool = False,
    ) -> None:
        """Prepare the tracer and the instruments.

        Args:
            tracer_provider: Where spans go; None for the global provider.
            meter_provider: Where metrics go; None for the global provider.
            teacher_price: As for `CostTracker`.
            student_price: As for `CostTracker`.
            capture_content: Put messages, which may be private, on the spans as JSON; else the
                only free text is what errors say.

        Raises:
            TypeError: If a price is neither a `Price` nor a model reference.
        """
        check_price(teacher_price, "teacher_price")
        check_price(student_price, "student_price")
        self._prices = {
            "teacher": teacher_price,
            "student": FREE if student_price is None else student_price,
        }
        self._capture = capture_content
        self._tracer = trace.get_tracer("langchain_gkt", tracer_provider=tracer_provider)
        meter = metrics.get_meter("langchain_gkt", meter_provider=meter_provider)

        def histogram(name: str, unit: str, buckets: list[float]) -> metrics.Histogram:
            name = f"gen_ai.client.{name}"
            return meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=buckets)

        self._tokens = histogram("token.usage", "{token}", _TOKENS)
        self._duration = histogram("operation.duration", "s", _SECONDS)
        self._first_chunk = histogram("operation.time_to_first_chunk", "s", _SECONDS)
        self._cost = meter.create_counter("gkt.client.cost", "{usd}")
        # Without a lock: each run has a key of its own, and one dict operation is atomic. A lock
        # could be met again by a forgotten stream, whose collection ends its run in any thread.
        self._open: dict[UUID, _OpenRun] = {}
        self._wrappers: dict[UUID, UUID] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> OpenTelemetryHandler:
        """Return this very handler: copies of a model share its open spans."""
        return self

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Open the span of a chain's, teacher's or student's run; other runs are ignored."""
        metadata = metadata or {}
        role, provider = metadata.get("gkt_role"), metadata.get("ls_provider")
        model, is_chain = metadata.get("ls_model_name"), provider == _CHAIN
        if run_id in self._open or not (is_chain or role in self._prices):
            return
        given, asked = (serialized or {}).get("kwargs") or {}, kwargs.get("invocation_params") or {}
        url = given.get("openai_api_base") or given.get("base_url") or asked.get("base_url")
        base_url = url if isinstance(url, str) else None
        labels: dict[str, Any] = {"gkt.role": role}
        own = {f"gkt.{key}": metadata[f"gkt_{key}"] for key in _OWN if f"gkt_{key}" in metadata}
        name = f"invoke_workflow {_CHAIN}" if is_chain else f"chat {model or ''}".rstrip()
        if is_chain:
            attributes = _WORKFLOW | ({"gkt.role": role} if role else {})
        else:
            known = _PROVIDERS.get(str(provider), provider or "unknown")
            labels |= {"gen_ai.operation.name": "chat", "gen_ai.provider.name": known}
            labels |= _server(base_url) | ({"gen_ai.request.model": model} if model else {})
            attributes = labels
        while parent_run_id in self._wrappers:
            parent_run_id = self._wrappers[parent_run_id]
        parent = self._open.get(parent_run_id) if parent_run_id else None
        if parent and parent.is_chain:  # it learns its own call's id only at its end, if ever
            parent.span.set_attributes(own)
        kind = trace.SpanKind.INTERNAL if provider in _IN_PROCESS else trace.SpanKind.CLIENT
        span = self._tracer.start_span(
            name, parent.context if parent else None, kind, attributes | own
        )
        self._open[run_id] = run = _OpenRun(
            span=span,
            context=trace.set_span_in_context(span),
            parent=parent_run_id,
            is_chain=is_chain,
            called={"provider": provider, "model": model or "unknown", "base_url": base_url},
            labels=labels,
        )
        if self._capture:
            span.set_attribute("gen_ai.input.messages", _json(messages[0]))

        with suppress(RuntimeError):  # no event loop
            if task := asyncio.current_task():
                task.add_done_callback(abandon := partial(self._abandon, run_id))
                run.release = partial(task.remove_done_callback, abandon)

    def _abandon(self, run_id: UUID, task: asyncio.Task[Any]) -> None:
        """Close a cancelled run: langchain-core's ``ainvoke`` tells nobody of it."""
        run = self._open.get(run_id)
        # A stream may go on in another task, once it has begun.
        if run and (run.first_chunk is None or task.cancelled()):
            self._end(run_id, None, asyncio.CancelledError())
            if task.cancelled() and run.parent:  # so was the chain, whose task may live on
                self._abandon(run.parent, task)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note when the first chunk of a streamed run came."""
        run = self._open.get(run_id)
        if run is not None and run.first_chunk is None:
            run.first_chunk = time.perf_counter() - run.started
            run.span.set_attribute("gen_ai.response.time_to_first_chunk", run.first_chunk)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Close the span of a run that ended well."""
        self._end(run_id, response, None)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Close the span of a run that failed, or whose reader went away."""
        self._end(run_id, kwargs.get("response"), error)

    def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
        """Remember a wrapper, such as with_retry, that a teacher's run will be inside of."""
        if kwargs.get("parent_run_id") and "gkt_role" in (kwargs.get("metadata") or {}):
            self._wrappers[kwargs["run_id"]] = kwargs["parent_run_id"]

    def on_chain_end(self, *args: Any, **kwargs: Any) -> None:
        """Forget a wrapper."""
        self._wrappers.pop(kwargs["run_id"], None)

    on_chain_error = on_chain_end

    def _end(self, run_id: UUID, response: Any, error: BaseException | None) -> None:
        run = self._open.pop(run_id, None)
        if run is None:  # another's run, or heard twice
            return
        seconds = time.perf_counter() - run.started
        run.release()
        failed = {"error.type": type(error).__qualname__} if isinstance(error, Exception) else {}
        try:
            if failed:
                run.span.set_status(trace.StatusCode.ERROR, str(error))
                run.span.set_attributes(failed)
            elif error is not None:
                # A reader that went away or a cancelled task is no failure of the model.
                run.span.set_attribute("gkt.closed_early", True)
            if (message := _reply(response)) is not None:
                self._describe(run, message)
            if not run.is_chain:
                self._measure(run, message.usage_metadata if message else None, seconds, failed)
        finally:
            run.span.end()

    def _describe(self, run: _OpenRun, message: AIMessage) -> None:
        """Write on the span, and in the metrics' labels, what came back."""
        said = message.response_metadata
        reason = said.get("finish_reason") or said.get("stop_reason") or said.get("done_reason")
        if self._capture:
            ended = str(reason or "unknown")
            run.span.set_attribute("gen_ai.output.messages", _json([message], finish_reason=ended))
        if run.is_chain:
            gkt = said.get("gkt") or {}
            _set(run.span, {f"gkt.{name}": gkt.get(name) for name in _OUTCOME})
            return
        if model := said.get("model_name") or said.get("model"):
            run.called["model"] = run.labels["gen_ai.response.model"] = str(model)
        _set(run.span, {**run.labels, "gen_ai.response.finish_reasons": reason and [str(reason)]})

    def _measure(
        self, run: _OpenRun, usage: UsageMetadata | None, seconds: float, failed: dict[str, str]
    ) -> None:
        """Record duration, tokens and cost."""
        # How langchain-core marks an answer from its cache: no model was called.
        if usage and usage.get("total_cost") == 0:
            run.span.set_attribute("gkt.cache_hit", True)
            return
        self._duration.record(seconds, run.labels | failed, run.context)
        if run.first_chunk is not None:
            self._first_chunk.record(run.first_chunk, run.labels, run.context)
        if not usage:
            return
        for kind, count in (("input", usage["input_tokens"]), ("output", usage["output_tokens"])):
            run.span.set_attribute(f"gen_ai.usage.{kind}_tokens", count)
            self._tokens.record(count, run.labels | {"gen_ai.token.type": kind}, run.context)
        read = (usage.get("input_token_details") or {}).get("cache_read")
        hidden = (usage.get("output_token_details") or {}).get("reasoning")
        _set(run.span, {"gen_ai.usage.cache_read.input_tokens": read})
        _set(run.span, {"gen_ai.usage.reasoning.output_tokens": hidden})
        money = price_call(self._prices[run.labels["gkt.role"]], usage, **run.called)
        run.span.set_attribute("gkt.cost.source", money.source)
        if money.prompt is not None and money.completion is not None:
            cost = float(money.prompt + money.completion)
            run.span.set_attribute("gkt.cost.usd", cost)
            self._cost.add(cost, run.labels, run.context)


def _set(span: trace.Span, attributes: dict[str, Any]) -> None:
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})


def _server(base_url: str | None) -> dict[str, Any]:
    """Return the server's address and port, where the client was given a URL."""
    try:
        url = urlsplit(base_url or "")
        port = url.port or (80 if url.scheme == "http" else 443)
    except ValueError:  # no URL after all: the model will say so itself
        return {}
    return {"server.address": url.hostname, "server.port": port} if url.hostname else {}


def _reply(response: Any) -> AIMessage | None:
    """Return the reply in a result; a partial one comes first after an early end."""
    several = response.generations if isinstance(response, LLMResult) else []
    messages = (getattr(one, "message", None) for each in several for one in each)
    return next((message for message in messages if isinstance(message, AIMessage)), None)


def _json(messages: list[Any], **ending: str) -> str:
    """Return messages in the conventions' JSON form; media are left out."""
    shown = []
    for message in messages:
        text, kind = str(message.text), message.type.removesuffix("MessageChunk").lower()
        parts: list[dict[str, Any]] = [{"type": "text", "content": text}] if text else []
        if kind == "tool":
            parts = [{"type": "tool_call_response", "id": message.tool_call_id, "response": text}]
        for call in getattr(message, "tool_calls", ()):
            told = {"id": call["id"], "name": call["name"], "arguments": call["args"]}
            parts.append({"type": "tool_call", **told})
        shown.append({"role": _ROLES.get(kind, kind), "parts": parts, **ending})
    return json.dumps(shown, ensure_ascii=False, default=str)
