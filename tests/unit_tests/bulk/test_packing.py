"""Several questions in one call of the teacher: the prompt, the reply, and each row's bill."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_openai import ChatOpenAI
from pydantic import Field
from support.models.saying import Adding

from langchain_gkt import Budget, GuidedKnowledgeTransferChain, LastTurns, Price
from langchain_gkt.bulk import BulkOptions
from langchain_gkt.bulk.chains import GuidanceKeys, read_prompt
from langchain_gkt.bulk.controller import JobController, JobSettings
from langchain_gkt.bulk.packed_stage import PackedTeacherStage, _held_to_schema
from langchain_gkt.bulk.packing import (
    check_packable,
    packed_messages,
    read_beginnings,
    shared_out,
)
from langchain_gkt.bulk.stages import StageSettings
from langchain_gkt.costs import BillingScenario, CachedPrefix
from langchain_gkt.evaluation.running.records import ModelUsage

PRICE = Price("1", "4")
FRONT = "Q: 1 + 1?\nA: It is 2.\n\nQ: 2 + 2?\nA: It is 4.\n\n"


def test_what_all_prompts_begin_with_is_written_once_in_front() -> None:
    (message,) = packed_messages([f"{FRONT}Q: {n} + 5?\nA:" for n in (3, 4)], 40)
    text = str(message.content)
    assert text.startswith(FRONT.rstrip())
    assert text.count("It is 2.") == 1
    assert text.endswith("Question 1:\nQ: 3 + 5?\nA:\n\nQuestion 2:\nQ: 4 + 5?\nA:")
    (message,) = packed_messages(["3 + 5?", "4 + 5?"], 40)
    assert str(message.content).startswith("Answer each of the 2 questions")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"1": "a b", "2": " c "}', {0: "a b", 1: "c"}),
        ('Here: ```json\n{"2": "c"}\n```', {1: "c"}),
        ('{"1": "a", "2": "c d', {0: "a", 1: "c d"}),  # cut off by the limit
        ('{"1": "", "2": 7, "3": "x", "0": "y", "one": "z"}', {}),
        ('{"1": "...", "2": "- ok"}', {1: "- ok"}),  # the request's own dots are no beginning
        ("1. Take 3\nand 5.\n2) Take 4.", {0: "Take 3\nand 5.", 1: "Take 4."}),
        ("**1.** Take 3", {0: "Take 3"}),
        ("I will not.", {}),
        ("", {}),
    ],
)
def test_replies_are_read_whatever_their_form(text: str, found: dict[int, str]) -> None:
    assert read_beginnings(text, 2) == found


@given(
    tokens=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
    cost=st.decimals(0, 1000, places=9),
    texts=st.lists(st.text(max_size=50), min_size=1, max_size=9),
)
def test_the_shares_sum_up_to_the_bill(
    tokens: tuple[int, int], cost: Decimal, texts: list[str]
) -> None:
    part = ModelUsage(
        calls=1,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
        prompt_cost=str(cost),
        completion_cost=str(cost / 3),
    )
    shares = shared_out(part, texts)
    assert sum(one.calls for one in shares) == 1
    assert sum(one.prompt_tokens for one in shares) == tokens[0]
    assert sum(one.completion_tokens for one in shares) == tokens[1]
    assert sum(Decimal(str(one.prompt_cost)) for one in shares) == cost
    assert sum(Decimal(str(one.completion_cost)) for one in shares) == cost / 3
    assert min(one.completion_tokens for one in shares) >= 0
    unknown = shared_out(ModelUsage(prompt_cost=None), texts)
    assert {one.prompt_cost for one in unknown} == {None}


class Packed(BaseChatModel):
    """Answers packs by a function of their questions' count, and single questions in full."""

    says: Callable[[int], Any] = Field(exclude=True)
    asked: list[Any] = Field(default_factory=list)
    max_tokens: int | None = None
    model_name: str = "packed"

    @property
    def _llm_type(self) -> str:
        return "packed"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> Any:
        text = str(messages[-1].content)
        count = text.count("Question ")
        self.asked.append((count, self.max_tokens, stop))
        said = self.says(count) if count else "Alone it is so and so."
        if isinstance(said, Exception):
            raise said
        usage: Any = {"input_tokens": 101, "output_tokens": 31, "total_tokens": 132}
        message = AIMessage(said, usage_metadata=usage, response_metadata={"finish_reason": "stop"})
        return ChatResult(generations=[ChatGeneration(message=message)])


