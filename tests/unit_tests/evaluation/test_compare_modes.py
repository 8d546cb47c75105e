"""compare(): what is measured, what is written down, and how a run goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest
from support.exam import PRICE, Needy, diary_lines, pair, rows, solution, task, words

from langchain_gkt import GuidancePolicy, Price, track_costs
from langchain_gkt.evaluation import Task, acompare, compare, load_run, load_task
from langchain_gkt.evaluation.running.run_store import LINES, MANIFEST, RunStore

TIMES = ("wall time", "tokens per second", "seconds per answer", "time to first token")


def table(found) -> list[str]:
    """The table without what no two runs have in common."""
    return [line for line in str(found).splitlines() if not line.startswith(TIMES)]


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
    assert (guided.leaked, guided.unparsed, guided.fallbacks) == (0.0, 0.0, 0)
    one, other = found.pairs
    assert (one.difference, one.only_first, one.only_second) == (0.5, 5, 0)
    assert one.p_value == pytest.approx(2 / 2**5)
    assert (other.difference, other.p_value) == (0.0, 1.0)
    text = str(found)
    assert "50.0% (24-76)" in text
    assert f"{0.22 / (0.1 + 0.02 * (tokens + 1)):.1%}" in text


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
    assert table(mended) == table(compare(pair(), task(5)))


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
    assert (teacher.rows, teacher.accuracy, teacher.unparsed, teacher.fallbacks) == (
        4,
        0.75,
        0.25,
        1,
    )
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
    assert "at least this much; 1 call(s) failed or told no usage" in str(found)


def test_a_mended_metric_judges_what_is_there(tmp_path) -> None:
    asked: list = []
    chain = pair(teacher={"diary": asked})
    wrong = Task("exam", rows(4), lambda text, row: False)
    assert compare(chain, wrong, out=tmp_path).summaries["teacher"].accuracy == 0.0
    again = compare(chain, task(4), out=tmp_path)
    assert again.summaries["teacher"].accuracy == 1.0
    assert len(asked) == 8
    assert load_run(tmp_path).summaries["teacher"].accuracy == 1.0


def test_a_broken_metric_is_named_before_anything_is_asked(tmp_path) -> None:
    asked: list = []
    chain = pair(teacher={"diary": asked})
    compare(chain, task(2), out=tmp_path)
    with pytest.raises(ValueError, match=r"a metric of task 'exam' failed on row 0000-.*Division"):
        compare(chain, Task("exam", rows(2), lambda text, row: 1 / 0), out=tmp_path)
    assert len(asked) == 4


def test_bound_arguments_and_models_tell_runs_apart(tmp_path) -> None:
    plain = pair()
    hot = plain.model_copy(update={"teacher": plain.teacher.bind(temperature=1.0)})
    cold = plain.model_copy(update={"teacher": plain.teacher.bind(temperature=0.1)})
    compare(hot, task(2), out=tmp_path)
    with pytest.raises(ValueError, match="teacher_bound"):
        compare(cold, task(2), out=tmp_path)


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


def test_times_are_of_the_rows_in_the_table() -> None:
    class Slow(Needy):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            if "11" in str(messages[0].text):
                time.sleep(0.3)
            return super()._generate(messages, stop, run_manager, **kwargs)

    chain = pair(teacher={"fails_on": (11,)}).model_copy(update={"student": Slow()})
    found = compare(chain, task(3))
    assert found.summaries["student"].rows == 2
    assert found.times()["student"]["decode"] < 0.1


def test_ctrl_c_ends_a_run_at_once() -> None:
    code = f"""
import signal, sys, threading, time
sys.path[:0] = [{str(Path(__file__).parents[2])!r}]
from support.exam import Needy, pair, task
from langchain_gkt.evaluation import compare

class Slow(Needy):
    async def _agenerate(self, *args, **kwargs):
        import asyncio
        await asyncio.sleep(60)

threading.Timer(1.0, lambda: signal.raise_signal(signal.SIGINT)).start()
try:
    compare(pair().model_copy(update={{"student": Slow()}}), task(3), modes=["student"])
