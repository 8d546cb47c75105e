"""What a call tells the handlers that count and limit its costs."""

from __future__ import annotations

import inspect
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from support.models.fakes import WordTeacher

from langchain_gkt import CircuitBreaker, GuidedKnowledgeTransferChain, track_costs
from langchain_gkt.costs.context import _FanOut
from langchain_gkt.costs.observer import CallObserver, observers_in
from langchain_gkt.costs.runs.listener import RunListener


def chain(**fields: Any) -> GuidedKnowledgeTransferChain:
    teacher = WordTeacher(answer="First.", asked=[], fails_with=ConnectionError("no route"))
    student = WordTeacher(answer="and so on.", asked=[])
    return GuidedKnowledgeTransferChain(
        teacher=teacher, student=student, on_teacher_error="student", **fields
    )


def test_a_block_hears_of_the_circuit_breaker() -> None:
    guarded = chain(circuit_breaker=CircuitBreaker(failures=1))
    with track_costs() as outer, track_costs() as inner:
        guarded.invoke("Hello")
        guarded.invoke("Hello again")
    for costs in (outer, inner):
        (state,) = costs.report().to_dict()["circuit_breakers"].values()
        assert (state["state"], state["refused_calls"]) == ("open", 1)


def test_a_block_forwards_all_that_a_tracker_hears() -> None:
    heard = {
        name
        for kind in (CallObserver, RunListener)
        for name, value in vars(kind).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    assert {"admit_teacher", "add_breaker", "end_run", "on_llm_end"} <= heard
    assert heard - vars(_FanOut).keys() == set()


def test_only_observers_are_asked() -> None:
    class LooksLikeOne(BaseCallbackHandler):
        def admit_teacher(self, *args: Any, **kwargs: Any) -> None:
            raise AssertionError("it is no observer")

    class Listens(BaseCallbackHandler, CallObserver):
        """Hears nothing, refuses nothing."""

    guarded = chain(circuit_breaker=CircuitBreaker())
    guarded.invoke("Hello", {"callbacks": [LooksLikeOne(), Listens()]})
    assert len(observers_in([LooksLikeOne(), Listens()])) == 1
