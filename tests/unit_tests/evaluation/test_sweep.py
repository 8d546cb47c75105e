"""sweep(): one reply of the teacher stands for all guidance lengths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from langchain_core.messages import BaseMessage
from support.models.exam import PRICE, Telling, judge, number_of, pair, rows, task, words

from langchain_gkt import GuidancePolicy
from langchain_gkt.evaluation import Task, compare, load_run, sweep
from langchain_gkt.gates import ConfidenceGate, ThresholdGate

LENGTHS = [1, 2, 3, 5, 6, 8, 12, 14, 15, 16, 17, 30]


@pytest.mark.slow
def test_one_teacher_pass_gives_every_length_what_asking_gives() -> None:
    asked: list = []
    found = sweep(pair(teacher={"diary": asked}), task(6), lengths=LENGTHS, teacher_price=PRICE)
    assert len(asked) == 6
    assert dict(found.methods) == {"logprobs": 6}
    assert list(found.by_length) == [0, *LENGTHS]
    for length in LENGTHS:
        chain = pair(guidance_tokens=length)
        real = compare(chain, task(6), modes=["guided"], teacher_price=PRICE)
        cut = [answer for answer in found.answers if answer.length == length]
        for one, other in zip(real.answers, cut, strict=True):
            assert (one.text, one.guidance, one.verdicts) == (
                other.text,
                other.guidance,
                other.verdicts,
            )
            assert one.finished_by == other.finished_by
            assert one.teacher.completion_tokens == other.teacher.completion_tokens
            assert one.cost == other.cost
            assert one.leaked == other.leaked
    alone = compare(pair(), task(6), modes=["teacher"], teacher_price=PRICE)
    assert found.teacher.cost == alone.summaries["teacher"].cost


def test_asking_again_finds_the_same_guidance() -> None:
    found = sweep(pair(), task(5), lengths=[6], check_lengths=(2, 6, 14), check_rows=3)
    assert len(found.checks) == 9
    assert "9 of 9 guidances were the ones" in str(found)

    class Other(type(pair().teacher)):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            result = super()._generate(messages, stop, run_manager, **kwargs)
            if self.max_tokens is not None:
                result.generations[0].message.content = "Plan: something else altogether here"
            return result

    chain = pair().model_copy(update={"teacher": Other()})
    found = sweep(chain, task(5), lengths=[6], check_lengths=(6,), check_rows=3)
    assert "0 of 3 guidances were the ones" in str(found)


def test_signals_are_measured_once_and_kept_by_name(tmp_path) -> None:
    probed: list = []
    student = Telling(entropies=False, probed=probed)
    chain = pair().model_copy(update={"student": student})
    found = sweep(chain, task(6), lengths=[6], out=tmp_path / "a", concurrency=2)
    assert len(probed) == 6
    assert found.outcomes.tells_confidence and not found.outcomes.has_signal("entropy_1")
    lines = (tmp_path / "a" / "lines.jsonl").read_bytes()
    sweep(chain, task(6), lengths=[6], out=tmp_path / "a", concurrency=2)
    assert len(probed) == 6
    assert (tmp_path / "a" / "lines.jsonl").read_bytes() == lines
    student.entropies = True  # as another engine does
    found = sweep(chain, task(6), lengths=[6], concurrency=2)
    assert found.outcomes.has_signal("entropy_1")
    signals = next(answer.signals for answer in found.answers if answer.mode == "student")
    assert signals["probability_3"] == 0.99 and signals["entropy_32"] == 0.1


@dataclass(frozen=True, kw_only=True)
class LargeNumbers(ThresholdGate):
    """A gate of one's own: asks where the number in the question is above a threshold."""

    kind: ClassVar[str] = "large numbers"
    above: float = 0.0

    def measure(self, student: Any, messages: list[BaseMessage]) -> dict[str, float]:
        return {"number": float(number_of(messages))}

    def score(self, signals: Mapping[str, float]) -> float:
        return signals["number"]

    def decide(self, signals: Mapping[str, float]) -> str:
        return "some" if self.score(signals) > self.above else "none"

    def asking_above(self, score: float) -> LargeNumbers:
        return LargeNumbers(above=score)


def test_a_gate_of_ones_own_is_measured_calibrated_and_read_again(tmp_path) -> None:
    class Small(type(pair().student)):
        """Knows numbers below 20 by itself."""

        def _generate(self, messages, *args, **kwargs):
            self.needs = 0 if number_of(messages) < 20 else 5
            return super()._generate(messages, *args, **kwargs)

    chain = pair().model_copy(update={"student": Small()})
    more = {"lengths": [6], "teacher_price": PRICE, "out": tmp_path}
    found = sweep(chain, task(20), gates=[LargeNumbers()], **more)
    choice = found.choose(max_loss=0.0, gate=LargeNumbers())
    assert choice.unseen.accuracy == 1.0
    assert choice.unseen.cost < found.choose(max_loss=0.0).unseen.cost
    assert choice.policy.gate == choice.chosen.gate
    assert "LargeNumbers(above=" in str(choice)
    assert "signal_number" in found.to_frame()
    with pytest.raises(ValueError, match=r"signal 'number', which was not measured .*gates="):
        sweep(chain, task(4), lengths=[6]).choose(gate=LargeNumbers())
    again = load_run(str(tmp_path)).choose(max_loss=0.0, gate=LargeNumbers())
    assert again.chosen == choice.chosen
    with pytest.raises(ValueError, match=r"gates=\['large numbers'\], and now it is None"):
        sweep(chain, task(20), **more)


