from __future__ import annotations

import asyncio
import copy
import gc
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from support.models.fakes import WordTeacher
from support.runs import left_open

from langchain_gkt import (
    CostTracker,
    GuidedKnowledgeTransferChain,
    MachineTime,
    Price,
    TeacherError,
)
from langchain_gkt.telemetry import OpenTelemetryHandler

PRICE = Price("2", "10", source="list")
LOCAL, TEACHER = SpanKind.INTERNAL, {"gkt.role": "teacher"}
WORKFLOW = "invoke_workflow langchain-gkt"


class Starts(SpanProcessor):
    """Counts the spans that begin, ended or not."""

    count = 0

    def on_start(self, span, parent_context=None) -> None:
        self.count += 1


class Seen:
    """A handler with providers of its own, and what they were given."""

    def __init__(self, **kwargs) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        traces, meters = TracerProvider(), MeterProvider([self.reader])
        traces.add_span_processor(SimpleSpanProcessor(self.exporter))
        traces.add_span_processor(starts := Starts())
        self.starts = starts
        self.tracer = traces.get_tracer("user")
        kwargs.setdefault("teacher_price", PRICE)
        self.handler = OpenTelemetryHandler(tracer_provider=traces, meter_provider=meters, **kwargs)
        self.config = {"callbacks": [self.handler]}

    def spans(self, role: str | None = None, name: str = "chat"):
        done = [s for s in self.exporter.get_finished_spans() if s.name.startswith(name)]
        return [s for s in done if role is None or s.attributes.get("gkt.role") == role]

    def points(self, name: str, labels: dict | None = None):
        scopes = self.reader.get_metrics_data().resource_metrics[0].scope_metrics
        metrics = [m for scope in scopes for m in scope.metrics if m.name == name]
        points = [p for m in metrics for p in m.data.data_points]
        return [p for p in points if (labels or {}).items() <= dict(p.attributes).items()]

    def check_tree(self, calls: int, parent=None) -> None:
        """Each call is one workflow span with a teacher's and a student's inside."""
        assert not left_open(self.handler)
        assert calls * 3 == self.starts.count - bool(parent)
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
    (flow,), (big,) = seen.spans(name=WORKFLOW), seen.spans("teacher")
    (small,) = seen.spans("student")
    assert (flow.kind, big.kind, small.kind) == (LOCAL, SpanKind.CLIENT, LOCAL)
    assert (big.name, small.name) == ("chat", "chat student")  # the fake has no model's name
    assert flow.attributes["gkt.finished_by"] == "student"
    assert not [name for name in flow.attributes if "usage" in name or "cost" in name]
    tokens = chain.guidance_tokens
    spent = pytest.approx((7 * 2 + tokens * 10) / 1e6)
    assert dict(big.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "wordteacher",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": tokens,
        "gkt.call_id": gkt["call_id"],
        "gkt.cost.source": "list",
        "gkt.cost.usd": spent,
        "gkt.mode": "guided",
        "gkt.role": "teacher",
    }
    used = gkt["student_usage"]
    for kind in ("input", "output"):
        assert small.attributes[f"gen_ai.usage.{kind}_tokens"] == used[f"{kind}_tokens"]
    assert small.attributes["gen_ai.request.model"] == student.display_name
    assert small.attributes["gen_ai.response.model"] == student.display_name
    (point,) = seen.points("gen_ai.client.token.usage", {**TEACHER, "gen_ai.token.type": "output"})
    assert (point.count, point.sum) == (1, tokens)
    assert point.explicit_bounds[:4] == (1, 4, 16, 64) and point.explicit_bounds[-1] == 67108864
    (point,) = seen.points("gen_ai.client.operation.duration", {"gkt.role": "student"})
    assert point.count == 1 and point.explicit_bounds[0] == 0.01
    assert "gkt.call_id" not in point.attributes  # one series per call would be unbounded
    costs = {p.attributes["gkt.role"]: p.value for p in seen.points("gkt.client.cost")}
    assert costs == {"teacher": spent, "student": pytest.approx(used["input_tokens"] / 1e6)}
    assert not seen.points("gen_ai.client.operation.time_to_first_chunk")  # nothing was streamed


