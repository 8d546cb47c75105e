from __future__ import annotations

import builtins
import io
import json
import re
import sys
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console
from support.models.fakes import WordTeacher

from langchain_gkt import (
    CostReport,
    CostTracker,
    GuidedKnowledgeTransferChain,
    MachineTime,
    Price,
    track_costs,
)
from langchain_gkt.evaluation.cost_ratio import measure_costs

PRICE = Price("2", "10", "0.5", source="list <b>", as_of="2026-01-01")


@pytest.fixture
def chain(teacher) -> GuidedKnowledgeTransferChain:
    student = WordTeacher(answer="and so on.", asked=[])
    return GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=20)


@pytest.fixture
def report(chain, problem) -> CostReport:
    questions = [problem.question, "And you?", "Why?"]
    with track_costs(teacher_price=PRICE) as tracker:
        chain.invoke(problem.question)
    measured = measure_costs(chain, questions, teacher_price=PRICE, sample=3)
    return replace(tracker.report(), comparison=measured)


def test_a_comparison_is_shown_in_a_report(report, problem) -> None:
    found = report.comparison
    assert found.questions == 3
    whole = 7 * 2 + 10 * len(problem.solution)
    assert found.ratio == pytest.approx((7 * 2 + 10 * 20) / whole)
    assert found.completion_ratio == pytest.approx(20 / len(problem.solution))
    assert found.interval == pytest.approx((found.ratio, found.ratio))  # all cost alike
    assert report.teacher.calls == 1
    assert report.estimate.calls == 1
    data = found.to_dict()
    assert set(data["modes"]) == {"guided", "teacher", "student"}
    assert data["modes"]["student"]["cost"] == "0"
    assert data["estimated"] is False
    assert json.loads(report.to_json())["comparison"] == data


def test_the_frame_tells_measured_from_estimated(report) -> None:
    frame = report.to_frame()
    assert frame.loc[("teacher", "all"), "kind"] == "measured"
    assert frame.loc[("teacher only", "all"), "kind"] == "estimated"
    assert frame.loc[("teacher", "all"), "cost"] == Decimal("0.000214")
    assert ("compared: teacher", "all") in frame.index


def test_ipython_shows_the_table(report) -> None:
    from IPython.lib.pretty import pretty

    assert pretty(report) == str(report)


def test_the_page_is_escaped_and_takes_its_own_colours(report) -> None:
    html = report._repr_html_()
    assert "list &lt;b&gt; of 2026-01-01" in html
    assert "<b>" not in html
    assert "color:inherit" in html
    assert not re.search(r"color:\s*#", html)


def test_rich_draws_it_where_it_can(report, monkeypatch) -> None:
    console = Console(file=io.StringIO(), width=140)
    console.print(report)
    drawn: Any = console.file
    assert "teacher only (estimated)" in drawn.getvalue()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert "\x1b" not in str(report)
    assert "teacher" in str(report)


@pytest.mark.slow
def test_the_chart_shows_paid_estimated_and_measured(report, chain, problem, monkeypatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    figure = report.plot()
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[0].startswith("paid in all")
    assert any("teacher only\n(estimated)" in name for name in names)
    assert any("compared: teacher" in name for name in names)
    assert any(bar.get_hatch() for bar in axes.patches)
    assert "measured on 3 questions" in axes.get_title(loc="left")
    figure.savefig(io.BytesIO())
    with track_costs() as unpriced:
        chain.invoke(problem.question)
    (axes,) = unpriced.report().plot().axes
    assert "money not known" in axes.get_xlabel()
    CostTracker().report().plot()  # nothing yet


def test_without_jinja_the_text_is_still_there(report, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert "teacher only (estimated)" in str(report)
    with pytest.raises(ImportError, match=r"jinja2 is not .*langchain-gkt\[report\]"):
        report._repr_html_()


@pytest.mark.parametrize("package", ["pandas", "matplotlib"])
def test_a_missing_extra_is_named(report, monkeypatch, package) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=rf"{package} is not .*langchain-gkt\[report\]"):
        report.to_frame() if package == "pandas" else report.plot()


def test_machine_time_is_in_the_total(chain, problem) -> None:
    price = MachineTime(usd_per_hour="3600000")
    with track_costs(teacher_price=PRICE, student_price=price) as costs:
        chain.invoke(problem.question)
    data = costs.report().to_dict()
    student = data["student"]
    assert Decimal(student["cost"]) == Decimal(student["machine_cost"]) > 0
    assert float(student["cost"]) == pytest.approx(student["busy_seconds"] * 1000, rel=0.01)
    assert Decimal(data["total"]["cost"]) == sum(
        Decimal(data[role]["cost"]) for role in ("teacher", "student")
    )


def test_a_tokenizer_of_the_teacher_is_preferred(chain, problem) -> None:
    with track_costs(teacher_price=PRICE, teacher_tokenizer=lambda text: 1000) as costs:
        chain.invoke(problem.question)
    estimate = costs.report().to_dict()["teacher_only_estimate"]
    assert estimate["completion_tokens"] == 1000
    assert "teacher's tokenizer" in estimate["method"]
    cached = estimate["if_prompts_were_cached"]
    assert Decimal(cached["cost"]) == (Decimal("0.5") * 7 + 10 * 1000) / 1_000_000
