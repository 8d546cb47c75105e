"""A chain that counts or limits its costs goes through a pickle; what it spent goes along."""

from __future__ import annotations

import copy
import pickle
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import CallbackManager, UsageMetadataCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField
from langchain_openai import ChatOpenAI
from opentelemetry.trace import NoOpTracerProvider
from pydantic import SecretStr
from support.models.fakes import WordTeacher, make

from langchain_gkt import (
    Budget,
    BudgetExceeded,
    CostTracker,
    HuggingFaceStudent,
    Price,
    RecordedTeacher,
)
from langchain_gkt.demo.pair import STUDENT
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


class KeptKey(WordTeacher):
    """A model that holds a key but no client, so that any pickler could write it."""

    key: SecretStr | None = None


OF_CALLS = ConfigurableField(id="key")


@pytest.mark.parametrize("given", [False, True])
def test_no_key_is_in_a_pickle(monkeypatch, given) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    fields = {} if given else {"api_key": None}
    local = WordTeacher(answer="and so on.")
    for chain in (
        make(openai(**fields), local),
        make(openai(**fields).with_retry(), local),
        make(local, openai(**fields)),
        make(KeptKey(answer="Six.", key=SecretStr(KEY)).configurable_fields(key=OF_CALLS), local),
    ):
        assert KEY.encode() not in pickle.dumps(chain)
        loaded = again(chain)
        models = (loaded.teacher, loaded.student)
        assert any(
            isinstance(one, ChatOpenAI) or hasattr(one, "bound") or hasattr(one, "default")
            for one in models
        )


def test_headers_and_bound_arguments_are_in_it() -> None:
    local = WordTeacher(answer="and so on.")
    for teacher in (
        openai(default_headers={"X-Key": "in-a-header"}),
        openai().bind(user="in-a-header"),
    ):
        assert b"in-a-header" in pickle.dumps(make(teacher, local))


def limiter() -> InMemoryRateLimiter:
    return InMemoryRateLimiter(requests_per_second=1_000, max_bucket_size=9)


def with_locks(kind: str) -> Any:
    """A model of a kind, with what holds locks set on it."""
    locks: Any = {
        "rate_limiter": limiter(),
        "callbacks": [UsageMetadataCallbackHandler()],
        "cache": InMemoryCache(),
    }
    local = WordTeacher(answer="and so on.")
    return {
        "chain": lambda: make(*models(), **locks),
        "handlers": lambda: make(*models(), callbacks=CallbackManager(locks["callbacks"])),
        "teacher": lambda: make(WordTeacher(answer="Six.", **locks), local),
        "client": lambda: make(local, openai(rate_limiter=limiter())),
        "student": lambda: HuggingFaceStudent(model=str(STUDENT), max_tokens=2, **locks),
        "recorded": lambda: RecordedTeacher.from_answers({"Hello": "Six apples."}, **locks),
    }[kind]()


@pytest.mark.filterwarnings("ignore:1 of 1 recorded answers")
@pytest.mark.parametrize("kind", ["chain", "handlers", "teacher", "client", "student", "recorded"])
def test_what_holds_locks_goes_along(monkeypatch, kind) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    model = with_locks(kind)
    for other in (again(model), copy.deepcopy(model)):
        if kind == "client":
            assert isinstance(other.student, ChatOpenAI)
            assert other.student.rate_limiter.max_bucket_size == 9
        else:
            assert other.invoke("Hello").text == model.invoke("Hello").text


def test_copies_share_their_limiter_and_loaded_ones_have_their_own() -> None:
    chain = with_locks("chain")
    assert copy.deepcopy(chain).rate_limiter is chain.rate_limiter
    assert copy.deepcopy(chain).callbacks[0] is chain.callbacks[0]
    assert again(chain).rate_limiter is not chain.rate_limiter


def test_other_picklers_may_know_more() -> None:
    chain = make(*models(), teacher_prompt=lambda messages: messages)
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(chain)
    assert callable(chain.__getstate__()["__dict__"]["teacher_prompt"])