@pytest.mark.slow
async def test_streams_time_their_first_chunk(student, problem) -> None:
    teacher = StreamingTeacher(answer=problem.solution, asked=[])
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=30)
    seen = Seen(teacher_price=Price("2", "10", cached_input_mtok="1"))
    list(chain.stream(problem.question, seen.config))
    [_ async for _ in chain.astream(problem.question, seen.config)]
    for role in ("teacher", "student"):
        (point,) = seen.points("gen_ai.client.operation.time_to_first_chunk", {"gkt.role": role})
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


class FlexTeacher(WordTeacher):
    """Answers as OpenAI's o4-mini does in its flex tier."""

    def _get_ls_params(self, stop=None, **kwargs):
        return {"ls_provider": "openai", "ls_model_name": "o4-mini", "ls_model_type": "chat"}

    def _generate(self, *args, **kwargs):
        result = super()._generate(*args, **kwargs)
        result.generations[0].message.response_metadata["service_tier"] = "flex"
        return result


@pytest.mark.slow
@pytest.mark.parametrize("price", [None, {"o4-mini": Price("3", "7")}, {"other": PRICE}])
def test_a_span_costs_what_the_tracker_counts(student, problem, price) -> None:
    teacher = FlexTeacher(answer=problem.solution, asked=[])
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=30)
    seen, tracker = Seen(teacher_price=price), CostTracker(teacher_price=price)
    chain.invoke(problem.question, {"callbacks": [seen.handler, tracker]})
    (span,) = seen.spans("teacher")
    own = isinstance(price, dict) and "o4-mini" in price
    rates = (3, 7) if own else (0.55, 2.2)  # half of the standard tier's 1.10 and 4.40
    assert span.attributes["gkt.cost.usd"] == pytest.approx((7 * rates[0] + 30 * rates[1]) / 1e6)
    assert span.attributes["gkt.cost.usd"] == float(tracker.report().teacher.known_cost)
    assert (span.attributes["gkt.cost.source"],) == tuple(tracker.report().teacher.sources)


def test_errors_are_marked_and_retries_told_apart(student, problem) -> None:
    broken = WordTeacher(fails_with=ConnectionError("no route"), asked=[])
    teacher = broken.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    chain, seen = GuidedKnowledgeTransferChain(teacher=teacher, student=student), Seen()
    with pytest.raises(TeacherError, match="no route"):
        chain.invoke(problem.question, seen.config)
    (flow,), tries = seen.spans(name=WORKFLOW), seen.spans("teacher")
    assert [s.parent.span_id for s in tries] == [flow.context.span_id] * 2
    assert {s.attributes["error.type"] for s in tries} == {"ConnectionError"}
    assert flow.attributes["error.type"] == "TeacherError"
    assert {s.status.status_code for s in (flow, *tries)} == {StatusCode.ERROR}
    labels = {"error.type": "ConnectionError"}
    assert [p.count for p in seen.points("gen_ai.client.operation.duration", labels)] == [2]
    assert not left_open(seen.handler)


@pytest.mark.slow
async def test_a_closed_stream_is_no_error(chain, problem) -> None:
    seen = Seen()
    stream = chain.stream(problem.question, seen.config)
    next(stream), next(stream)
    stream.close()
    stream = chain.astream(problem.question, seen.config)
    await anext(stream), await anext(stream)
    await stream.aclose()
    forgotten = chain.stream(problem.question, seen.config)
    next(forgotten), next(forgotten)
    del forgotten
    gc.collect()
    seen.check_tree(3)
    closed = [*seen.spans("student"), *seen.spans(name=WORKFLOW)]
    assert all(s.attributes.get("gkt.closed_early") for s in closed)
    assert {s.status.status_code for s in closed} == {StatusCode.UNSET}


class HangingTeacher(WordTeacher):
    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
        await asyncio.sleep(60)


async def test_a_cancelled_call_is_closed_though_its_task_lives_on(student, problem) -> None:
    teacher, seen = HangingTeacher(asked=[]), Seen()
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student)
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    loop.call_later(0.05, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await chain.ainvoke(problem.question, seen.config)
    await asyncio.sleep(0.01)
    (flow,), (big,) = seen.spans(name=WORKFLOW), seen.spans("teacher")
    assert flow.attributes["gkt.closed_early"] and big.attributes["gkt.closed_early"]
    assert not left_open(seen.handler)


@pytest.mark.slow
def test_threads_lose_nothing_and_two_ears_hear_once(chain, problem) -> None:
    seen = Seen()
    twice = {"callbacks": [seen.handler, seen.handler]}
    owned = chain.model_copy(update={"callbacks": [copy.deepcopy(seen.handler)]})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: owned.invoke(problem.question, twice), range(16)))
    seen.check_tree(16)
    assert sum(p.count for p in seen.points("gen_ai.client.operation.duration")) == 32