def test_another_strategy_is_in_every_table_by_being_in_the_rows(tmp_path) -> None:
    found = sweep(pair(), task(12), lengths=[6], teacher_price=PRICE, out=tmp_path)
    with open(tmp_path / "lines.jsonl", "a") as file:
        for answer in found.answers:
            if answer.mode == "teacher":
                new = replace(answer, mode="verified", leaked=False)
                file.write(json.dumps({"type": "answer", "answer": new.to_dict()}) + "\n")
    again = load_run(str(tmp_path))
    rows = {row[0]: row for row in again.table().rows}
    assert rows["verified"][1:4] == rows["all (teacher alone)"][1:4]
    assert "verified" in again.frontiers()
    accuracy, prices = again.tables()[1:3]
    assert "verified" in {row[0] for row in accuracy.rows} and "verified" in prices.head
    assert again.choose(max_loss=0.0).policy == found.choose(max_loss=0.0).policy
    assert "verified" in again.save()[1].read_text("utf-8")


def test_a_provider_that_refuses_logprobs_is_cut_otherwise() -> None:
    chain = pair(teacher={"refuses_logprobs": True})
    found = sweep(chain, task(3), lengths=[6])
    assert dict(found.methods) == {"approximate": 3}
    assert "approximate: in proportion" in str(found)
    found = sweep(chain, task(3), lengths=[6], teacher_tokenizer=words)
    assert dict(found.methods) == {"tokenizer": 3}
    assert next(a.guidance for a in found.answers if a.length == 6) == "Plan: take 10 and add "


@pytest.mark.parametrize("wrap", ["retry", "bind"])
def test_wrapped_teachers_cost_and_cut_the_same(wrap) -> None:
    plain = pair()
    teacher = plain.teacher.with_retry() if wrap == "retry" else plain.teacher.bind(stop=["zzz"])
    found = sweep(plain, task(6), lengths=[6], teacher_price=PRICE)
    wrapped = sweep(
        plain.model_copy(update={"teacher": teacher}), task(6), lengths=[6], teacher_price=PRICE
    )
    assert dict(wrapped.methods) == {"logprobs": 6}
    for length in (0, 6):
        assert wrapped.by_length[length].cost == found.by_length[length].cost
    assert wrapped.teacher.cost == found.teacher.cost


def test_a_user_who_set_logprobs_is_not_overruled() -> None:
    found = sweep(pair(teacher={"logprobs": False}), task(3), lengths=[6])
    assert dict(found.methods) == {"approximate": 3}


def test_a_local_teacher_brings_its_tokenizer(student) -> None:
    chain = pair().model_copy(update={"teacher": student.model_copy(update={"max_tokens": 30})})
    found = sweep(chain, task(3), lengths=[4, 8], check_lengths=(4, 8))
    assert dict(found.methods) == {"tokenizer": 3}
    assert all(check["same"] for check in found.checks)


def test_the_same_guidance_is_not_continued_twice() -> None:
    asked: list = []
    # Cut at sentences, many lengths give the same guidance.
    chain = pair(student={"asked": asked}, guidance=GuidancePolicy(cut="sentence"))
    found = sweep(chain, task(2), lengths=16)
    assert len(found.by_length) == 17
    texts = {(a.row, a.guidance) for a in found.answers if a.finished_by == "student"}
    assert len(asked) == len(texts)
    warm = pair(student={"asked": asked}, temperature=0.7)
    asked.clear()
    sweep(warm.model_copy(update={"guidance": chain.guidance}), task(2), lengths=16)
    assert len(asked) > len(texts)


def test_lengths_spent_on_reasoning_are_wrong_answers() -> None:
    class Thinking(type(pair().teacher)):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            result = super()._generate(messages, stop, run_manager, **kwargs)
            result.generations[0].message.usage_metadata["output_token_details"] = {"reasoning": 3}
            result.generations[0].message.usage_metadata["output_tokens"] += 3
            return result

    chain = pair().model_copy(update={"teacher": Thinking()})
    found = sweep(chain, task(4), lengths=[2, 3, 9])
    # Lengths that are spent on hidden reasoning are paid for, and right on nothing.
    assert list(found.by_length) == [0, 2, 3, 9]
    assert [one.accuracy for one in found.by_length.values()] == [0.5, 0.0, 0.0, 1.0]
    assert next(a.guidance for a in found.answers if a.length == 9) == "Plan: take 10 and add "


