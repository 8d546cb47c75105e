"""What a run writes down, and how it goes on from there."""

from __future__ import annotations

import json

import pytest
from support.models.exam import PRICE, lasting_lines, pair, rows, task

from langchain_gkt import GuidancePolicy, Price
from langchain_gkt.evaluation import Task, compare, load_run, load_task, sweep
from langchain_gkt.evaluation.running.progress import ProgressBar
from langchain_gkt.evaluation.running.run_store import LINES, MANIFEST, RunStore


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
    assert lasting_lines(more) == lasting_lines(compare(pair(), task(9), teacher_price=PRICE))
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


def test_bound_arguments_and_models_tell_runs_apart(tmp_path) -> None:
    plain = pair()
    hot = plain.model_copy(update={"teacher": plain.teacher.bind(temperature=1.0)})
    cold = plain.model_copy(update={"teacher": plain.teacher.bind(temperature=0.1)})
    compare(hot, task(2), out=tmp_path)
    with pytest.raises(ValueError, match="teacher_bound"):
        compare(cold, task(2), out=tmp_path)


def test_a_mended_metric_judges_what_is_there(tmp_path) -> None:
    asked: list = []
    chain = pair(teacher={"diary": asked})
    wrong = Task("exam", rows(4), lambda text, row: False)
    assert compare(chain, wrong, out=tmp_path).summaries["teacher"].accuracy == 0.0
    again = compare(chain, task(4), out=tmp_path)
    assert again.summaries["teacher"].accuracy == 1.0
    assert len(asked) == 8
    assert load_run(tmp_path).summaries["teacher"].accuracy == 1.0


def test_a_mended_metric_judges_what_is_reused(tmp_path) -> None:
    asked: list = []
    chain = pair(teacher={"diary": asked})
    wrong = Task("exam", rows(4), lambda text, row: False)
    assert sweep(chain, wrong, lengths=[6], out=tmp_path).teacher.accuracy == 0.0
    again = sweep(chain, task(4), lengths=[6], teacher_from=tmp_path)
    assert again.teacher.accuracy == 1.0
    assert len(asked) == 4


def test_an_answer_that_is_judged_twice_is_paid_for_once(tmp_path, monkeypatch) -> None:
    spent: list = []
    monkeypatch.setattr(ProgressBar, "step", lambda bar, cost: spent.append(cost))
    student = {"modes": ["student"], "student_price": PRICE, "out": tmp_path}
    compare(pair(), Task("exam", rows(2), lambda text, row: False), **student)
    compare(pair(), task(2), **student)
    found = compare(pair(), task(3), **student)
    assert spent[-1] == found.summaries["student"].cost


def test_a_broken_metric_is_named_before_anything_is_asked(tmp_path) -> None:
    asked: list = []
    chain = pair(teacher={"diary": asked})
    compare(chain, task(2), out=tmp_path)
    with pytest.raises(
        ValueError, match=r"a metric of task 'exam' failed on row 000[01]-.*Division"
    ):
        compare(chain, Task("exam", rows(2), lambda text, row: 1 / 0), out=tmp_path)
    assert len(asked) == 4


def test_the_manifest_names_seed_data_and_load(tmp_path) -> None:
    words = load_task("word_problems", rows=2, seed=5)
    asked = Task("exam", rows(2), lambda text, row: True, source=words.source)
    found = compare(pair(), asked, out=tmp_path, concurrency=3)
    (session,) = found.manifest["sessions"]
    assert session["rows_from"]["seed"] == 5
    assert session["concurrency"] == 3
    assert session["repeatable"] == "unknown"  # a scripted student says nothing of it


def test_text_of_any_kind_is_written_down(tmp_path) -> None:
    odd = [{"question": "What is one more than 10? 数 😀 \u2028", "answer": "11"}]
    compare(pair(), Task("odd", odd, lambda text, row: row["answer"] in text), out=tmp_path)
    assert (tmp_path / MANIFEST).read_bytes().isascii()
    assert load_run(tmp_path).summaries["guided"].accuracy == 1.0


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (MANIFEST, "[]", "is damaged"),
        (MANIFEST, '{"schema_version": 1}', "has no 'kind'"),
        (LINES, '{"a": 1}\n', "line 1 of .* is damaged"),
        (LINES, '{"type": "answer", "answer": {"row": "x"}}\n', "line 1 of .* is damaged"),
        (LINES, "[]\n", "line 1 of .* is damaged"),
        (
            LINES,
            '{"type": "answer", "answer": {"row": 1, "x": 2}}\n',
            r"is damaged: ValueError: Answer\.",
        ),
        (
            MANIFEST,
            '{"schema_version": 1, "kind": 1}',
            r"is damaged: manifest\.kind must be a text",
        ),
    ],
)
def test_damage_is_named(tmp_path, file, text, said) -> None:
    compare(pair(), task(2), out=tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=said):
        load_run(tmp_path)


def test_a_cut_off_line_is_dropped_and_a_damaged_one_named(tmp_path) -> None:
    whole = compare(pair(), task(3), out=tmp_path)
    file = tmp_path / LINES
    lines = file.read_bytes()
    file.write_bytes(lines[:-40])
    asked: list = []
    assert load_run(tmp_path).summaries["guided"].rows == 2  # reading mends nothing
    assert len(file.read_bytes()) == len(lines) - 40
    again = compare(pair(teacher={"diary": asked}), task(3), out=tmp_path)
    assert lasting_lines(again) == lasting_lines(whole)
    assert asked == []  # the teacher's reply was on a line of its own
    file.write_bytes(b"{\n" + lines)
    with pytest.raises(ValueError, match="line 1 is damaged"):
        load_run(tmp_path)


def test_folders_of_schema_version_1_are_read_and_continued(tmp_path) -> None:
    found = compare(pair(), task(3), out=tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    manifest |= {"schema_version": 1, "sittings": manifest.pop("sessions")}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    assert str(load_run(tmp_path)) == str(found)
    compare(pair(), task(4), out=tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert (manifest["schema_version"], len(manifest["sessions"])) == (2, 2)
    assert "sittings" not in manifest


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
