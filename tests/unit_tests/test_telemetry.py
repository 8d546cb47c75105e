from __future__ import annotations

import asyncio
import copy
import gc
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import WordTeacher
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from langchain_gkt import GuidedKnowledgeTransferChain, Price
from langchain_gkt.costs.telemetry import OpenTelemetryHandler

PRICE = Price("2", "10", source="list")
WORKFLOW = "invoke_workflow langchain-gkt"


class Seen:
    """A handler with providers of its own, and what they were given."""

    def __init__(self, **kwargs) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        traces, meters = TracerProvider(), MeterProvider([self.reader])
        traces.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = traces.get_tracer("user")
        kwargs.setdefault("teacher_price", PRICE)
        self.handler = OpenTelemetryHandler(tracer_provider=traces, meter_provider=meters, **kwargs)
        self.config = {"callbacks": [self.handler]}

    def spans(self, role: str | None = None, name: str = "chat"):
        done = [s for s in self.exporter.get_finished_spans() if s.name.startswith(name)]
        return [s for s in done if role is None or s.attributes.get("gkt.role") == role]

    def points(self, name: str, **labels):
        data = self.reader.get_metrics_data()
        metrics = [
            m
            for r in (data.resource_metrics if data else [])
            for scope in r.scope_metrics
            for m in scope.metrics
        ]
        points = [p for m in metrics if m.name == name for p in m.data.data_points]
        wanted = {key.replace("__", "."): value for key, value in labels.items()}
        return [p for p in points if wanted.items() <= dict(p.attributes).items()]

    def nothing_open(self) -> bool:
        return not (self.handler._open or self.handler._wrappers)

    def check_tree(self, calls: int, parent=None) -> None:
        """Each call is one workflow span with a teacher's and a student's inside."""
        assert self.nothing_open()
        flows = {s.context.span_id: s for s in self.spans(name=WORKFLOW)}
        assert len(flows) == calls
        assert {s.parent.span_id if s.parent else None for s in flows.values()} == {parent}
        for role in ("teacher", "student"):
            spans = self.spans(role)
            assert sorted(s.parent.span_id for s in spans) == sorted(flows)
            for span in spans:
                flow = flows[span.parent.span_id]
                assert span.context.trace_id == flow.context.trace_id
                assert span.attributes["gkt.call_id"] == flow.attributes["gkt.call_id"]


class StreamingTeacher(WordTeacher):
    """Reports cached and reasoning tokens, as a provider would, while streaming."""

    stream_usage: bool = True

    def _get_ls_params(self, stop=None, **kwargs):
        return {"ls_provider": "google_genai", "ls_model_name": "big", "ls_model_type": "chat"}

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        for word in self.answer[: self.num_predict].split(" "):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word + " "))
        usage = {"input_tokens": 1000, "output_tokens": 30, "total_tokens": 1030}
        usage["input_token_details"] = {"cache_read": 800}
        usage["output_token_details"] = {"reasoning": 5}
        said = {"finish_reason": "length", "model_name": "big-2026"}
        last = AIMessageChunk(content="", usage_metadata=usage, response_metadata=said)
        yield ChatGenerationChunk(message=last)


@pytest.fixture
def chain(teacher, student, problem) -> GuidedKnowledgeTransferChain:
    return GuidedKnowledgeTransferChain(
        teacher=teacher, student=student, guidance_tokens=len(problem.plan) + 3
    )


async def test_every_door_nests_under_the_users_span(chain, problem) -> None:
    seen, question = Seen(), problem.question
    with seen.tracer.start_as_current_span("request") as span:
        chain.invoke(question, seen.config)
        list(chain.stream(question, seen.config))
        chain.batch([question, question], seen.config)
        await asyncio.gather(*(chain.ainvoke(question, seen.config) for _ in range(2)))
        [_ async for _ in chain.astream(question, seen.config)]
        [_ async for _ in chain.astream_events(question, seen.config)]
    seen.check_tree(8, parent=span.get_span_context().span_id)