class _Actor:
    """A controller whose methods are called as those of an actor."""

    def __init__(self, controller: JobController) -> None:
        self.inner = controller

    def __getattr__(self, name: str) -> Any:
        async def remote(*args: Any, **kwargs: Any) -> Any:
            return getattr(self.inner, name)(*args, **kwargs)

        call = ModuleType(name)
        call.remote = remote  # type: ignore[attr-defined]
        return call


def run(
    monkeypatch: Any, says: Callable[[int], Any], prompts: list[Any], **options: Any
) -> tuple[list[Any], JobController, Packed]:
    teacher = Packed(says=says)
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Adding(), guidance_tokens=40)
    ray, exceptions = ModuleType("ray"), ModuleType("ray.exceptions")
    ray.cloudpickle = ModuleType("cloudpickle")  # type: ignore[attr-defined]
    ray.cloudpickle.loads = lambda packed: chain  # type: ignore[attr-defined]
    exceptions.RayError = type("RayError", (Exception,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", exceptions)
    given_options = {"teacher_price": PRICE, "questions_per_call": 3, "attempts": 1, **options}
    settings = StageSettings(
        chain=b"", options=BulkOptions(**given_options), prompt_column="q", names={}
    )
    controller = JobController(JobSettings(budget=settings.options.budget))
    stage = PackedTeacherStage(settings, _Actor(controller))
    stage._slots = asyncio.Semaphore(4)
    rows = [str(n) for n in range(len(prompts))]
    return list(asyncio.run(stage.results_of(rows, prompts))), controller, stage.chain.teacher  # type: ignore[return-value]


def bill(results: list[Any]) -> tuple[Decimal, int, int]:
    costs = sum((one.part.cost for one in results), Decimal(0))
    tokens = sum(one.part.prompt_tokens + one.part.completion_tokens for one in results)
    return costs, tokens, sum(one.part.calls for one in results)


def everything(count: int) -> str:
    return json.dumps({str(n): f"Take number {n} and go on" for n in range(1, count + 1)})


def test_a_pack_is_one_call_whose_bill_the_rows_share(monkeypatch) -> None:
    results, controller, teacher = run(monkeypatch, everything, ["a?", "b?", "c?", "d?", "e?"])
    assert [one.guidance.strip() for one in results] == [
        f"Take number {n} and go on" for n in (1, 2, 3, 1, 2)
    ]
    assert [count for count, _, _ in teacher.asked] == [3, 2]
    assert teacher.asked[0][1] == 3 * (60 + 8)
    report = controller.report()["teacher"]
    costs, tokens, calls = bill(results)
    assert (costs, tokens, calls) == (Decimal(report["cost"]), 2 * 132, 2)
    assert not any(one.finished for one in results)
    assert (controller.report()["in_flight"], controller.report()["lost_calls"]) == (0, 0)


def test_a_job_is_billed_in_its_scenario(monkeypatch) -> None:
    front = CachedPrefix(tokens=50, min_tokens=1, hit_rate=1.0, read_rate="0.1")
    scenario = BillingScenario(price=PRICE, cached_prefix=front, tier="batch", tier_rate="0.5")
    prompts, asked = ["a?", "b?"], {"teacher_price": None, "scenario": scenario}
    results, controller, _ = run(monkeypatch, everything, prompts, **asked)
    costs, _, _ = bill(results)
    assert costs == (Decimal("51") + 5 + 31 * 4) / 2 / 1_000_000
    assert costs == Decimal(controller.report()["teacher"]["cost"])
    budget = {"budget": Budget(usd="0.00005"), **asked}  # the most it can come to is more
    results, _, teacher = run(monkeypatch, everything, prompts, **budget)
    assert teacher.asked == []
    assert all("BudgetExceeded" in str(one.error) for one in results)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scenario": "batch"}, "scenario must be a BillingScenario"),
        ({"scenario": BillingScenario(price=PRICE), "teacher_price": PRICE}, "leave teacher_price"),
        ({"scenario": BillingScenario(price="openai:gpt-99")}, "scenario.price='openai:gpt-99'"),
        (
            {"scenario": BillingScenario(cached_prefix=CachedPrefix(hit_rate=0.5))},
            "give CachedPrefix(tokens=...)",
        ),
    ],
)
def test_a_scenario_that_cannot_be_applied_is_refused_before_the_job(options, words) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        BulkOptions(**options)
    assert words in str(refused.value)