except KeyboardInterrupt:
    print("interrupted")
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=40)
    assert done.stdout == "interrupted\n", done.stderr


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (MANIFEST, "[]", "is damaged"),
        (MANIFEST, '{"schema_version": 1}', "has no 'kind'"),
        (LINES, '{"a": 1}\n', "line 1 of .* is damaged"),
        (LINES, '{"type": "answer", "answer": {"row": "x"}}\n', "line 1 of .* is damaged"),
        (LINES, "[]\n", "line 1 of .* is damaged"),
    ],
)
def test_damage_is_named(tmp_path, file, text, said) -> None:
    compare(pair(), task(2), out=tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=said):
        load_run(tmp_path)


def test_text_of_any_kind_is_written_down(tmp_path) -> None:
    odd = [{"question": "What is one more than 10? 数 😀 \ud83d", "answer": "11"}]
    compare(pair(), Task("odd", odd, lambda text, row: row["answer"] in text), out=tmp_path)
    assert (tmp_path / MANIFEST).read_bytes().isascii()
    assert load_run(tmp_path).summaries["guided"].accuracy == 1.0


def test_the_manifest_names_seed_data_and_load(tmp_path) -> None:
    words = load_task("word_problems", rows=2, seed=5)
    asked = Task("exam", rows(2), lambda text, row: True, source=words.source)
    found = compare(pair(), asked, out=tmp_path, concurrency=3)
    (sitting,) = found.manifest["sittings"]
    assert sitting["rows_from"]["seed"] == 5
    assert sitting["concurrency"] == 3


def test_fallbacks_are_answers_without_guidance() -> None:
    chain = pair(teacher={"fails_on": (11,)}, on_teacher_error="student")
    summary = compare(chain, task(4), modes=["guided"]).summaries["guided"]
    assert (summary.fallbacks, summary.accuracy) == (1, 0.75)


def test_a_run_is_asked_and_paid_for_once(tmp_path) -> None:
    asked: list = []
    chain = pair(teacher={"diary": asked})
    first = compare(chain, task(6), teacher_price=PRICE, out=tmp_path / "run")
    paid = len(asked)
    again = compare(chain, task(6), teacher_price=PRICE, out=tmp_path / "run")
    assert len(asked) == paid == 12
    assert str(again) == str(first) == str(load_run(tmp_path / "run"))
    more = compare(chain, task(9), teacher_price=PRICE, out=tmp_path / "run")
    assert len(asked) == 18
    assert table(more) == table(compare(pair(), task(9), teacher_price=PRICE))
    fewer = compare(chain, task(3), teacher_price=PRICE, out=tmp_path / "run")
    assert fewer.summaries["guided"].rows == 9
    assert len(asked) == 18


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"guidance_tokens": 7}, r"chain\.guidance_tokens=6, and now it is 7"),
        ({"guidance": GuidancePolicy(cut="none")}, r"chain\.guidance"),
        ({"temperature": 0.5}, r"chain\.temperature"),
    ],
)
def test_another_run_is_not_gone_on_with(tmp_path, change, named) -> None:
    compare(pair(), task(2), out=tmp_path)
    with pytest.raises(ValueError, match=named):
        compare(pair(**change), task(2), out=tmp_path)


def test_other_rows_prices_and_tasks_are_refused_too(tmp_path) -> None:
    compare(pair(), task(2), out=tmp_path, teacher_price=PRICE)
    with pytest.raises(ValueError, match=r"prices\.teacher"):
        compare(pair(), task(2), out=tmp_path, teacher_price=Price(input_mtok=1, output_mtok=2))
    with pytest.raises(ValueError, match="other rows or prompts"):
        compare(pair(), task(2, instruction="Be brief."), out=tmp_path, teacher_price=PRICE)
    late = Price(input_mtok="1000", output_mtok="2000", as_of="2031-01-01")
    compare(pair(), task(2), out=tmp_path, teacher_price=late)  # the same price on another day