def test_a_call_in_full(chain, problem, student) -> None:
    seen = Seen(student_price=Price(1, 0))
    message = chain.invoke(problem.question, seen.config)
    gkt = message.response_metadata["gkt"]
    (flow,), (big,), (small,) = (
        seen.spans(name=WORKFLOW),
        seen.spans("teacher"),
        seen.spans("student"),
    )
    assert [s.kind for s in (flow, big, small)] == [
        SpanKind.INTERNAL,
        SpanKind.CLIENT,
        SpanKind.INTERNAL,
    ]
    assert (big.name, small.name) == ("chat", "chat student")  # the fake has no model's name
    assert flow.attributes["gkt.finished_by"] == "student"
    assert not [name for name in flow.attributes if "usage" in name or "cost" in name]
    tokens = chain.guidance_tokens
    assert dict(big.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "wordteacher",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": tokens,
        "gkt.call_id": gkt["call_id"],
        "gkt.cost.source": "list",
        "gkt.cost.usd": pytest.approx((7 * 2 + tokens * 10) / 1e6),
        "gkt.mode": "guided",
        "gkt.role": "teacher",
    }
    used = gkt["student_usage"]
    for kind in ("input", "output"):
        assert small.attributes[f"gen_ai.usage.{kind}_tokens"] == used[f"{kind}_tokens"]
    assert small.attributes["gen_ai.request.model"] == student.name_for_people
    assert small.attributes["gen_ai.response.model"] == student.name_for_people
    labels = {"gen_ai__token__type": "output", "gkt__role": "teacher"}
    (point,) = seen.points("gen_ai.client.token.usage", **labels)
    assert (point.count, point.sum) == (1, tokens)
    assert point.explicit_bounds[:4] == (1, 4, 16, 64) and point.explicit_bounds[-1] == 67108864
    (point,) = seen.points("gen_ai.client.operation.duration", gkt__role="student")
    assert point.count == 1 and point.explicit_bounds[0] == 0.01
    assert "gkt.call_id" not in point.attributes  # one series per call would be unbounded
    costs = {p.attributes["gkt.role"]: p.value for p in seen.points("gkt.client.cost")}
    assert costs == {
        "teacher": pytest.approx((7 * 2 + tokens * 10) / 1e6),
        "student": pytest.approx(used["input_tokens"] / 1e6),
    }
    assert not seen.points("gen_ai.client.operation.time_to_first_chunk")  # nothing was streamed


async def test_streams_time_their_first_chunk(student, problem) -> None:
    teacher = StreamingTeacher(answer=problem.solution, asked=[])
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=30)
    seen = Seen(teacher_price=Price("2", "10", cached_input_mtok="1"))
    list(chain.stream(problem.question, seen.config))
    [_ async for _ in chain.astream(problem.question, seen.config)]
    for role in ("teacher", "student"):
        (point,) = seen.points("gen_ai.client.operation.time_to_first_chunk", gkt__role=role)
        spans = seen.spans(role)
        times = [s.attributes["gen_ai.response.time_to_first_chunk"] for s in spans]
        assert point.count == 2 and point.sum == pytest.approx(sum(times)) and min(times) > 0
    span = seen.spans("teacher")[0]
    assert span.name == "chat big"
    assert span.attributes["gen_ai.provider.name"] == "gcp.gemini"
    assert span.attributes["gen_ai.response.model"] == "big-2026"
    assert span.attributes["gen_ai.usage.cache_read.input_tokens"] == 800
    assert span.attributes["gen_ai.usage.reasoning.output_tokens"] == 5
    assert span.attributes["gkt.cost.usd"] == pytest.approx((200 * 2 + 800 + 30 * 10) / 1e6)


def test_errors_are_marked_and_leak_nothing(chain, problem) -> None:
    seen = Seen()
    broken = chain.model_copy(
        update={"teacher": WordTeacher(fails_with=ConnectionError("no route"), asked=[])}
    )
    broken.teacher = broken.teacher.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    with pytest.raises(Exception, match="no route"):
        broken.invoke(problem.question, seen.config)
    (flow,), tries = seen.spans(name=WORKFLOW), seen.spans("teacher")
    assert [s.parent.span_id for s in tries] == [flow.context.span_id] * 2
    assert {s.attributes["error.type"] for s in tries} == {"ConnectionError"}
    assert flow.attributes["error.type"] == "TeacherError"
    assert {s.status.status_code for s in (flow, *tries)} == {StatusCode.ERROR}
    (point,) = seen.points("gen_ai.client.operation.duration", error__type="ConnectionError")
    assert point.count == 2 and not seen.points("gen_ai.client.token.usage")
    assert seen.nothing_open()


async def test_a_closed_stream_is_no_error(chain, problem) -> None:
    seen = Seen()
    for _ in range(2):
        stream = chain.stream(problem.question, seen.config)
        next(stream), next(stream)
        stream.close()
    stream = chain.astream(problem.question, seen.config)
    await anext(stream), await anext(stream)
    await stream.aclose()
    forgotten = chain.stream(problem.question, seen.config)
    next(forgotten), next(forgotten)
    thread = threading.Thread(target=lambda box: box.clear(), args=([forgotten],))
    del forgotten
    thread.start(), thread.join(), gc.collect()
    seen.check_tree_closed = seen.spans("student") + seen.spans(name=WORKFLOW)
    assert len(seen.check_tree_closed) == 8
    assert all(s.attributes.get("gkt.closed_early") for s in seen.check_tree_closed)
    assert {s.status.status_code for s in seen.check_tree_closed} == {StatusCode.UNSET}
    assert seen.nothing_open()
