"""The controller of a bulk job: who may ask, what is paid for, what a later sitting finds."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from langchain_gkt import Budget
from langchain_gkt.bulk.controller import JobController, JobSettings, RateLimiter
from langchain_gkt.bulk.job import read_report
from langchain_gkt.bulk.store import FILE
from langchain_gkt.costs.budget import Reservation
from langchain_gkt.costs.totals import UsageTotals

MOST = Reservation(tokens=10, usd=Decimal("0.01"))
PAID = UsageTotals(calls=1, prompt_tokens=5, prompt_cost=Decimal("0.004"))


@pytest.fixture
def begin() -> Iterator[Callable[..., JobController]]:
    """Start a job; all are closed at the end."""
    with contextlib.ExitStack() as stack:

        def start(settings: JobSettings, **kwargs: Any) -> JobController:
            return stack.enter_context(contextlib.closing(JobController(settings, **kwargs)))

        yield start


def test_a_limiter_spaces_calls_by_requests_and_by_tokens() -> None:
    now = [100.0]
    limiter = RateLimiter(requests_per_minute=60, tokens_per_minute=600, clock=lambda: now[0])
    assert limiter.delay(5) == 0
    assert limiter.delay(40) == pytest.approx(1)  # the first call took a second of requests
    assert limiter.delay(1) == pytest.approx(5)  # and the second four of tokens
    now[0] += 60
    assert limiter.delay(1) == 0  # what was not used is not saved up
    assert RateLimiter().delay(10**9) == 0


def test_the_same_prompt_is_asked_once_and_one_row_carries_it(begin) -> None:
    controller = begin(JobSettings())
    assert controller.admit("key", "1", MOST).wait == 0
    assert controller.admit("key", "2", MOST).busy
    controller.settle("call", "key", "1", PAID, "{}")
    second, first = controller.admit("key", "2", MOST), controller.admit("key", "1", MOST)
    assert (second.reply, second.carries) == ("{}", False)
    assert (first.reply, first.carries) == ("{}", True)  # asks again if its actor was killed
    controller.settle("call", "key", "1", PAID, "{}")  # told twice, counted once
    report = controller.report()
    assert report["teacher"]["cost"] == "0.004"
    assert (report["from_checkpoint"], report["in_flight"], report["lost_calls"]) == (2, 0, 0)


def test_a_call_that_failed_may_be_made_by_another_row(begin) -> None:
    controller = begin(JobSettings())
    controller.admit("key", "1", MOST)
    controller.settle("call", "key", "1", UsageTotals(calls=1, failed_calls=1), None)
    assert not controller.admit("key", "2", MOST).busy


def test_a_call_that_nobody_ends_is_given_up(begin) -> None:
    now = [0.0]
    controller = begin(JobSettings(), clock=lambda: now[0])
    controller.admit("key", "1", MOST)
    now[0] = 1000.0
    assert not controller.admit("key", "2", MOST).busy
    assert controller.report()["lost_calls"] == 1


def test_the_budget_counts_calls_in_flight_and_earlier_sittings(begin, tmp_path) -> None:
    settings = JobSettings(
        budget=Budget(usd="0.025", on_exceeded="student"), checkpoint=tmp_path, run="1"
    )
    controller = begin(settings)
    assert controller.admit("a", "1", MOST).refused is None
    assert controller.admit("b", "2", MOST).refused is None
    refused = controller.admit("c", "3", MOST)
    assert "Budget.usd=0.025" in str(refused.refused)
    assert refused.student_may_answer
    controller.settle("1", "a", "1", replace(PAID, prompt_cost=Decimal("0.02")), "{}")
    controller.close()  # killed: the call "b" is lost
    again = begin(replace(settings, run="2"))
    assert again.admit("c", "3", MOST).refused is not None
    assert again.admit("a", "9", MOST).carries  # rows are numbered anew
    again.spend_student("rows", UsageTotals(calls=1, machine_cost=Decimal("0.001")))
    again.spend_student("rows", UsageTotals(calls=1, machine_cost=Decimal("0.001")))
    report = again.report()
    assert report["budget"]["spent_usd"] == "0.021"
    assert report["lost_calls"] == 1


def test_rows_with_names_carry_their_cost_in_every_sitting(begin, tmp_path) -> None:
    settings = JobSettings(checkpoint=tmp_path, stable_rows=True, run="1")
    controller = begin(settings)
    controller.admit("key", "row 7", MOST)
    controller.settle("call", "key", "row 7", PAID, "{}")
    controller.close()
    again = begin(replace(settings, run="2"))
    assert not again.admit("key", "row 8", MOST).carries
    assert again.admit("key", "row 7", MOST).carries


def test_a_report_is_read_of_a_folder(begin, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="not the folder of a bulk job"):
        read_report(tmp_path)
    controller = begin(JobSettings(checkpoint=tmp_path, run="1"))
    controller.admit("key", "1", MOST)
    controller.settle("call", "key", "1", PAID, "{}")
    controller.close()
    assert read_report(tmp_path)["teacher"]["prompt_tokens"] == 5


def test_a_folder_has_one_writer_and_a_readable_file(begin, tmp_path, monkeypatch: Any) -> None:
    monkeypatch.setattr("langchain_gkt.bulk.store._LOCK_TIMEOUT", 0.05)
    first = begin(JobSettings(checkpoint=tmp_path, run="1"))
    with pytest.raises(RuntimeError, match="being written by another job"):
        begin(JobSettings(checkpoint=tmp_path, run="2"))
    first.close()
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("UPDATE about SET value = '99' WHERE name = 'schema_version'")
    database.close()
    held = []  # as long as an error is held, so is all that it was raised in
    for run in ("3", "4"):  # the first one keeps nothing locked
        with pytest.raises(ValueError, match="schema_version 99; this release reads 1") as said:
            begin(JobSettings(checkpoint=tmp_path, run=run))
        held.append(said.value)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / FILE).write_text("no database, but long enough to look like a file" * 9)
    with pytest.raises(ValueError, match="damaged"):
        begin(JobSettings(checkpoint=tmp_path / "other", run="5"))
