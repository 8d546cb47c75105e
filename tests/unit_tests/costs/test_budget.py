from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from support.models.fakes import WordTeacher

from langchain_gkt import (
    Budget,
    BudgetExceeded,
    CostTracker,
    GuidedKnowledgeTransferChain,
    Price,
    track_costs,
)
from langchain_gkt.costs.budget import max_prompt_tokens
from langchain_gkt.costs.observer import CallObserver
from langchain_gkt.costs.usage import TokenRate, Tokens

PRICE = Price("2", "10")
MTOK = Decimal(1_000_000)


@pytest.fixture
def student() -> WordTeacher:
    """Quick to answer; what it says does not matter here."""
    return WordTeacher(answer="and so on.", asked=[])


@pytest.fixture
def chain(teacher, student) -> GuidedKnowledgeTransferChain:
    return GuidedKnowledgeTransferChain(
        teacher=teacher, student=student, guidance_tokens=20, max_tokens=24
    )


def spent(costs: CostTracker) -> tuple[Decimal, int]:
    teacher = costs.report().teacher
    return teacher.known_cost, teacher.prompt_tokens + teacher.completion_tokens


def test_a_call_that_could_pass_the_budget_is_not_made(chain, problem) -> None:
    with track_costs(budget=Budget(tokens=150)) as costs, pytest.raises(BudgetExceeded) as caught:
        for _ in range(99):
            chain.invoke(problem.question)
    assert "Budget.tokens=150 could be passed" in str(caught.value)
    assert "Budget(on_exceeded='student')" in str(caught.value)
    assert 27 <= spent(costs)[1] <= 150
    assert len(chain.teacher.asked) == costs.report().teacher.calls
    budget = costs.report().to_dict()["budget"]
    assert (budget["refused_calls"], budget["reserved_tokens"]) == (1, 0)
    assert budget["spent_tokens"] == spent(costs)[1]
    assert "1 call(s) refused" in str(costs.report())


def test_a_models_own_limit_is_reserved(student) -> None:
    def run(own: int | None, tokens: int) -> int:
        teacher = WordTeacher(answer="Plan.", num_predict=own, asked=[])
        chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, mode="teacher")
        with track_costs(budget=Budget(tokens=tokens)):
            chain.invoke("Why?")
        return len(teacher.asked)

    assert run(50, 200) == 1
    for own, tokens in ((None, 200), (-1, 200), (50_000, 10_000)):  # -1: no limit, as of Ollama
        with pytest.raises(BudgetExceeded):
            run(own, tokens)
    assert run(None, 10_000) == 1


async def test_the_student_goes_on_alone(chain, problem) -> None:
    budget = Budget(usd="0.0002", on_exceeded="student")
    with track_costs(teacher_price=PRICE, budget=budget) as costs:
        chain.invoke(problem.question)
        alone = [
            chain.invoke(problem.question),
            await chain.ainvoke(problem.question),
        ]
        streamed = list(chain.stream(problem.question))
    assert costs.report().teacher.calls == len(chain.teacher.asked) <= 1
    assert all(m.response_metadata["gkt"]["fallback"].startswith("BudgetExc") for m in alone)
    assert "".join(chunk.text for chunk in streamed) == alone[0].text
    assert not costs._calls
    assert not costs._aggregator.ledger._reservations


def test_a_budget_of_the_chain_itself(teacher, student, problem) -> None:
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher,
        student=student,
        guidance_tokens=20,
        max_tokens=24,
        budget=Budget(usd="0.0011", teacher_price=PRICE),
    )
    for runnable in (chain, chain.bind(max_tokens=22)):  # they share it
        runnable.invoke(problem.question)
    with pytest.raises(BudgetExceeded):
        for _ in range(9):
            chain.invoke(problem.question)
    assert 2 <= len(teacher.asked) <= 5
    with pytest.raises(BudgetExceeded):
        chain.guide(problem.question)
    with pytest.raises(BudgetExceeded):  # a baseline that became another would be a lie
        chain.invoke(problem.question, mode="teacher")


