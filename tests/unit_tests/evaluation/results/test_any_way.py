"""The choice among every way that was measured, and what else the money buys."""

from __future__ import annotations

import pandas
import pytest
from support.models.exam import PRICE, pair, solution, task

from langchain_gkt import AgreementGate, ConfidenceGate, GuidancePolicy
from langchain_gkt.evaluation import sweep, sweep_policies
from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.any_way import Measured, choose_any_way
from langchain_gkt.evaluation.results.outcomes import OutcomeMatrix

ROWS = 100
GATE = AgreementGate(samples=5, at_least=3)


def matrix(*, agreement: list[float], teacher_cost: float = 1.0, prefix: float = 0.0):
    """Rows of which the student answers those rightly on which its samples agree."""
    alone = [share >= 0.8 for share in agreement]
    names = [f"row-{n:03}" for n in range(ROWS)]
    right = {0: alone, 10: alone, "vote of 5": alone, TEACHER_ALONE: [True] * ROWS}
    cost = {0: 0.0, 10: prefix, "vote of 5": 0.0, TEACHER_ALONE: teacher_cost}
    return OutcomeMatrix(
        right=pandas.DataFrame(right, index=names),
        cost=pandas.DataFrame({n: [price] * ROWS for n, price in cost.items()}, index=names),
        signals=[{"agreement": share} for share in agreement],
        unasked=frozenset({0, "vote of 5"}),
    )


AGREEMENT = [0.4 if n % 5 < 2 else 1.0 for n in range(ROWS)]  # the student is right on 60%


def of(outcomes: OutcomeMatrix, **policy: object) -> Measured:
    return Measured(outcomes=outcomes, gates=[GATE], policy=GuidancePolicy(**policy))


@pytest.mark.parametrize("goal", [{"max_loss": 0.0}, {"max_bill": 0.5}])
def test_the_gate_that_keeps_all_is_taken(goal) -> None:
    choice = choose_any_way({"": of(matrix(agreement=AGREEMENT))}, **goal)
    assert isinstance(choice.policy.gate, AgreementGate)
    assert 2 < choice.policy.gate.at_least <= 5
    assert choice.policy.ladder == (0, "all")
    assert choice.kept == 1.0
    share = choice.unseen.asked
    assert choice.bill == pytest.approx(share)
    rivals = {one.name: one for one in choice.rivals}
    assert rivals["random router"].accuracy == pytest.approx((1 - share) + share * share)
    assert rivals["oracle"].accuracy == 1.0
    assert "confidence cascade" not in rivals  # this student reports no probabilities
    assert "random router" in str(choice)


def test_within_a_small_bill_the_student_alone_is_taken() -> None:
    choice = choose_any_way({"": of(matrix(agreement=AGREEMENT))}, max_bill=0.01)
    assert choice.policy == GuidancePolicy(tokens=0)


def test_of_equal_ways_the_simplest_is_taken() -> None:
    """Where all answers agree, the student alone does what each gate does."""
    choice = choose_any_way({"": of(matrix(agreement=[1.0] * ROWS))}, max_loss=0.5)
    assert choice.policy == GuidancePolicy(tokens=0)


def test_where_nothing_else_is_enough_the_teacher_answers_alone() -> None:
    never = matrix(agreement=[0.2] * ROWS)
    choice = choose_any_way({"": Measured(outcomes=never)}, max_loss=0.0)
    assert choice.policy == GuidancePolicy(ladder=("all",))
    assert (choice.kept, choice.bill) == (1.0, 1.0)


def test_prompts_are_ways_too() -> None:
    whole = matrix(agreement=[0.2] * ROWS)
    short = matrix(agreement=[0.2] * ROWS, teacher_cost=0.25)
    choice = choose_any_way({"whole": of(whole), "short": of(short, cut="step")}, max_loss=0.0)
    assert (choice.name, choice.policy.cut) == ("short", "step")
    assert choice.bill == pytest.approx(0.25)
    cheapest = choice.rivals[1]
    assert cheapest == ("cheapest teacher-only prompt: short", 1.0, 0.25)


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ({"max_bill": 0}, "max_bill must be a share above 0"),
        ({"max_bill": True}, "max_bill must be a share above 0"),
        ({"max_loss": 1.5}, "max_loss must be a share"),
    ],
)
def test_goals_are_checked(goal, said) -> None:
    with pytest.raises(ValueError, match=said):
        choose_any_way({"": of(matrix(agreement=AGREEMENT))}, **goal)


def test_a_sweep_chooses_and_a_chain_takes_the_choice(tmp_path) -> None:
    found = sweep(pair(), task(12), lengths=[6], teacher_price=PRICE, progress=False)
    choice = found.choose(gate="any", max_loss=0.0)
    assert choice.unseen.rows == 6
    assert "random router" in found.markdown()
    choice.policy.save(tmp_path / "policy.json")
    assert GuidancePolicy.load(tmp_path / "policy.json") == choice.policy
    assert found.choose(max_bill=0.5).bill <= 0.7
    with pytest.raises(ValueError, match="leave predictor and other gates out"):
        found.choose(max_bill=0.5, gate=ConfidenceGate(below=0.5))


def test_the_whole_answer_of_every_question() -> None:
    chain = pair(guidance=GuidancePolicy(ladder=("all",)))
    message = chain.invoke("What is one more than 11?")
    assert message.text == solution(11)
    assert message.response_metadata["gkt"]["finished_by"] == "teacher"


def test_policies_are_chosen_among() -> None:
    policies = {"whole": None, "step": {"cut": "step"}}
    found = sweep_policies(pair(), task(8), policies, lengths=[6], progress=False)
    choice = found.choose_any(max_loss=0.0)
    assert choice.name in policies
    assert "cheapest teacher-only prompt" in str(choice)
