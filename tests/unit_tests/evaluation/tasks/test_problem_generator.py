"""The generator of word problems, which trains the embedded models and made the shipped rows."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[4] / "examples" / "demo_models"
sys.path.append(str(FOLDER))
from word_problems import (  # noqa: E402
    MAX_VALUE,
    SHIPPED,
    generate,
    sample,
    split_of,
    write,
)


def test_the_shipped_file_is_what_the_command_writes(tmp_path) -> None:
    write(tmp_path / "rows.jsonl")
    assert (tmp_path / "rows.jsonl").read_bytes() == SHIPPED.read_bytes()


@pytest.mark.slow
def test_train_and_test_never_meet() -> None:
    trained = list(itertools.islice(generate(5, "train", drills=0.2), 5000))
    tested = sample(5, 500)
    assert not {p.key for p in trained} & {p.key for p in tested}
    assert not {p.question for p in trained} & {p.question for p in tested}
    assert {split_of(p.key) for p in trained} == {"train"}
    assert {split_of(p.key) for p in tested} == {"test"}


def test_streams_repeat_and_differ_by_seed() -> None:
    assert sample(1, 30) == sample(1, 30)
    assert sample(1, 30) != sample(2, 30)
    assert len({p.question for p in sample(3, 400)}) == 400


def test_worked_answers_are_right() -> None:
    signs = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
    for problem in sample(11, 300):
        assert problem.solution.startswith(problem.plan + " ")
        steps = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)\.", problem.solution)
        spoken = f"{steps[0][0]} " + ", ".join(f"{signs[op]} {b}" for _, op, b, _ in steps)
        assert problem.plan == f"Plan: {spoken}."
        for a, op, b, result in steps:
            assert eval(f"{a} {op} {b}") == int(result) <= MAX_VALUE
        for before, after in itertools.pairwise(steps):
            assert before[3] == after[0]
        assert problem.solution.endswith(f"The answer is {steps[-1][3]}.")
        assert problem.answer == int(steps[-1][3])
        given = re.findall(r"\d+", problem.question)
        assert str(problem.answer) not in given
        assert set(re.findall(r"\d+", problem.plan)) <= {*given, "2", "3"}


def test_plain_wording_is_plain() -> None:
    assert not any(p.rich for p in itertools.islice(generate(1, "train", wording="plain"), 300))
    assert any(p.rich for p in itertools.islice(generate(1, "train"), 30))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="split must be"):
        next(generate(1, "dev"))
    with pytest.raises(ValueError, match="wording must be"):
        next(generate(1, "train", wording="hard"))
