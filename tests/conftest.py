"""Fixtures that every test may use.

They import what is heavy when they are asked for, so that pytest-xdist's controller, which runs no
test, need not load torch before its workers do.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from support.models.fakes import WordTeacher

    from langchain_gkt import HuggingFaceStudent
    from langchain_gkt.evaluation.tasks.word_problems import WordProblem

# No test draws lots. And on a busy machine hypothesis is slow, which is no failure.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Toy models are slower with more: the threads wait for each other."""
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what is loaded now stays: to look through it again takes a second each time
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """`serve` sets up the loggers of its process: later tests must not write to that stream."""
    loggers = [logging.getLogger(name) for name in ("langchain_gkt.serving", "uvicorn.error")]
    found = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, found, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def problem() -> WordProblem:
    """A problem whose wording the student has not learned."""
    from langchain_gkt.evaluation.tasks.word_problems import WordProblem

    return WordProblem(
        question="Jane starts with 18 books. She earns 12 for sweeping the yard. She nearly loses "
        "11. She ties them up by 2 and counts the bundles. She keeps only a third of them. How "
        "many books are left with Jane?",
        answer=5,
        solution="Plan: 18 plus 12, divided by 2, divided by 3. 18 + 12 = 30. 30 / 2 = 15. "
        "15 / 3 = 5. The answer is 5.",
        rich=3,
    )


@pytest.fixture(scope="session")
def whole_student() -> HuggingFaceStudent:
    """The embedded student, which writes each answer to its end."""
    from support.models.fakes import MODELS

    from langchain_gkt import HuggingFaceStudent

    return HuggingFaceStudent(model=MODELS / "student")


@pytest.fixture(scope="session")
def student(whole_student: HuggingFaceStudent) -> HuggingFaceStudent:
    return whole_student


@pytest.fixture
def teacher(problem: WordProblem) -> WordTeacher:
    from support.models.fakes import WordTeacher

    return WordTeacher(answer=problem.solution, asked=[])
