"""Sweeps that measure how far the student's own answers agree."""

from __future__ import annotations

from typing import Any

import pytest
from support.models.exam import PRICE, Needy, number_of, pair, solution, task

from langchain_gkt import AgreementGate, GuidancePolicy
from langchain_gkt.evaluation import compare, load_run, sweep, sweep_policies
from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE

GATE = AgreementGate(samples=5, at_least=2, answer_of="number")


class Voter(Needy):
    """A student whose samples agree on even numbers, on some odd ones by four in five.

    Its greedy answer to an odd number is wrong; of 11, 15, ... all samples differ.
    """

    sampled: Any = None

    def sample_arguments(self, index: int) -> dict[str, Any]:
        return {"seed": index}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        result = super()._generate(messages, stop, run_manager, **kwargs)
        if "seed" in kwargs:
            if self.sampled is not None:
                self.sampled.append({**kwargs, "stop": stop})
            number, seed = number_of(messages), kwargs["seed"]
            known = number % 2 == 0 or (number % 4 == 1 and seed)
            text = solution(number) if known else f"no idea. The answer is {1000 + seed}."
            result.generations[0].message.content = text
        return result


def voting(**fields: Any) -> Any:
    return pair().model_copy(update={"student": Voter(**fields), "answer_of": "number"})


def swept(chain: Any, **more: Any) -> Any:
    more = {"teacher_price": PRICE, "student_price": PRICE, "gates": [GATE], **more}
    return sweep(chain, task(16), lengths=[2], **more)


def test_a_threshold_is_chosen_and_a_chain_gives_what_the_sweep_says(tmp_path) -> None:
    found = swept(voting(), student_price=None, out=tmp_path / "run")
    choice = found.choose(max_loss=0.0, gate=GATE)
    assert choice.policy.gate == AgreementGate(samples=5, at_least=4, answer_of="number")
    assert (choice.policy.ladder, choice.policy.tokens) == ((0, "all"), None)
    assert choice.unseen.accuracy == 1.0 and choice.unseen.asked < 0.5
    assert "the teacher's whole answer where fewer than 4 of 5 agree" in str(choice)
    choice.policy.save(tmp_path / "policy.json")
    policy = GuidancePolicy.load(tmp_path / "policy.json")
    assert policy == choice.policy
    again = load_run(str(tmp_path / "run"))
    assert again.choices()["agreement"].policy == found.choices()["agreement"].policy


def test_the_samples_are_on_the_bill_as_in_a_chain() -> None:
    found = swept(voting())
    gate = AgreementGate(samples=5, at_least=4, answer_of="number")
    point = found.outcomes.point(TEACHER_ALONE, gate)
    policy = GuidancePolicy(gate=gate, ladder=(0, "all"))
    chain = voting().model_copy(update={"guidance": policy})
    real = compare(
        chain, task(16), modes=["guided"], teacher_price=PRICE, student_price=PRICE
    ).summaries["guided"]
    assert (point.accuracy, point.asked) == (real.accuracy, 4 / 16) == (1.0, 4 / 16)
    assert point.cost == pytest.approx(float(real.cost) * 1000 / 16)
    [vote] = [one for one in found.answers if one.mode == "vote of 5"][:1]
    assert vote.student.calls == 5 and vote.student.completion_tokens > 5


def test_frontier_and_table_show_the_cascade_beside_the_random_router() -> None:
    found = swept(voting())
    tables = {table.title: table for table in found.tables()}
    frontier = tables["Accuracy for its cost"]
    rows = [dict(zip(frontier.head, row, strict=True)) for row in frontier.rows]
    best = next(row for row in rows if row["asks below"] == "4 of 5 agree")
    assert (best["kind"], best["guidance"], best["accuracy"]) == (
        "agreement",
        "whole answer",
        "100.0%",
    )
    costs = [found.outcomes.point(n).cost for n in (0, TEACHER_ALONE)]
    spent = found.outcomes.point(TEACHER_ALONE, AgreementGate(at_least=4, answer_of="number")).cost
    lots = 0.5 + 0.5 * min(1, (spent - costs[0]) / (costs[1] - costs[0]))
    assert best["over router"] == f"{100 * (1 - lots):+.1f}"
    vote = next(row for row in rows if row["kind"] == "vote of 5")
    assert (vote["asked"], vote["accuracy"]) == ("0.0%", "75.0%")
    assert "of the student a question, 5.0 times those of one answer" in str(found.table())
    assert "agreement" in tables["What an accuracy costs, $ per 1,000 answers"].head
    names = found.figures()["frontier"].axes[0].get_legend_handles_labels()[1]
    assert {"agreement", "random router"} <= set(names)