def test_a_chain_that_teaches_another_is_metered_once(chain, student, problem) -> None:
    seen = Seen()
    outer = GuidedKnowledgeTransferChain(teacher=chain.with_retry(), student=student)
    outer.invoke(problem.question, seen.config)
    inner, whole = seen.spans(name=WORKFLOW)  # in the order they ended
    assert inner.parent.span_id == whole.context.span_id
    assert inner.attributes["gkt.role"] == "teacher"
    (big,) = seen.spans("teacher")
    assert big.parent.span_id == inner.context.span_id
    points = seen.points("gen_ai.client.operation.duration")
    assert sum(p.count for p in points) == 1 + len(seen.spans("student"))


@pytest.mark.slow
def test_a_cached_answer_costs_nothing(chain, problem) -> None:
    seen = Seen()
    teacher = chain.teacher.model_copy(update={"cache": InMemoryCache()})
    cached = chain.model_copy(update={"teacher": teacher})
    for _ in range(2):
        cached.invoke(problem.question, seen.config)
    first, again = seen.spans("teacher")
    assert "gkt.cost.usd" in first.attributes and "gkt.cost.usd" not in again.attributes
    assert again.attributes["gkt.cache_hit"] is True
    assert [p.count for p in seen.points("gen_ai.client.token.usage", TEACHER)] == [1, 1]


@pytest.mark.slow
def test_content_only_where_asked_for(chain, whole_student, problem) -> None:
    chain = chain.model_copy(update={"student": whole_student})
    call = {"name": "add", "args": {"a": 1}, "id": "c1"}
    asked = [
        HumanMessage(problem.question),
        AIMessage("", tool_calls=[call]),
        ToolMessage("2", tool_call_id="c1"),
        HumanMessage("Go on."),
    ]
    silent, seen = Seen(), Seen(capture_content=True)
    text = str(chain.invoke(asked, {"callbacks": [silent.handler, seen.handler]}).text)
    assert problem.question not in str([s.attributes for s in silent.spans(name="")])
    (flow,) = seen.spans(name=WORKFLOW)
    told = json.loads(flow.attributes["gen_ai.input.messages"])
    assert [m["role"] for m in told] == ["user", "assistant", "tool", "user"]
    (wanted,), (answer,) = told[1]["parts"], told[2]["parts"]
    assert wanted == {"type": "tool_call", "id": "c1", "name": "add", "arguments": {"a": 1}}
    assert answer == {"type": "tool_call_response", "id": "c1", "response": "2"}
    (reply,) = json.loads(flow.attributes["gen_ai.output.messages"])
    assert reply["parts"] == [{"type": "text", "content": text}]
    assert (reply["role"], reply["finish_reason"]) == ("assistant", "stop")


def test_a_servers_address_and_a_fallback(student, problem) -> None:
    given = {"base_url": "http://127.0.0.1:9/v1", "api_key": "none", "max_retries": 0}
    teacher = ChatOpenAI(model="gpt-4o-mini", **given)
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher, student=student, on_teacher_error="student"
    )
    seen = Seen()
    chain.invoke(problem.question, seen.config)
    (flow,), (big,) = seen.spans(name=WORKFLOW), seen.spans("teacher", "chat gpt-4o-mini")
    labels = {"server.address": "127.0.0.1", "server.port": 9, "gen_ai.provider.name": "openai"}
    assert labels.items() <= dict(big.attributes).items()
    assert seen.points("gen_ai.client.operation.duration", labels)
    assert flow.attributes["gkt.fallback"].startswith(big.attributes["error.type"])


@pytest.mark.slow
def test_without_the_extra(light) -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None
import langchain_gkt.costs
import langchain_gkt.telemetry
"""
    run = light.run(code)
    assert run.stderr.endswith('missing: pip install "langchain-gkt[otel]"\n'), run.stderr


def test_refuses_what_is_no_price() -> None:
    with pytest.raises(TypeError, match="teacher_price must be a Price"):
        OpenTelemetryHandler(teacher_price=0.15)
    with pytest.raises(TypeError, match="student_price must be a Price"):
        OpenTelemetryHandler(student_price=MachineTime(usd_per_hour=1))
