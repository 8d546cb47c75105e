"""Stored runs priced again: no model, the prompts' common front, every scenario side by side."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from IPython.lib.pretty import pretty

from langchain_gkt import Price
from langchain_gkt.cli.app import main
from langchain_gkt.costs import BillingScenario, CachedPrefix
from langchain_gkt.costs.prices import describe_price
from langchain_gkt.evaluation import Comparison, PolicySweep, ScenarioReport, Sweep
from langchain_gkt.evaluation.results.scenario_report import NAIVE, ways
from langchain_gkt.evaluation.running.records import Answer, ModelUsage
from langchain_gkt.evaluation.running.repricing import (
    baseline_notes,
    cacheable_tokens,
    repriced,
)
from langchain_gkt.evaluation.running.run_store import RunStore

FULL = Price("2.50", "15", cached_input_mtok="0.25", tiers={"batch": "0.5"})
PROMPT, ANSWER, ROWS = 1124, 110, 8
FRONT = CachedPrefix(hit_rate=1.0)


def store(kind: str = "sweep", **changes: Any) -> RunStore:
    """Return a run of eight questions; guidance of 40 tokens is as right as the teacher."""
    folder = RunStore(None)
    chain = {"guidance": None, "teacher_prompt": None, **changes.pop("chain", {})}
    folder.manifest = {
        "schema_version": 2,
        "kind": kind,
        "settings": {
            "task": {"name": "sums"},
            "chain": chain,
            "teacher": [{"provider": "openai", "model": "gpt-4o-mini", "class": "ChatOpenAI"}],
            "student": {"model": "small", "class": "Small"},
            "prices": {"teacher": None, "student": None},
            "modes": ["teacher", "student", "guided"],
        },
        "rows": [f"r{n}" for n in range(ROWS)],
        "questions": ["Q" * (10 + 4 * n) for n in range(ROWS)],
        "sessions": [{"prompts": {"whole": {"shared": 4096, "total": 4496 * ROWS, "prompts": 8}}}],
        **changes,
    }
    lines = []
    for n in range(ROWS):
        for mode, length, tokens in (("teacher", None, ANSWER), ("guided", 40, 40)):
            lines.append(answer(n, mode, length, tokens, right=True))
        lines.append(answer(n, "student", None, 0, right=n < 2))
    folder.lines = [{"type": "answer", "answer": one.to_dict()} for one in lines]
    return folder


def answer(n: int, mode: str, length: int | None, tokens: int, *, right: bool) -> Answer:
    paid = {"prompt_cost": "0.001", "completion_cost": "0.001"}
    teacher = ModelUsage(calls=1, prompt_tokens=PROMPT, completion_tokens=tokens, **paid)
    return Answer(
        row=f"r{n}",
        mode=mode,
        length=length,
        text="7",
        guidance="7" if length else "",
        verdicts={"answer": right},
        teacher=teacher if tokens else ModelUsage(),
        student=ModelUsage(),
    )


def per_thousand(prompt: str, completion: int) -> Decimal:
    return (Decimal(prompt) * 1000 + Decimal(completion) * 15 * 1000) / 1_000_000


def test_the_issues_example_is_told_from_a_stored_run() -> None:
    cached = BillingScenario(name="cached", price=FULL, cached_prefix=FRONT)
    both = BillingScenario(name="both", price=FULL, cached_prefix=FRONT, tier="batch")
    found = ScenarioReport.of(Sweep.of(store()), [cached, both])
    bills = found.bills
    assert list(bills) == [NAIVE, "cached", "both"]
    assert bills[NAIVE]["teacher alone"] == Decimal("4.46")
    assert bills["cached"]["teacher alone"] == Decimal("2.156")  # 48% of the uncached bill
    assert bills["cached"]["40 tokens"] == Decimal("2.156") - Decimal(70 * 15) / 1000
    assert bills["both"]["40 tokens"] == bills["cached"]["40 tokens"] / 2
    assert found.cheapest_alone == ("both", Decimal("1.078"))
    text = str(found)
    assert "'both' at 1.0780, which is 24.2% of 'list price'" in text
    assert "about 1,024 tokens of each prompt" in text
    rows = {row[0]: row for row in found.table().rows}
    assert rows["40 tokens"][-1] == "51.3%"  # of the cheapest teacher alone, not of the naive one
    assert rows["student alone"][-1] == "0.0%"


def test_a_report_of_policies_names_the_naive_bill_and_what_breaks_the_front() -> None:
    short = store(chain={"teacher_prompt": [{"prompt": "without_exemplars", "keep": 0}]})
    sweeps = {"whole": Sweep.of(store()), "short": Sweep.of(short)}
    said = str(PolicySweep.of(store(), sweeps))
    assert (
        "whole: the teacher alone is billed as the run was: $2.0000 for 1,000 answers; nai" in said
    )
    assert "short: WithoutExemplars drops worked examples" in said


def test_the_run_itself_stays_as_it_was_paid() -> None:
    folder = store()
    before = [dict(line) for line in folder.lines]
    ScenarioReport.of(Sweep.of(folder), [BillingScenario(price=FULL, cached_prefix=FRONT)])
    assert folder.lines == before


def test_a_comparison_and_its_file(tmp_path) -> None:
    folder = store("compare")
    found = ScenarioReport.of(Comparison.of(folder), [BillingScenario(name="b", price=FULL)])
    assert pretty(found) == str(found)
    assert set(found.bills["b"]) == {"teacher alone", "student", "guided"}
    assert found.bills["b"] == found.bills[NAIVE]  # nothing was reported as cached
    assert len(found.tables()) == 1
    assert panels(found) == {
        name: {"teacher only": [4.46], "student only": [0.0], "guided": [3.41]}
        for name in (NAIVE, "b")
    }


def panels(report: ScenarioReport) -> dict[str, dict[str, list[float]]]:
    """Return the costs that the chart of a report shows, by panel and line."""
    [figure] = report.figures().values()
    assert len({axes.get_xlim() for axes in figure.axes}) == 1  # the panels can be compared
    return {
        axes.get_title("left"): {
            str(line.get_label()): [round(float(x), 4) for x in line.get_xdata()]  # type: ignore
            for line in axes.lines
            if line.get_label() != "random router"
        }
        for axes in figure.axes
    }


def test_the_frontier_of_a_sweep_and_of_policies_is_drawn_in_each_scenario() -> None:
    batch = BillingScenario(name="batch", price=FULL, cached_prefix=None, tier="batch")
    one = panels(ScenarioReport.of(Sweep.of(store()), [batch]))
    assert one[NAIVE]["fixed length"] == [3.41]
    assert one["batch"]["fixed length"] == [1.705]
    assert one["batch"]["teacher only"] == [2.23]
    policies = store(kind="sweep_policies", sessions=[{"policies": ["a", "b"]}])
    sweeps = {"a": Sweep.of(store()), "b": Sweep.of(store())}
    found = ScenarioReport.of(PolicySweep.of(policies, sweeps), [batch])
    drawn = panels(found)
    assert drawn["batch"]["b"] == [1.705]
    assert drawn[NAIVE]["teacher only, a"] == [4.46]
    kinds = {(row[0], row[1], row[2]) for row in found.tables()[1].rows}
    assert (NAIVE, "any way", "a: 40 tokens") in kinds


def test_the_teacher_alone_has_its_own_front_in_a_comparison() -> None:
    prompts = store().manifest["sessions"][0]["prompts"]
    shown = {"shared": 0, "total": 4496 * ROWS, "prompts": ROWS}
    folder = store("compare", sessions=[{"prompts": {**prompts, "shown": shown}}])
    scenario = BillingScenario(name="c", price=FULL, cached_prefix=FRONT)
    bills = ScenarioReport.of(Comparison.of(folder), [scenario]).bills
    assert bills["c"]["teacher alone"] < bills[NAIVE]["teacher alone"]
    assert bills["c"]["guided"] == bills[NAIVE]["guided"]
    notes = " ".join(ScenarioReport.of(Comparison.of(folder), [scenario]).notes)
    assert "about 1,024 tokens of each prompt of the teacher alone" in notes
    assert "about 0 tokens of each prompt for guidance" in notes


def test_what_was_reported_as_cached_is_measured() -> None:
    folder = store()
    usage = {
        "input_tokens": PROMPT,
        "output_tokens": ANSWER,
        "total_tokens": PROMPT + ANSWER,
        "input_token_details": {"cache_read": 1000},
    }
    part = {"calls": 1, "prompt_tokens": PROMPT, "completion_tokens": ANSWER}
    reply = {"text": "7", "usage": usage, "part": part}
    folder.lines += [
        {"type": "reply", "row": f"r{n}", "mode": "teacher", "reply": reply} for n in range(ROWS)
    ]
    sweep = Sweep.of(repriced(folder, BillingScenario(price=FULL)))
    prompt = Decimal(124 * 250 + 1000 * 25) / 100 / 1_000_000
    for way in ("teacher alone", "40 tokens"):
        assert ways(sweep)[way].teacher.prompt_cost is not None
        assert Decimal(str(ways(sweep)[way].teacher.prompt_cost)) == prompt * ROWS


def test_older_runs_are_estimated_by_their_questions_or_refused() -> None:
    folder = store(sessions=[{}])
    tokens, how = cacheable_tokens(folder)
    assert tokens == PROMPT  # all prompts are as long, whatever the question
    assert "older release" in how
    alike = store(sessions=[{}], questions=["Q"] * ROWS)
    assert cacheable_tokens(alike)[0] is None
    with pytest.raises(ValueError, match=r"give CachedPrefix\(tokens=...\)"):
        repriced(alike, BillingScenario(price=FULL, cached_prefix=FRONT))
    named = BillingScenario(price=FULL, cached_prefix=CachedPrefix(hit_rate=1.0, tokens=1024))
    found = Sweep.of(repriced(alike, named))
    assert found.teacher.cost == ROWS * Decimal("0.002156")


def test_what_contradicts_the_run_is_refused() -> None:
    sweep = Sweep.of(store())
    long = BillingScenario(price=FULL, cached_prefix=CachedPrefix(hit_rate=1.0, tokens=2000))
    with pytest.raises(ValueError, match="tokens=2000 is more than the 1124 tokens of a whole"):
        ScenarioReport.of(sweep, [long])
    twice = BillingScenario(name="a", price=FULL)
    with pytest.raises(ValueError, match="two scenarios are called 'a'"):
        ScenarioReport.of(sweep, [twice, twice])
    with pytest.raises(ValueError, match="scenarios is empty"):
        ScenarioReport.of(sweep, [])
    unknown = BillingScenario(price={"other": FULL}, cached_prefix=None)
    listed = ScenarioReport.of(sweep, [unknown]).bills  # the list knows the run's own model
    assert listed[NAIVE]["teacher alone"] == Decimal("0.2346")


def test_a_runs_own_price_is_used_where_the_scenario_has_none() -> None:
    described = {"input_mtok": "2.50", "output_mtok": "15", "cached_input_mtok": "0.25"}
    described |= {"cache_write_mtok": "None", "source": "user", "tiers": "{}"}
    folder = store()
    folder.manifest["settings"]["prices"]["teacher"] = described
    found = Sweep.of(repriced(folder, BillingScenario(cached_prefix=FRONT)))
    assert found.teacher.cost == ROWS * Decimal("0.002156")


@pytest.mark.parametrize("batch", ["0.5", Price("1.25", "7.5")])
def test_a_runs_own_price_keeps_its_tiers(batch: Any) -> None:
    folder = store()
    price = replace(FULL, tiers={"batch": batch})
    folder.manifest["settings"]["prices"] |= {"scenario": {"price": describe_price(price)}}
    ways = [BillingScenario(cached_prefix=None, tier=tier) for tier in ("batch", "flex")]
    found = ScenarioReport.of(Sweep.of(folder), ways)
    assert [bill["teacher alone"] for bill in found.bills.values()] == [
        *(Decimal("4.46"), Decimal("2.23"), Decimal("4.46"))
    ]
    assert any(note.startswith("flex: no price in tier flex") for note in found.notes)
    assert not any(note.startswith("batch") for note in found.notes)


def test_choices_and_the_chart_are_made_in_each_scenario(tmp_path) -> None:
    scenario = BillingScenario(name="batch", price=FULL, cached_prefix=None, tier="batch")
    found = ScenarioReport.of(Sweep.of(store()), [scenario])
    chosen = found.tables()[1]
    kinds = ("fixed length", "any way")
    assert [row[:2] for row in chosen.rows] == [[n, k] for n in (NAIVE, "batch") for k in kinds]
    assert {row[2] for row in chosen.rows} == {"40 tokens"}
    names = {file.name for file in found.save(tmp_path)}
    assert {"scenarios.txt", "scenarios.md", "scenarios.html", "scenarios.svg"} <= names
    assert "the bill in each scenario" in (tmp_path / "scenarios.html").read_text()


def test_every_run_says_what_the_teacher_alone_is_billed_naively_and_at_the_least() -> None:
    naive, _ = baseline_notes(
        store("compare", chain={"teacher_prompt": [{"prompt": "last_turns"}]})
    )
    assert "$2.0000 for 1,000 answers; naive" in naive
    assert naive.endswith("it is $0.2346")
    folder = repriced(store("compare"), BillingScenario(price=FULL, cached_prefix=None))
    folder.manifest["settings"]["prices"]["teacher"] = {"input_mtok": "2.50", "output_mtok": "15"}
    assert baseline_notes(folder) == []  # it was paid naively, and shown no other prompt
    short = store("compare", chain={"teacher_prompt": [{"prompt": "last_turns"}]})
    for line in short.lines:
        if line["answer"]["mode"] == "guided":
            line["answer"]["teacher"]["prompt_cost"] = "0.0001"
    assert "about $1.1000 for 1,000 answers" in baseline_notes(short)[1]


@pytest.mark.parametrize(("prompt", "said"), [(700, False), (958, True), (1024, False)])
def test_a_run_points_out_prompts_that_are_nearly_cached(prompt: int, said: bool) -> None:
    folder = store()
    for line in folder.lines:
        if line["answer"]["teacher"]["calls"]:
            line["answer"]["teacher"]["prompt_tokens"] = prompt
    notes = " ".join(Sweep.of(folder).notes())  # the price list has a rate for cached prompts
    assert ("8 of 8 prompts of the teacher have 958 tokens on average" in notes) is said
    folder.manifest["settings"]["prices"]["teacher"] = describe_price(Price("1", "2"))
    assert "just too few" not in " ".join(Sweep.of(folder).notes())


def test_a_choice_is_made_in_a_scenario_and_a_report_names_what_breaks_the_front() -> None:
    prompt = [{"prompt": "without_exemplars", "keep": 0, "unmarked": False}]
    sweep = Sweep.of(store(chain={"teacher_prompt": prompt}))
    naive = BillingScenario(price=FULL, cached_prefix=None)
    batch = BillingScenario(price=FULL, cached_prefix=None, tier="batch")
    costs = [sweep.choose(scenario=one).unseen.cost for one in (naive, batch)]
    assert costs[0] == pytest.approx(2 * costs[1])
    any_way = [sweep.choose(scenario=one, gate="any").teacher for one in (naive, batch)]  # type: ignore
    assert any_way[0].cost == pytest.approx(2 * any_way[1].cost)
    policies = PolicySweep.of(store(), {"only": Sweep.of(store())})
    among = [policies.choose_any(scenario=one).teacher.cost for one in (naive, batch)]
    assert among[0] == pytest.approx(2 * among[1])
    assert any(note.startswith("WithoutExemplars drops worked examples") for note in sweep.notes())
    assert any("naive, at the list price" in note for note in sweep.notes())


@pytest.fixture
def run_folder(tmp_path) -> str:
    folder = store()
    (tmp_path / "manifest.json").write_text(json.dumps(folder.manifest))
    lines = "".join(json.dumps(line) + "\n" for line in folder.lines)
    (tmp_path / "lines.jsonl").write_text(lines)
    return str(tmp_path)


def test_the_command_shows_scenarios_side_by_side(run_folder, capsys) -> None:
    words = ["report", run_folder, "--prices", "2.5,15", "--cached-prefix", "--batch"]
    assert main(words) == 0
    said = capsys.readouterr().out
    for name in (NAIVE, "cached prefix", "batch", "cached prefix, batch"):
        assert name in said
    assert "no price of cached tokens" in said
    assert (Path(run_folder) / "scenarios.html").exists()


def test_the_command_names_what_it_lacks(run_folder, capsys) -> None:
    assert main(["report", run_folder, "--batch"]) == 1
    assert "--cached-prefix and --batch need --prices" in capsys.readouterr().err
    assert main(["report", run_folder, "--prices", "openai:gpt-99"]) == 1
    said = capsys.readouterr().err
    assert "--prices openai:gpt-99" in said
    assert "newest price is of 20" in said