def test_one_dear_call(chain, problem) -> None:
    with (
        track_costs(teacher_price=PRICE, budget=Budget(per_call_usd="0.0001")),
        pytest.raises(BudgetExceeded, match="per_call_usd"),
    ):
        chain.invoke(problem.question)
    with track_costs(teacher_price=PRICE, budget=Budget(per_call_usd="0.01")):
        for _ in range(3):
            chain.invoke(problem.question)
    assert len(chain.teacher.asked) == 3


def test_an_unpriced_teacher_cannot_be_held_to_money(chain, problem) -> None:
    with (
        track_costs(budget=Budget(usd=1, on_exceeded="student")),
        pytest.raises(BudgetExceeded, match=r"needs its price.*unpriced.*teacher_price="),
    ):
        chain.invoke(problem.question)
    assert not chain.teacher.asked


@pytest.mark.parametrize("limits", [{"usd": "0.004"}, {"tokens": 500}])
def test_64_threads_never_overspend(student, problem, limits) -> None:
    barrier = threading.Barrier(64)
    teacher = WordTeacher(answer=problem.solution, asked=[])
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher, student=student, guidance_tokens=20, max_tokens=21
    )
    budget = Budget(**limits, on_exceeded="student")
    with track_costs(teacher_price=PRICE, budget=budget) as costs:
        config = {"callbacks": [costs]}
        chain.invoke(problem.question, config)  # so that prompts are known

        def ask(_: int) -> str | None:
            barrier.wait(30)
            message = chain.invoke(problem.question, config)
            return message.response_metadata["gkt"]["fallback"]

        with ThreadPoolExecutor(64) as pool:
            fallbacks = list(pool.map(ask, range(64)))
    usd, tokens = spent(costs)
    assert usd <= Decimal(limits.get("usd", "1"))
    assert tokens <= limits.get("tokens", 10**9)
    # Claims are upper estimates, all of them open at once; they are of the right size.
    assert 0 < sum(one is None for one in fallbacks) < 64
    assert tokens > limits.get("tokens", 0) / 2
    assert usd > Decimal(limits.get("usd", "0")) / 2
    assert not costs._aggregator.ledger._reservations


@pytest.mark.parametrize("seen", [0, 50, 200])
def test_a_prompt_denser_than_any_before_is_within_its_reservation(seen) -> None:
    rate = TokenRate()
    if seen:
        rate.learn(Tokens(prompt=seen, completion=0), prompt_chars=200, text_chars=0)
    prompt = [HumanMessage("x" * 200)]
    billed = 1.2 * seen or 100  # a token for every two characters, if nothing is known
    assert billed <= max_prompt_tokens(prompt, 200, rate) <= 2 * billed + 8


async def test_concurrent_tasks_never_overspend(chain, problem) -> None:
    budget = Budget(tokens=400, on_exceeded="student")
    with track_costs(budget=budget) as costs:
        await asyncio.gather(*(chain.ainvoke(problem.question) for _ in range(20)))
    assert 27 <= spent(costs)[1] <= 400
    assert costs.report().student.calls == 20


def test_a_reservation_ends_with_a_call_that_another_budget_refused(chain, problem) -> None:
    class Refuses(BaseCallbackHandler, CallObserver):
        run_inline = True

        def admit_teacher(self, *args, **kwargs) -> None:
            raise BudgetExceeded("no")

    with track_costs(budget=Budget(tokens=10_000)) as costs, pytest.raises(BudgetExceeded):
        chain.invoke(problem.question, {"callbacks": [Refuses()]})
    assert not costs._aggregator.ledger._reservations
    assert not costs._calls


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda: Budget(), ValueError, "limits nothing; give usd="),
        (lambda: Budget(usd=0.5), TypeError, r"Budget\.usd must be a Decimal.*not float"),
        (lambda: Budget(per_call_usd="-1"), ValueError, r"Budget\.per_call_usd must be 0 or more"),
        (lambda: Budget(tokens=-1), ValueError, r"Budget\.tokens must be 0 or more"),
        (lambda: Budget(tokens=1.5), TypeError, r"Budget\.tokens must be an int"),
        (lambda: Budget(tokens=1, on_exceeded="stop"), ValueError, "'raise' or 'student'"),
        (lambda: CostTracker(budget=5), TypeError, r"Budget\(usd='5'\), not int"),
    ],
)
def test_bad_budgets_are_named(make, kind, says) -> None:
    with pytest.raises(kind, match=says):
        make()
