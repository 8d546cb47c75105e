"""compare(): what is measured, what is billed, and what is refused."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from decimal import Decimal

import pytest
from support.models.exam import PRICE, Needy, lasting_lines, pair, rows, solution, task, words

from langchain_gkt.evaluation import Comparison, Task, acompare, compare, load_run, sweep


def fallbacks(found: Comparison, mode: str) -> int:
    return sum(a.fallback is not None for a in found.answers if a.mode == mode)


def test_the_table_is_what_was_done() -> None:
    found = compare(pair(), task(10), teacher_price=PRICE)
    teacher, student, guided = found.summaries.values()
    assert (teacher.accuracy, student.accuracy, guided.accuracy) == (1.0, 0.5, 1.0)
    assert guided.interval == pytest.approx((0.7225, 1.0), abs=1e-4)  # Wilson, 10 of 10
    tokens = len(words(solution(10)))
    assert teacher.teacher.completion_tokens == 10 * (tokens + 1)
    assert guided.teacher.completion_tokens == 10 * 6
    assert guided.teacher.prompt_tokens == 10 * 10
    # 10 prompt tokens at 0.001 and 6 completion tokens at 0.002 a row.
    assert guided.cost == Decimal("0.22")
    assert guided.teacher.prompt_cost == "0.10"
    assert (student.asked, student.cost) == (0.0, 0)
    assert (guided.leaked, guided.unparsed) == (0.0, 0.0)
    one, other = found.pairs
    assert (one.difference, one.only_first, one.only_second) == (0.5, 5, 0)
    assert one.p_value == pytest.approx(2 / 2**5)
    assert (other.difference, other.p_value) == (0.0, 1.0)
    text = str(found)
    assert "50.0% (24-76)" in text
    assert f"{0.22 / (0.1 + 0.02 * (tokens + 1)):.1%}" in text


def test_calls_may_be_billed_as_a_batch(tmp_path) -> None:
    halved = replace(PRICE, tiers={"batch": "0.5"})
    paid = compare(pair(), task(2), modes=["guided"], teacher_price=halved, out=tmp_path / "a")
    batch = compare(
        pair(), task(2), modes=["guided"], teacher_price=halved, tier="batch", out=tmp_path / "b"
    )
    assert batch.summaries["guided"].cost * 2 == paid.summaries["guided"].cost
    with pytest.raises(ValueError, match="tier"):
        compare(
            pair(), task(2), modes=["guided"], teacher_price=halved, tier="flex", out=tmp_path / "b"
        )
    with pytest.raises(TypeError, match="tier must be a name such as 'batch'"):
        compare(pair(), task(2), tier=0.5)
    swept = sweep(pair(), task(2), lengths=[0, 6], teacher_price=halved, tier="batch")
    assert swept.manifest["settings"]["prices"]["tier"] == "batch"


def test_another_strategy_is_a_column_of_its_own(tmp_path) -> None:
    found = compare(pair(), task(6), teacher_price=PRICE, out=tmp_path)
    with open(tmp_path / "lines.jsonl", "a") as file:
        for answer in found.answers:
            if answer.mode == "guided":
                new = replace(answer, mode="verified", length=None)
                file.write(json.dumps({"type": "answer", "answer": new.to_dict()}) + "\n")
    again = load_run(tmp_path)
    assert again.table().head == ["", "teacher", "student", "guided", "verified"]
    assert [(one.first, one.second) for one in again.pairs[2:]] == [
        ("verified", "student"),
        ("verified", "teacher"),
    ]
    leak = next(row for row in again.table().rows if row[0] == "guidance holds the answer")
    assert leak[1:] == ["-", "-", "0.0%", "-"]
    assert again.cost_ratio(strategy="verified") == found.cost_ratio()
    assert list(again.times()) == ["teacher", "student", "guided", "verified"]
    assert set(again.to_frame()["strategy"]) == set(again.summaries)
    assert "verified" in again.figures()["modes"].axes[0].get_xticklabels()[-1].get_text()


def test_the_ratio_of_the_bills_has_an_interval() -> None:
    # The second half of the questions costs the teacher alone twice as much.
    class Wordy(type(pair().teacher)):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            result = super()._generate(messages, stop, run_manager, **kwargs)
            usage = result.generations[0].message.usage_metadata
            if self.max_tokens is None and int(words(messages[-1].text)[-1].strip(" ?")) >= 15:
                usage["output_tokens"] *= 2
            return result

    found = compare(pair().model_copy(update={"teacher": Wordy()}), task(10), teacher_price=PRICE)
    ratio = found.cost_ratio()
    assert ratio is not None
    guided, teacher = found.summaries["guided"].cost, found.summaries["teacher"].cost
    assert ratio.value == pytest.approx(float(guided / teacher))
    low, high = ratio.interval
    assert low < ratio.value < high
    assert ratio == found.cost_ratio(seed=0)
    assert compare(pair(), task(2), modes=["guided"], teacher_price=PRICE).cost_ratio() is None
    assert compare(pair(), task(2)).cost_ratio() is None  # no price is known


def test_leaks_and_unparsed_answers_are_counted() -> None:
    found = compare(pair(guidance_tokens=15), task(4), modes=["guided"])
    assert found.summaries["guided"].leaked == 0.0
    found = compare(pair(guidance_tokens=16), task(4), modes=["guided"])
    assert found.summaries["guided"].leaked == 1.0
    dumb = Task("dumb", rows(4), lambda text, row: None)
    summary = compare(pair(), dumb, modes=["guided"]).summaries["guided"]
    assert (summary.unparsed, summary.accuracy) == (1.0, 0.0)


def test_a_task_of_ones_own_takes_three_lines() -> None:
    asked = [{"question": "What is one more than 3?", "answer": "4"}]
    mine = Task("mine", asked, lambda text, row: row["answer"] in text)
    assert compare(pair(), mine).summaries["guided"].accuracy == 1.0


def test_metrics_stand_side_by_side() -> None:
    fields = {"more_metrics": {"lenient": lambda text, row: True}}
    found = compare(pair(), task(4, **fields), modes=["student"])
    assert found.summaries["student"].metrics == {"lenient": 1.0}
    assert "lenient" in str(found)


def test_the_tasks_limits_are_used_where_the_chain_has_none() -> None:
    found = compare(pair(), task(2, max_tokens=8), modes=["teacher"])
    assert found.summaries["teacher"].teacher.completion_tokens == 16
    found = compare(pair(max_tokens=9), task(2, max_tokens=8), modes=["teacher"])
    assert found.summaries["teacher"].teacher.completion_tokens == 18


def test_a_failing_row_does_not_lose_the_others(tmp_path) -> None:
    chain = pair(teacher={"fails_on": (12,)})
    found = compare(chain, task(5), out=tmp_path)
    assert found.summaries["guided"].rows == found.summaries["student"].rows == 4
    assert "guided: 1 failed and are left out, such as TeacherError" in str(found)
    mended = compare(pair(), task(5), out=tmp_path)
    assert mended.summaries["guided"].rows == 5
    assert "left out" not in str(mended)
    assert lasting_lines(mended) == lasting_lines(compare(pair(), task(5)))


def test_a_hopeless_run_ends_early() -> None:
    asked = []
    chain = pair(teacher={"diary": asked, "fails_on": tuple(range(100))})
    with pytest.raises(RuntimeError, match=r"first 10 question.* all failed.*the line is down"):
        compare(chain, task(60), concurrency=1)


def test_a_silent_teacher_is_wrong_and_billed(tmp_path) -> None:
    asked: list = []

    class Silent(type(pair().teacher)):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            result = super()._generate(messages, stop, run_manager, **kwargs)
            if "11" in str(messages[-1].text):
                result.generations[0].message.content = " "
            return result

    chain = pair().model_copy(update={"teacher": Silent(diary=asked)})
    found = compare(chain, task(4), teacher_price=PRICE, out=tmp_path)
    teacher, student, guided = found.summaries.values()
    assert (teacher.rows, teacher.accuracy, teacher.unparsed) == (4, 0.75, 0.25)
    assert fallbacks(found, "teacher") == 1
    assert guided.accuracy == 0.75
    assert (student.rows, guided.cost) == (4, Decimal("0.088"))  # 4 rows of 0.022
    compare(chain, task(4), teacher_price=PRICE, out=tmp_path)
    assert len(asked) == 8


def test_one_failed_attempt_does_not_hide_the_rest_of_the_bill() -> None:
    failing = {12}

    class Flaky(type(pair().teacher)):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            if any(str(number) in str(messages[-1].text) for number in failing):
                failing.clear()
                raise ConnectionError("once")
            return super()._generate(messages, stop, run_manager, **kwargs)

    teacher = Flaky().with_retry(wait_exponential_jitter=False)
    chain = pair().model_copy(update={"teacher": teacher})
    found = compare(chain, task(4), modes=["guided"], teacher_price=PRICE)
    assert found.summaries["guided"].cost == Decimal("0.088")
    assert "at least this much; 1 call(s) failed or reported no usage" in str(found)


def test_a_price_that_no_list_knows_is_refused_before_it_costs(tmp_path) -> None:
    asked: list = []
    with pytest.raises(ValueError, match=r"teacher_price='openai:gpt-4o-mni' is unpriced"):
        compare(
            pair(teacher={"diary": asked}),
            task(2),
            teacher_price="openai:gpt-4o-mni",
            out=tmp_path / "run",
        )
    assert asked == []
    assert not (tmp_path / "run").exists()


def test_times_are_of_the_rows_in_the_table(monkeypatch) -> None:
    waited: list[int] = []
    clock = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + 1000 * len(waited))

    class Slow(Needy):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            if "11" in str(messages[0].text):
                waited.append(1)  # a thousand seconds
            return super()._generate(messages, stop, run_manager, **kwargs)

    chain = pair(teacher={"fails_on": (11,)}).model_copy(update={"student": Slow()})
    found = compare(chain, task(3), concurrency=1)
    assert found.summaries["student"].rows == 2
    assert waited
    assert found.times()["student"]["decode"] < 100


def test_fallbacks_are_answers_without_guidance() -> None:
    chain = pair(teacher={"fails_on": (11,)}, on_teacher_error="student")
    found = compare(chain, task(4), modes=["guided"])
    assert (fallbacks(found, "guided"), found.summaries["guided"].accuracy) == (1, 0.75)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="modes must be some of"):
        compare(pair(), task(2), modes=["guide"])
    with pytest.raises(ValueError, match="modes"):
        compare(pair(), task(2), modes=[])
    with pytest.raises(ValueError, match="concurrency must be 1"):
        compare(pair(), task(2), concurrency=0)
    with pytest.raises(TypeError, match="teacher_price"):
        compare(pair(), task(2), teacher_price=3)


async def test_questions_run_side_by_side() -> None:
    most = running = 0

    class Slow(Needy):
        async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
            nonlocal most, running
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            return self._generate(messages)

    chain = pair().model_copy(update={"student": Slow()})
    await acompare(chain, task(12), modes=["student"], concurrency=4)
    assert most == 4


def test_langchains_cache_is_left_out() -> None:
    from langchain_core.caches import InMemoryCache
    from langchain_core.globals import set_llm_cache

    asked: list = []
    set_llm_cache(InMemoryCache())
    try:
        for _ in range(2):
            compare(pair(teacher={"diary": asked}), task(2), modes=["guided"])
    finally:
        set_llm_cache(None)
    assert len(asked) == 4