def test_samples_keep_to_the_limits_of_the_chain() -> None:
    sampled: list[dict[str, Any]] = []
    chain = voting(sampled=sampled).model_copy(update={"max_tokens": 33, "stop": ["\n\n"]})
    swept(chain)
    assert len(sampled) == 16 * 5
    first = sampled[0]
    assert (first["max_tokens"], first["stop"], first["temperature"]) == (33, ["\n\n"], 0.7)


def test_a_gate_is_measured_once_for_all_thresholds(tmp_path) -> None:
    sampled: list[Any] = []
    swept(voting(sampled=sampled), out=tmp_path)
    other = AgreementGate(samples=5, at_least=5, answer_of="number")
    swept(voting(sampled=sampled), out=tmp_path, gates=[other])
    assert len(sampled) == 16 * 5
    with pytest.raises(ValueError, match=r"gates=.*'samples': 5.* and now it is .*'samples': 3"):
        swept(voting(), out=tmp_path, gates=[AgreementGate(answer_of="number", samples=3)])
    policies = {"word": None, "step": {"cut": "step"}}
    sampled.clear()
    compared = sweep_policies(
        voting(sampled=sampled), task(8), policies, lengths=[2], gates=[GATE], teacher_price=PRICE
    )
    assert len(sampled) == 8 * 5
    assert compared.choose(gate=GATE, max_loss=0.0).policy.ladder == (0, "all")


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (AgreementGate(samples=3, answer_of="number"), "is not the gate that was measured"),
        (AgreementGate(answer_of="option"), "is not the gate that was measured"),
        (AgreementGate(answer_of="number", temperature=1.5), "is not the gate that was measured"),
    ],
)
def test_another_gate_than_the_measured_one_is_refused(gate, said) -> None:
    with pytest.raises(ValueError, match=said):
        swept(voting()).choose(gate=gate)


def test_a_gate_that_was_not_measured_is_refused() -> None:
    found = swept(voting(), gates=[])
    with pytest.raises(ValueError, match=r"\(vote of 5\) were not recorded .* sweep\(gates="):
        found.choose(gate=GATE)
    with pytest.raises(ValueError, match="2 gates of the kind 'agreement'"):
        swept(voting(), gates=[GATE, AgreementGate(samples=3, answer_of="number")])


def test_the_task_says_what_makes_two_answers_the_same_unless_the_chain_does() -> None:
    chain = pair().model_copy(update={"student": Voter()})
    more = {"lengths": [2], "gates": [AgreementGate()]}
    by_task = sweep(chain, task(4, answer_of="number"), **more)
    assert by_task.gates == (AgreementGate(at_least=1, answer_of="number"),)
    assert sweep(chain, task(4), **more).gates == (AgreementGate(at_least=1, answer_of="text"),)
    with pytest.raises(ValueError, match="answer_of='numbr' is unknown"):
        task(4, answer_of="numbr")


def test_a_function_reads_answers_and_is_not_kept_in_a_file() -> None:
    chain = voting().model_copy(update={"answer_of": lambda text: text[-9:] or None})
    found = swept(chain, gates=[AgreementGate()], student_price=None)
    policy = found.choose(max_loss=0.0, gate=AgreementGate()).policy
    assert policy.gate.answer_of is None and policy.gate.at_least == 4


def test_samples_that_nobody_can_read_leave_the_students_own_answer() -> None:
    chain = voting().model_copy(update={"answer_of": lambda text: None})
    found = swept(chain, gates=[AgreementGate()])
    votes = [one for one in found.answers if one.mode == "vote of 5"]
    assert {one.fallback for one in votes} == {"no sample could be read"}
    alone = {one.row: one.text for one in found.answers if one.mode == "student"}
    assert all(one.text == alone[one.row] for one in votes)
    assert found.outcomes.point(TEACHER_ALONE, AgreementGate(at_least=1)).asked == 1.0
