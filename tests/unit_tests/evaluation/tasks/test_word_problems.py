"""The word problems that the package ships."""

from __future__ import annotations

import pytest

from langchain_gkt.demo.pair import QUESTION
from langchain_gkt.evaluation.tasks.word_problems import is_word_problem, sample


def test_a_seed_draws_always_the_same_in_the_order_of_the_file() -> None:
    everything = sample(None, None)
    assert len({problem.question for problem in everything}) == 500
    assert sample(None, 30) == everything[:30]
    assert sample(1, 500) == sample(1, 9000) == everything
    drawn = sample(1, 30)
    assert drawn == sample(1, 30) != sample(2, 30)
    assert [everything.index(problem) for problem in drawn] == sorted(
        everything.index(problem) for problem in drawn
    )


def test_rows_are_whole() -> None:
    for problem in sample(None, None):
        assert problem.plan.startswith("Plan: ")
        assert problem.solution.startswith(f"{problem.plan} ")
        assert problem.solution.endswith(f" = {problem.answer}. The answer is {problem.answer}.")
    assert {problem.rich for problem in sample(None, None)} >= {0, 1, 2, 3}


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "When did the revolution begin, in 1789 or in 1848?",
        "Hello!",
        "2 + 2",
        "",
        "数学 3?",
        "How many pens are left?",  # a number of what?
    ],
)
def test_what_the_embedded_models_never_learned_to_read(question) -> None:
    assert not is_word_problem(question)


@pytest.mark.parametrize("question", [QUESTION, QUESTION.upper(), f"  {QUESTION}\n"])
def test_a_word_problem_is_one(question) -> None:
    assert is_word_problem(question)