def test_what_is_missing_is_asked_once_more_alone(monkeypatch) -> None:
    results, controller, teacher = run(
        monkeypatch, lambda count: '{"1": "Take one", "3": "Take three"}', ["a?", "b?", "c?"]
    )
    assert [one.guidance.strip() for one in results] == [
        "Take one",
        "Alone it is so and so.",
        "Take three",
    ]
    assert [count for count, _, _ in teacher.asked] == [3, 0]
    costs, tokens, calls = bill(results)
    assert (costs, tokens, calls) == (Decimal(controller.report()["teacher"]["cost"]), 264, 2)


@pytest.mark.parametrize("says", ["I will not.", RuntimeError("down")])
def test_a_pack_that_gives_nothing_falls_apart_into_single_calls(monkeypatch, says) -> None:
    results, controller, teacher = run(monkeypatch, lambda count: says, ["a?", "b?"])
    assert [one.error for one in results] == [None, None]
    assert {one.guidance.strip() for one in results} == {"Alone it is so and so."}
    assert [count for count, _, _ in teacher.asked] == [2, 0, 0]
    paid = controller.report()["teacher"]
    assert paid["calls"] == 3
    assert [one.part.calls for one in results] == [2, 1]  # the first row carries the pack's own
    if says == "I will not.":
        costs, tokens, _ = bill(results)
        assert (costs, tokens) == (Decimal(paid["cost"]), 3 * 132)
    else:  # what it cost is not known, and not 0
        assert results[0].part.cost is None
    assert all(one.error is None for one in results)


def test_bad_rows_and_repeated_prompts_do_not_join_a_pack(monkeypatch) -> None:
    results, controller, teacher = run(monkeypatch, everything, ["a?", 7, "a?", "", "b?"])
    assert [count for count, _, _ in teacher.asked] == [2]
    assert [one.guidance.strip() for one in results] == [
        *("Take number 1 and go on", "", "Take number 1 and go on", "", "Take number 2 and go on")
    ]
    assert "holds a int" in str(results[1].error)
    assert [one.part.calls for one in results] == [1, 0, 0, 0, 0]
    assert bill(results)[0] == Decimal(controller.report()["teacher"]["cost"])


def test_what_cannot_be_packed_is_refused() -> None:
    fields: dict[str, Any] = {"teacher": Packed(says=everything), "student": Adding()}
    with pytest.raises(NotImplementedError, match="mode='teacher' needs other answers"):
        check_packable(GuidedKnowledgeTransferChain(**fields, mode="teacher"))
    with pytest.raises(NotImplementedError, match="teacher_prompt would change it"):
        check_packable(GuidedKnowledgeTransferChain(**fields, teacher_prompt=LastTurns()))
    with pytest.raises(ValueError, match="questions_per_call must be a whole number"):
        BulkOptions(questions_per_call=0)
    with pytest.raises(ValueError, match="raise rows_per_block"):
        BulkOptions(questions_per_call=5, rows_per_block=4)
    chain, messages = GuidedKnowledgeTransferChain(**fields), read_prompt("a?", "q")
    keys = [GuidanceKeys(chain, questions_per_call=n).of(messages) for n in (1, 2, 3)]
    assert len({*keys, GuidanceKeys(chain).of(messages)}) == 3


def test_a_teacher_that_can_be_held_to_a_schema_is() -> None:
    live: Any = ChatOpenAI(model="gpt-5-mini", api_key="none")  # type: ignore[arg-type]
    bound = _held_to_schema(live, 2)
    schema = bound.kwargs["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["1", "2"]
    plain = Packed(says=everything)
    assert _held_to_schema(plain, 2) is plain


def test_a_budget_holds_for_a_pack_as_a_whole(monkeypatch) -> None:
    results, controller, teacher = run(
        monkeypatch, everything, ["a?", "b?", "c?"], budget=Budget(tokens=30)
    )
    assert teacher.asked == []  # the most that a pack, or one question, can come to is more
    assert all("BudgetExceeded" in str(one.error) for one in results)
    results, controller, _ = run(monkeypatch, everything, ["a?", "b?"], budget=Budget(tokens=5000))
    report = controller.report()
    assert [one.error for one in results] == [None, None]
    assert (report["budget"]["spent_tokens"], report["teacher"]["calls"]) == (132, 1)


def test_a_budget_may_name_the_teachers_price(monkeypatch) -> None:
    budget = Budget(usd="5", teacher_price=PRICE)
    asked = {"teacher_price": None, "budget": budget}
    results, controller, _ = run(monkeypatch, everything, ["a?", "b?"], **asked)
    assert [one.error for one in results] == [None, None]
    assert bill(results)[0] == Decimal(controller.report()["teacher"]["cost"]) > 0
