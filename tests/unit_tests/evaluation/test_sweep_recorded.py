"""Sweeps over recorded answers: no provider is called, and what is not in the log is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from support.models.exam import PRICE, pair, rows, solution, task, words

from langchain_gkt import ConfigurationError, InstructTeacher, RecordedTeacher
from langchain_gkt.cli.options import ModelOptions
from langchain_gkt.cli.recorded import RecordedOptions, read_recorded
from langchain_gkt.errors import NotSupportedError
from langchain_gkt.evaluation import compare, load_run, sweep, sweep_policies

LENGTHS = [1, 3, 5, 6, 12]
GUESSED = "ignore:.*cut approximately:UserWarning"


def tokens_of(text: str) -> list[dict[str, Any]]:
    return [{"token": token, "bytes": list(token.encode())} for token in words(text)]


def write_log(path: Path, count: int, *, name: str = "logprobs", **more: Any) -> Path:
    lines = [
        {
            "prompt": row["question"],
            "completion": solution(10 + n),
            "input_tokens": 10,
            name: tokens_of(solution(10 + n)),
            **more,
        }
        for n, row in enumerate(rows(count))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


COLUMNS = {"question": "prompt", "answer": "completion"}


def recorded(path: Path, **more: Any) -> Any:
    teacher = RecordedTeacher.from_file(path, columns=COLUMNS, **more)
    return pair().model_copy(update={"teacher": teacher})


def test_a_log_gives_the_sweep_that_its_teacher_would_have_given(tmp_path) -> None:
    live = sweep(pair(), task(6), lengths=LENGTHS, teacher_price=PRICE)
    chain = recorded(write_log(tmp_path / "log.jsonl", 8), model_name="big")
    found = sweep(chain, task(6), lengths=LENGTHS, teacher_price=PRICE, out=tmp_path / "run")
    for one, other in zip(live.answers, found.answers, strict=True):
        assert (one.key, one.text, one.guidance, one.cost) == (
            other.key,
            other.text,
            other.guidance,
            other.cost,
        )
    assert dict(found.methods) == {"logprobs": 6}
    again = str(load_run(str(tmp_path / "run")))
    day = chain.teacher.recordings.dated
    assert f"the teacher is recorded: 8 answers of big in {tmp_path}/log.jsonl of {day}" in again
    assert "no provider was called" in again
    assert "the teacher is recorded" not in str(live)


@pytest.mark.filterwarnings(GUESSED)
@pytest.mark.parametrize(
    ("more", "method"),
    [({"output_tokens": 15}, "approximate"), ({}, "guessed")],
)
def test_the_report_says_how_answers_were_cut(tmp_path, more, method) -> None:
    log = write_log(tmp_path / "log.jsonl", 4, name="unused", **more)
    assert dict(sweep(recorded(log), task(4), lengths=[3]).methods) == {method: 4}


def test_the_recorded_teachers_tokenizer_cuts(tmp_path, monkeypatch) -> None:
    from langchain_gkt.teachers import token_cuts
    from langchain_gkt.teachers.recorded import teacher

    made = token_cuts.NamedTokenizer(words, lambda text: len(words(text)))
    monkeypatch.setattr(teacher, "load_tokenizer", lambda name: made)
    monkeypatch.setattr(
        "langchain_gkt.evaluation.running.recorded.load_tokenizer", lambda name: made
    )
    log = write_log(tmp_path / "log.jsonl", 4, name="unused")
    found = sweep(recorded(log, tokenizer=Path("words")), task(4), lengths=[3])
    assert dict(found.methods) == {"tokenizer": 4}
    assert {answer.guidance for answer in found.answers if answer.length == 3} == {"Plan: take "}


def test_a_question_that_is_not_there_is_named_before_anything_is_run(tmp_path) -> None:
    chain, asked = recorded(write_log(tmp_path / "log.jsonl", 4)), list[Any]()
    chain.student.asked = asked
    said = r"2 of 6 questions have no recorded answer in .*log.jsonl: .*than 14\?', .*than 15\?'"
    for run in (
        lambda out: sweep(chain, task(6), out=out),
        lambda out: sweep_policies(chain, task(6), {"whole": None}, out=out),
        lambda out: compare(chain, task(6), out=out),
    ):
        with pytest.raises(ConfigurationError, match=said):
            run(tmp_path / "run")
    assert asked == [] and not (tmp_path / "run").exists()
    assert compare(chain, task(6), modes=["student"]).summaries["student"].rows == 6


def test_what_needs_a_live_teacher_is_named_before_anything_is_run(tmp_path) -> None:
    chain, asked = recorded(write_log(tmp_path / "log.jsonl", 4)), list[Any]()
    chain.student.asked = asked
    shown = chain.model_copy(update={"teacher_prompt": InstructTeacher()})
    policies = {"whole": None, "short": {"teacher_prompt": [{"prompt": "without_exemplars"}]}}
    with pytest.raises(NotSupportedError, match=r"teacher_prompt=.* needs a live teacher"):
        sweep(shown, task(4), out=tmp_path / "run")
    with pytest.raises(NotSupportedError, match=r"teacher_prompt=.* needs a live teacher"):
        sweep_policies(chain, task(4), policies, out=tmp_path / "run")
    with pytest.raises(NotSupportedError, match=r"check_lengths=\[2\] needs a live teacher"):
        sweep(chain, task(4), check_lengths=[2], out=tmp_path / "run")
    with pytest.raises(NotSupportedError, match="mode='verified' needs a live teacher"):
        compare(chain, task(4), modes=["guided", "verified"], out=tmp_path / "run")
    assert asked == [] and not (tmp_path / "run").exists()
    sweep_policies(chain, task(4), {"whole": None, "steps": {"cut": "step"}}, lengths=[3])


def test_the_same_log_under_another_path_continues_a_run(tmp_path) -> None:
    log, out = write_log(tmp_path / "log.jsonl", 4), tmp_path / "run"
    sweep(recorded(log), task(4), lengths=[3], out=out)
    moved = log.rename(tmp_path / "moved.jsonl")
    sweep(recorded(moved), task(4), lengths=[3, 5], out=out)
    other = write_log(tmp_path / "other.jsonl", 5)
    with pytest.raises(ValueError, match="recordings"):
        sweep(recorded(other), task(4), lengths=[3], out=out)


def test_the_command_line_reads_a_log(tmp_path) -> None:
    log = write_log(tmp_path / "log.jsonl", 4)
    columns = "question=prompt, answer=completion"
    teacher = read_recorded(RecordedOptions(recorded=log, columns=columns), ModelOptions())
    assert teacher is not None and len(teacher.recordings.answers) == 4
    log.write_text(json.dumps({"q": "1 + 1?", "answers": {"big": "2"}}))
    nested = RecordedOptions(recorded=log, columns="question=q,answer=answers/big")
    with pytest.warns(UserWarning, match="cut approximately"):
        teacher = read_recorded(nested, ModelOptions())
    assert teacher is not None and teacher.invoke("1 + 1?").text == "2"
    assert read_recorded(RecordedOptions(), ModelOptions(teacher="openai:x")) is None


@pytest.mark.parametrize(
    ("given", "models", "said"),
    [
        ({"columns": "question"}, {}, "--columns must name each column once"),
        ({"columns": "answer=a,answer=b"}, {}, "--columns must name each column once"),
        ({"columns": "question=prompt,answr=x"}, {}, "answr"),
        ({"columns": "question=ask,answer=completion"}, {}, "has no 'ask' for columns"),
        ({}, {"teacher": "openai:big"}, "--teacher needs a live teacher.*--teacher-price"),
        ({}, {"teacher_prompt": "last_turns"}, "--teacher-prompt needs a live teacher"),
        ({"recorded": None, "columns": "question=q"}, {}, "--columns .* give --recorded"),
        ({"recorded": Path("none.jsonl")}, {}, "--recorded none.jsonl: there is no such file"),
    ],
)
def test_the_command_line_names_what_is_wrong(tmp_path, given, models, said) -> None:
    log = write_log(tmp_path / "log.jsonl", 2)
    with pytest.raises((ValueError, OSError), match=said):
        read_recorded(RecordedOptions(**{"recorded": log, **given}), ModelOptions(**models))


def test_two_answers_to_one_question_are_refused(tmp_path) -> None:
    log = write_log(tmp_path / "log.jsonl", 2)
    first = log.read_text().splitlines()[0]
    log.write_text(log.read_text() + first.replace("Plan: take", "Take") + "\n")
    options = RecordedOptions(recorded=log, columns="question=prompt,answer=completion")
    said = "--recorded .*line 3 gives a second answer to 'What is one"
    with pytest.raises(ValueError, match=said):
        read_recorded(options, ModelOptions())


def test_a_message_recorded_with_its_tokens_reports_them_if_asked_to() -> None:
    text = "Wörter in Tokens."
    message = AIMessage(text, response_metadata={"logprobs": {"content": tokens_of(text)}})
    teacher = RecordedTeacher.from_answers({"?": message})
    assert "logprobs" not in teacher.invoke("?").response_metadata
    told = teacher.model_copy(update={"logprobs": True})
    assert told.invoke("?").response_metadata["logprobs"]["content"] == tokens_of(text)
    cut = told.invoke("?", max_tokens=2)
    assert [one["token"] for one in cut.response_metadata["logprobs"]["content"]] == [
        "Wörter",
        " in",
    ]


def test_a_whole_answer_is_not_cut_at_the_tasks_limit(tmp_path) -> None:
    """It was paid for whole, so the teacher alone is judged by all of it."""
    chain = recorded(write_log(tmp_path / "log.jsonl", 4))
    found = sweep(chain, replace(task(4), max_tokens=5), lengths=[3], progress=False)
    assert found.teacher.accuracy == 1
    assert found.teacher.teacher.completion_tokens > 4 * 5
