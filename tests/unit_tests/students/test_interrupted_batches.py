"""Batches are answered in order, and the first failure is raised."""

from __future__ import annotations

import threading

import pytest

from langchain_gkt.students.batching import run_batch


def test_results_are_in_order_and_the_first_failure_is_raised() -> None:
    barrier = threading.Barrier(3)

    def work(index: int) -> int:
        if index < 3:
            barrier.wait(60)  # so many run side by side
        return index * index

    assert run_batch(work, 7, 3) == [n * n for n in range(7)]
    begun: list[int] = []

    def fails(index: int) -> None:
        begun.append(index)
        raise ValueError(f"piece {index}")

    with pytest.raises(ValueError, match="piece 0"):
        run_batch(fails, 9, 1)
    assert begun == [0]


def test_exceptions_are_returned_in_their_places(student) -> None:
    answers = student.batch(["x", [], "y"], max_tokens=2, return_exceptions=True)
    assert [isinstance(one, Exception) for one in answers] == [False, True, False]
    assert student.batch([]) == []
