"""A chain that counts or limits its costs goes through a pickle; what it spent goes along."""

from __future__ import annotations

import pickle
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.callbacks import CallbackManager
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from opentelemetry.trace import NoOpTracerProvider
from support.models.fakes import WordTeacher, make

from langchain_gkt import Budget, BudgetExceeded, CostTracker, Price
from langchain_gkt.telemetry import OpenTelemetryHandler

KEY = "sk-very-secret"


def models() -> tuple[WordTeacher, WordTeacher]:
    return WordTeacher(answer="Six apples."), WordTeacher(answer="and so on.")


def again(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


def test_a_budget_goes_on_from_what_is_spent() -> None:
    chain = make(*models(), guidance_tokens=6, budget=Budget(tokens=60))
    chain.invoke("Hello")
    loaded = again(chain)
    (tracker,) = loaded.callbacks
    assert tracker.report().budget["spent_tokens"] == 13
    loaded.invoke("Hello")
    loaded.invoke("Hello")
    with pytest.raises(BudgetExceeded, match="39 is spent or reserved"):
        loaded.invoke("Hello")
    assert chain.callbacks[0].report().budget["spent_tokens"] == 13  # they part


@pytest.mark.parametrize("managed", [False, True])
def test_a_tracker_goes_on_counting(managed) -> None:
    tracker = CostTracker(teacher_price=Price("2", "10"), keep_calls=True)
    handlers: Any = CallbackManager([tracker]) if managed else [tracker]
    chain = make(*models(), guidance_tokens=6, callbacks=handlers)
    chain.invoke("Hello")
    loaded = again(chain)
    loaded.invoke("Hello")
    found = loaded.callbacks.handlers[0] if managed else loaded.callbacks[0]
    assert (found.report().teacher.calls, len(found.calls)) == (2, 4)
    assert found.report().teacher.known_cost == 2 * tracker.report().teacher.known_cost
    assert (tracker.report().teacher.calls, found.report().running) == (1, 0)


def test_a_run_in_progress_stays_where_it_is() -> None:
    tracker = CostTracker()
    role = {"gkt_role": "teacher", "gkt_call_id": "1"}
    tracker.on_chat_model_start({}, [[HumanMessage("Hello")]], run_id=uuid4(), metadata=role)
    copied = again(tracker)
    assert (tracker.report().running, copied.report().running) == (1, 0)


def test_telemetry_is_set_up_anew() -> None:
    assert isinstance(again(OpenTelemetryHandler(capture_content=True)), OpenTelemetryHandler)
    with pytest.raises(TypeError, match="leave out tracer_provider="):
        pickle.dumps(OpenTelemetryHandler(tracer_provider=NoOpTracerProvider()))


def openai(**fields: Any) -> ChatOpenAI:
    return ChatOpenAI(model="m", base_url="http://127.0.0.1:1/v1", **{"api_key": KEY, **fields})


@pytest.mark.parametrize("given", [False, True])
def test_no_key_is_in_a_pickle(monkeypatch, given) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    fields = {} if given else {"api_key": None}
    local = WordTeacher(answer="and so on.")
    for chain in (
        make(openai(**fields), local),
        make(openai(**fields).with_retry(), local),
        make(local, openai(**fields)),
    ):
        assert KEY.encode() not in pickle.dumps(chain)
        loaded = again(chain)
        models = (loaded.teacher, loaded.student)
        assert any(isinstance(one, ChatOpenAI) or hasattr(one, "bound") for one in models)


def test_headers_and_bound_arguments_are_in_it() -> None:
    local = WordTeacher(answer="and so on.")
    for teacher in (
        openai(default_headers={"X-Key": "in-a-header"}),
        openai().bind(user="in-a-header"),
    ):
        assert b"in-a-header" in pickle.dumps(make(teacher, local))