def test_a_cut_off_line_is_dropped_and_a_damaged_one_named(tmp_path) -> None:
    whole = compare(pair(), task(3), out=tmp_path)
    file = tmp_path / LINES
    lines = file.read_bytes()
    file.write_bytes(lines[:-40])
    asked: list = []
    assert load_run(tmp_path).summaries["guided"].rows == 2  # reading mends nothing
    assert len(file.read_bytes()) == len(lines) - 40
    again = compare(pair(teacher={"diary": asked}), task(3), out=tmp_path)
    assert table(again) == table(whole)
    assert asked == []  # the teacher's reply was on a line of its own
    file.write_bytes(b"{\n" + lines)
    with pytest.raises(ValueError, match="line 1 is damaged"):
        load_run(tmp_path)


def test_bad_folders_are_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json"):
        load_run(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        load_run(tmp_path)
    (tmp_path / MANIFEST).write_text('{"schema_version": 99}')
    with pytest.raises(ValueError, match="schema_version 99"):
        load_run(tmp_path)


def test_two_processes_never_write_one_run(tmp_path) -> None:
    with (
        RunStore(tmp_path).writing("compare", {}, {}, {}),
        pytest.raises(RuntimeError, match="being written by another process"),
        RunStore(tmp_path).writing("compare", {}, {}, {}),
    ):
        pass


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="modes must be some of"):
        compare(pair(), task(2), modes=["guide"])
    with pytest.raises(ValueError, match="modes"):
        compare(pair(), task(2), modes=[])
    with pytest.raises(ValueError, match="concurrency must be 1"):
        compare(pair(), task(2), concurrency=0)
    with pytest.raises(TypeError, match="teacher_price"):
        compare(pair(), task(2), teacher_price=3)


async def test_it_runs_inside_an_event_loop_too() -> None:
    inside = compare(pair(), task(3))
    outside = await acompare(pair(), task(3))
    assert table(inside) == table(outside)


def test_calls_share_one_event_loop_and_the_callers_context() -> None:
    loops = []

    class Noting(Needy):
        async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
            loops.append(asyncio.get_running_loop())
            return self._generate(messages)

    chain = pair().model_copy(update={"student": Noting()})
    with track_costs() as costs:
        for _ in range(2):  # an HTTP client's connections would not outlive a loop of its own
            compare(chain, task(2), modes=["student"])
    assert len(set(loops)) == 1
    assert costs.report().student.calls == 4


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


KILLED = """
import sys
sys.path[:0] = {path!r}
from support.exam import PRICE, pair, task
from langchain_gkt.evaluation import compare, sweep
dies = int(sys.argv[2]) or None
chain = pair(teacher={{"diary": sys.argv[1] + ".diary"}}, student={{"asked": [], "dies_at": dies}})
run = {call}
print(run)
"""


def killed(tmp_path: Path, call: str, *deaths: int) -> str:
    """Run until done, killed at the given calls of the student; return what is printed."""
    code = KILLED.format(path=[str(Path(__file__).parents[2])], call=call)
    for dies in [*deaths, 0]:
        command = [sys.executable, "-c", code, str(tmp_path / "run"), str(dies)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        assert done.returncode == (-signal.SIGKILL if dies else 0), done.stderr
    return done.stdout


def test_a_run_survives_kill_9_and_pays_for_nothing_twice(tmp_path) -> None:
    call = "compare(chain, task(8), teacher_price=PRICE, out=sys.argv[1], concurrency=1)"
    printed = killed(tmp_path, call, 3, 8, 3)
    whole = compare(pair(), task(8), teacher_price=PRICE)
    shown = [line for line in printed.rstrip().splitlines() if not line.startswith(TIMES)]
    assert shown == table(whole)
    paid = diary_lines(tmp_path / "run.diary")
    assert sorted(paid) == sorted([f"{n} {m}" for n in range(10, 18) for m in (None, 6)])
    manifest = json.loads((tmp_path / "run" / MANIFEST).read_text())
    assert len(manifest["sittings"]) == 4
    # Twice the teacher had answered when the process died over the student's part.
    assert sum(answer.replayed for answer in load_run(tmp_path / "run").answers) == 2