def test_a_teacher_that_tells_no_usage_is_cut_at_a_guess() -> None:
    class NoUsage(type(pair().teacher)):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            result = super()._generate(messages, stop, run_manager, **kwargs)
            result.generations[0].message.usage_metadata = None
            return result

    chain = pair().model_copy(update={"teacher": NoUsage(logprobs=False)})
    found = sweep(chain, task(6), lengths=[2, 8, 40])
    assert dict(found.methods) == {"guessed": 6}
    assert [one.leaked for one in found.by_length.values()] == [0.0, 0.0, 0.0, 1.0]
    assert found.by_length[2].accuracy == 0.5
    assert "guessed at four characters a token" in str(found)


def test_a_failure_that_is_not_about_logprobs_costs_no_logprobs(tmp_path) -> None:
    asked: list = []
    found = sweep(pair(teacher={"fails_on": (10,), "diary": asked}), task(6), lengths=[6])
    assert dict(found.methods) == {"logprobs": 5}
    assert len(asked) == 5
    assert "teacher: 1 failed" in str(found)


def test_new_rows_get_the_lengths_of_the_others(tmp_path) -> None:
    sweep(pair(), task(4), lengths=[2], out=tmp_path)
    found = sweep(pair(), task(8), lengths=[6], out=tmp_path)
    assert found.student.rows == 8
    assert list(found.by_length) == [0, 2, 6]
    fewer = sweep(pair(), task(2), lengths=[3], out=tmp_path)
    assert "2 of 8 rows are answered in every way" in str(fewer)


def test_a_failed_check_is_made_good_and_hides_nothing(tmp_path) -> None:
    class Down(type(pair().teacher)):
        broken: ClassVar[bool] = True

        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            if self.max_tokens is not None and Down.broken:
                raise ConnectionError("down")
            return super()._generate(messages, stop, run_manager, **kwargs)

    chain = pair().model_copy(update={"teacher": Down()})
    fields = {"lengths": [6], "check_lengths": (6,), "check_rows": 2, "out": tmp_path}
    found = sweep(chain, task(4), **fields)
    assert "check: 2 failed" in str(found)
    assert found.by_length[6].accuracy == 1.0
    Down.broken = False
    again = sweep(chain, task(4), **fields)
    assert "2 of 2 guidances" in str(again)
    assert "check:" not in "\n".join(again.notes())


def test_a_silent_length_is_not_taken_for_the_whole_answer() -> None:
    class Thinking(type(pair().teacher)):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            result = super()._generate(messages, stop, run_manager, **kwargs)
            usage = result.generations[0].message.usage_metadata
            usage["output_token_details"] = {"reasoning": 3}
            usage["output_tokens"] += 3
            return result

    chain = pair().model_copy(update={"teacher": Thinking()})
    found = sweep(chain, task(4), lengths=[3, 30])
    assert [one.accuracy for one in found.by_length.values()] == [0.5, 0.0, 1.0]


@pytest.mark.parametrize("count", [2, 12])
def test_a_teacher_that_is_down_is_named(count) -> None:
    down = pair(teacher={"fails_on": tuple(range(10, 10 + count))})
    with pytest.raises(RuntimeError, match=r"all failed.*the line is down"):
        sweep(down, task(count), lengths=[6])


def test_the_policys_gate_is_left_out_of_the_sweep() -> None:
    gate = ConfidenceGate(below=0.5, probe_tokens=8)
    for policy in (
        GuidancePolicy(ask=0.5, probe_tokens=8),
        GuidancePolicy(gate=gate, ladder=(0, 6, "all")),
    ):
        assert sweep(pair(guidance=policy), task(4), lengths=[6]).by_length[6].asked == 1.0


def test_lengths_can_be_a_number_or_left_out() -> None:
    assert list(sweep(pair(), task(2), lengths=4).by_length) == [0, 1, 2, 3, 4]
    assert list(sweep(pair(guidance_tokens=40), task(2)).by_length)[-1] == 40
    assert len(sweep(pair(guidance_tokens=40), task(2)).by_length) == 13
    for bad in ([-1], [1.5], [], [True]):
        with pytest.raises(ValueError, match="lengths must be whole numbers"):
            sweep(pair(), task(2), lengths=bad)
    with pytest.raises(ValueError, match="check_lengths"):
        sweep(pair(), task(2), check_lengths=[0])
    with pytest.raises(TypeError, match="teacher_tokenizer"):
        sweep(pair(), task(2), teacher_tokenizer=3)


def test_a_run_without_a_whole_row_says_how_to_go_on(tmp_path) -> None:
    chain = pair(student={"needs": 5})
    compare(chain, task(2), out=tmp_path / "other")
    with pytest.raises(ValueError, match="holds a compare, not a sweep"):
        sweep(chain, task(2), out=tmp_path / "other")


def test_several_metrics_have_their_columns() -> None:
    mine = Task("mine", rows(4), judge, more_metrics={"lenient": lambda text, row: True})
    assert "lenient" in sweep(pair(), mine, lengths=[6]).table().head
