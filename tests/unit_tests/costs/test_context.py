from __future__ import annotations

import contextvars

import pytest

from langchain_gkt import CostTracker, GuidedKnowledgeTransferChain, track_costs


@pytest.fixture
def chain(teacher, student) -> GuidedKnowledgeTransferChain:
    return GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=20)


def asked(tracker: CostTracker) -> int:
    return tracker.report().teacher.calls


@pytest.mark.slow
def test_blocks_nest_and_nothing_counts_twice(chain, problem) -> None:
    mine = CostTracker()
    owned = chain.model_copy(update={"callbacks": [mine]})
    with track_costs() as outer:
        with track_costs() as inner:
            owned.invoke(problem.question, {"callbacks": [mine, inner]})
        owned.invoke(problem.question)
    owned.invoke(problem.question)
    assert [asked(t) for t in (mine, outer, inner)] == [3, 2, 1]
    assert [t.report().to_dict()["teacher_only_estimate"]["calls"] for t in (mine, outer)] == [3, 2]


@pytest.mark.slow
def test_a_block_closed_in_another_context_counts_no_more_there(chain, problem) -> None:
    with track_costs() as outer:
        block = track_costs()
        entered = contextvars.copy_context()
        inner = entered.run(block.__enter__)
        elsewhere = entered.copy()
        elsewhere.run(block.__exit__, None, None, None)
        elsewhere.run(chain.invoke, problem.question)
        assert (asked(inner), asked(outer)) == (0, 1)
        block = track_costs()
        contextvars.copy_context().run(block.__enter__)
        block.__exit__(None, None, None)  # here, where it was never entered
        chain.invoke(problem.question)
    assert asked(outer) == 2
