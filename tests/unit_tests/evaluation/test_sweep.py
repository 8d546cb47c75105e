"""sweep(): one teacher pass stands for all lengths, and the choice holds on unseen rows."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exam import PRICE, diary_lines, judge, pair, rows, solution, task, words
from test_compare_modes import killed

from langchain_gkt import GuidancePolicy, TeacherError
from langchain_gkt.evaluation import Task, compare, load_run, sweep
from langchain_gkt.evaluation.results.frontier import (
    LengthOutcomes,
    OutcomeMatrix,
    choose_among,
    frontiers,
)
from langchain_gkt.evaluation.results.statistics import auc
from langchain_gkt.evaluation.running.records import TeacherReply
from langchain_gkt.evaluation.running.replay import RecordedTeacher, ReplayedReply, token_splitter

LENGTHS = [1, 2, 3, 5, 6, 8, 12, 14, 15, 16, 17, 30]


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


def test_a_provider_that_refuses_logprobs_is_cut_otherwise() -> None:
    chain = pair(teacher={"refuses_logprobs": True})
    found = sweep(chain, task(3), lengths=[6])
    assert dict(found.methods) == {"approximate": 3}
    assert "approximate: in proportion" in str(found)
    found = sweep(chain, task(3), lengths=[6], teacher_tokenizer=words)
    assert dict(found.methods) == {"tokenizer": 3}
    assert next(a.guidance for a in found.answers if a.length == 6) == "Plan: take 10 and add"


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
    texts = {(number, begun) for number, begun in asked}
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
    assert next(a.guidance for a in found.answers if a.length == 9) == "Plan: take 10 and add"


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
    chain = pair(guidance=GuidancePolicy(ask=0.5, probe_tokens=8))
    assert sweep(chain, task(4), lengths=[6]).by_length[6].asked == 1.0


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


def test_a_sweep_survives_kill_9(tmp_path) -> None:
    call = "sweep(chain, task(6), lengths=[2, 6, 12], out=sys.argv[1], concurrency=1)"
    printed = killed(tmp_path, call, 4, 5, 3)
    assert len(diary_lines(tmp_path / "run.diary")) == 6
    whole = sweep(pair(), task(6), lengths=[2, 6, 12])
    seconds = slice(-6, None)  # the last column

    def lines(text: str) -> list[str]:
        return [line[: seconds.start] for line in text.splitlines()]

    assert lines(printed.rstrip()) == lines(str(whole))
    more = sweep(pair(), task(6), lengths=[2, 8], out=tmp_path / "run")
    assert list(more.by_length) == [0, 2, 6, 8, 12]
    assert str(load_run(tmp_path / "run")) == str(more)


def test_a_run_without_a_whole_row_says_how_to_go_on(tmp_path) -> None:
    chain = pair(student={"needs": 5})
    compare(chain, task(2), out=tmp_path / "other")
    with pytest.raises(ValueError, match="holds a compare, not a sweep"):
        sweep(chain, task(2), out=tmp_path / "other")


# --- choosing ---


def test_choose_finds_the_length_that_is_enough(tmp_path) -> None:
    found = sweep(pair(), task(40), lengths=[2, 4, 5, 6, 7, 9, 12], teacher_price=PRICE)
    choice = found.choose(max_loss=0.0)
    # One token more than the student needs: the last word is cut away.
    assert choice.policy == GuidancePolicy(tokens=6)
    assert (choice.seen_rows, choice.unseen_rows) == (20, 20)
    assert choice.unseen.accuracy == 1.0
    assert choice.unseen.cost == pytest.approx(1000 * (0.01 + 6 * 0.002))
    assert found.choose(max_loss=0.9).policy.tokens == 0
    choice.policy.save(tmp_path / "policy.json")
    chain = pair(guidance=tmp_path / "policy.json")
    assert chain.guidance_tokens == 6
    again = compare(chain, task(40), modes=["guided"], teacher_price=PRICE)
    assert again.summaries["guided"].accuracy == 1.0


def test_choose_with_a_gate_leaves_the_sure_ones_alone() -> None:
    found = sweep(pair(), task(40), lengths=[6], teacher_price=PRICE)
    choice = found.choose(max_loss=0.0, gate=True)
    assert choice.policy.tokens == 6
    assert choice.policy.probe_tokens >= 4  # before that the student does not know either
    assert choice.unseen.accuracy == 1.0
    assert choice.unseen.cost == pytest.approx(choice.unseen.asked * 1000 * 0.022)
    assert choice.unseen.asked < 0.75
    chain = pair(guidance=choice.policy, guidance_tokens=6)
    real = compare(chain, task(40), modes=["guided"], teacher_price=PRICE)
    assert real.summaries["guided"].accuracy == 1.0
    assert real.summaries["guided"].asked == 0.5
    kinds = found.frontiers()
    assert set(kinds) == {"student only", "fixed length", "gated", "both", "teacher only"}
    cheapest = {
        kind: min(p.cost for p in ps if p.accuracy == 1.0)
        for kind, ps in kinds.items()
        if kind != "student only"
    }
    assert cheapest["both"] < cheapest["gated"] < cheapest["teacher only"]
    assert cheapest["both"] < cheapest["fixed length"]


def test_choose_refuses_what_it_cannot_do() -> None:
    found = sweep(pair(), task(3), lengths=[6])
    with pytest.raises(ValueError, match="needs 4 rows"):
        found.choose()
    assert found.choices() == {}
    found = sweep(pair(), task(6), lengths=[6])
    with pytest.raises(ValueError, match="max_loss must be a share"):
        found.choose(max_loss=2)
    blind = replace(found.ways, probabilities=None)
    with pytest.raises(ValueError, match="gate=True goes by the student's confidence"):
        choose_among(blind, max_loss=0.02, gate=True, seed=0)
    assert "gated" not in frontiers(blind)


def made_outcomes(seed: int, count: int, priced: bool = True) -> OutcomeMatrix:
    chance = random.Random(seed)
    outcomes = {}
    for length in (0, 5, 10, -1):
        hits = [
            chance.random() < 0.3 + 0.06 * (length if length >= 0 else 11) for _ in range(count)
        ]
        outcomes[length] = LengthOutcomes(
            right=hits, cost=[float(length if length >= 0 else 30)] * count
        )
    sure = [[chance.random() for _ in range(32)] for _ in range(count)]
    return OutcomeMatrix(
        rows=[f"{i:04d}" for i in range(count)],
        outcomes=outcomes,
        probabilities=sure,
        priced=priced,
    )


@given(st.integers(0, 10_000), st.integers(4, 60), st.sampled_from([0.0, 0.05, 0.3]))
@settings(max_examples=40, deadline=None)
def test_a_choice_keeps_its_word_on_the_rows_it_saw(seed, count, loss) -> None:
    ways = made_outcomes(seed, count)
    for gate in (False, True):
        choice = choose_among(ways, max_loss=loss, gate=gate, seed=seed)
        assert choice.seen_rows + choice.unseen_rows == count
        assert abs(choice.seen_rows - choice.unseen_rows) <= 1
        assert choice == choose_among(ways, max_loss=loss, gate=gate, seed=seed)
        free = choose_among(ways, max_loss=0.99, gate=gate, seed=seed)
        assert free.chosen.cost <= choice.chosen.cost


def test_the_unseen_rows_have_no_say_in_the_choice() -> None:
    ways = made_outcomes(3, 40)
    before = choose_among(ways, max_loss=0.02, gate=True, seed=5)
    order = sorted(range(40), key=lambda i: ways.rows[i])
    random.Random(5).shuffle(order)
    unseen = set(order[20:])
    spoiled = {
        length: LengthOutcomes(
            right=[r if i not in unseen else not r for i, r in enumerate(o.right)], cost=o.cost
        )
        for length, o in ways.outcomes.items()
    }
    after = choose_among(replace(ways, outcomes=spoiled), max_loss=0.02, gate=True, seed=5)
    assert (after.policy, after.chosen) == (before.policy, before.chosen)
    assert after.unseen.accuracy == pytest.approx(1 - before.unseen.accuracy)


def test_without_prices_tokens_are_counted() -> None:
    found = sweep(pair(), task(6), lengths=[6])
    assert found.by_length[6].cost is None
    assert found.ways.price_name == "teacher tokens per answer"
    assert found.choose(max_loss=0.0).unseen.cost == 16.0
    assert "unknown" in str(found)


def test_auc() -> None:
    assert auc([0.9, 0.8, 0.1], [True, True, False]) == 1.0
    assert auc([0.1, 0.9], [True, False]) == 0.0
    assert auc([0.5, 0.5], [True, False]) == 0.5
    assert auc([0.5], [True]) == 0.5


# --- cutting ---


def reply(text: str, tokens: list[str] | None, *, reported: int | None = None, reasoning: int = 0):
    usage = None
    if reported is not None:
        usage = {
            "input_tokens": 3,
            "output_tokens": reported,
            "total_tokens": 3 + reported,
            "output_token_details": {"reasoning": reasoning},
        }
    pieces = None if tokens is None else [token.encode().hex() for token in tokens]
    return TeacherReply(text=text, usage=usage, finish_reason="stop", pieces=pieces)


@given(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=12), st.integers(0, 20))
def test_told_tokens_are_cut_exactly(tokens, limit) -> None:
    replayed = ReplayedReply(reply("".join(tokens), tokens, reported=len(tokens) + 1))
    text, used, whole = replayed.cut(limit)
    assert text == "".join(tokens[:limit])
    assert whole is (limit > len(tokens))
    assert used == min(limit, len(tokens) + 1)


def test_half_a_character_is_left_out() -> None:
    euro = "€".encode()
    told = TeacherReply(
        text="5 €",
        usage={"input_tokens": 1, "output_tokens": 4, "total_tokens": 5},
        pieces=[b"5 ".hex(), euro[:1].hex(), euro[1:].hex()],
    )
    assert [ReplayedReply(told).cut(n)[0] for n in (1, 2, 3)] == ["5 ", "5 ", "5 €"]


def test_tokens_that_are_not_the_text_are_not_believed() -> None:
    assert ReplayedReply(reply("a b", ["a"], reported=3)).method == "approximate"
    assert ReplayedReply(reply("a b", ["a"], reported=3), words).method == "tokenizer"
    assert ReplayedReply(reply("a b", None, reported=3), lambda text: ["x"]).method == "approximate"
    assert ReplayedReply(reply("abcdef", None, reported=3)).cut(1)[0] == "ab"


def test_providers_that_do_not_count_the_end_token() -> None:
    replayed = ReplayedReply(reply("a b c", ["a", " b", " c"], reported=3))
    assert replayed.cut(3) == ("a b c", 3, True)
    assert replayed.cut(2) == ("a b", 2, False)


def test_hidden_reasoning_comes_first() -> None:
    replayed = ReplayedReply(reply("a b", ["a", " b"], reported=7, reasoning=4))
    assert [replayed.cut(n)[0] for n in (4, 5, 6)] == ["", "a", "a b"]
    chain = pair().model_copy(update={"teacher": RecordedTeacher(reply=replayed)})
    with pytest.raises(TeacherError, match="spent 4 hidden reasoning tokens"):
        chain.invoke("What is one more than 1?", guidance_tokens=4)


def test_a_tokenizers_pieces_are_the_text(student) -> None:
    cut = token_splitter(student._load()[1].tokenizer)
    for text in (solution(12), "  two blanks", "5 € for it\nnew line", "Zoë 数"):
        pieces = cut(text)
        assert "".join(pieces) == text or pieces == []
    assert cut(solution(12))


def test_a_recorded_teacher_costs_nothing_of_its_own(tmp_path) -> None:
    found = sweep(pair(), task(2), lengths=[6], teacher_price=PRICE, out=tmp_path)
    spent = sum(
        (a.teacher.cost or Decimal(0) for a in found.answers if a.mode == "teacher"), Decimal(0)
    )
    assert found.teacher.cost == spent
    assert {a.replayed for a in found.answers if a.mode == "guided"} == {True}


def test_several_metrics_have_their_columns() -> None:
    mine = Task("mine", rows(4), judge, more_metrics={"lenient": lambda text, row: True})
    assert "lenient" in sweep(pair(), mine, lengths=[6]).table().head
