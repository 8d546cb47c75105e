"""A stored run under several billing scenarios, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from langchain_gkt.costs.prices import Price
from langchain_gkt.costs.scenarios import BillingScenario
from langchain_gkt.errors import ConfigurationError
from langchain_gkt.evaluation.results.any_way import Rival
from langchain_gkt.evaluation.results.base import Report
from langchain_gkt.evaluation.results.charts import Points, frontier_panels
from langchain_gkt.evaluation.results.choice import Choice
from langchain_gkt.evaluation.results.comparison import Comparison
from langchain_gkt.evaluation.results.policy_sweep import PolicyChoice, PolicySweep
from langchain_gkt.evaluation.results.summary import Summary
from langchain_gkt.evaluation.results.sweep_result import Sweep
from langchain_gkt.evaluation.running.repricing import cacheable_tokens, price_of
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.reporting.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Result: TypeAlias = Comparison | Sweep | PolicySweep

NAIVE = "list price"
"""The scenario that is always included: nothing cached, no batch."""
_ALONE = "teacher alone"


@dataclass(frozen=True, kw_only=True)
class ScenarioReport(Report):
    """A run priced in several ways. ``print`` shows the tables.

    Attributes:
        results: The run in each scenario, by the scenario's name. `NAIVE` comes first.
        notes: What a cache could hold, and what prices lack.
    """

    results: Mapping[str, Result]
    notes: Sequence[str] = ()
    _repr_pretty_ = Report._repr_pretty_  # IPython would prefer the __repr__ of this dataclass

    @classmethod
    def of(cls, result: Result, scenarios: Sequence[BillingScenario]) -> ScenarioReport:
        """Reprice a run. No model is called.

        Args:
            result: The run.
            scenarios: How the teacher is billed, each under a unique name. The teacher alone could
                be asked in each of them, too.

        Raises:
            ConfigurationError: If there is no scenario, two have the same name, or one cannot be
                applied. See `repriced`.
        """
        if not scenarios:
            raise ConfigurationError("scenarios is empty; give a BillingScenario(price=...)")
        naive = scenarios[0].model_copy(
            update={"name": NAIVE, "cached_prefix": None, "tier": None, "tier_rate": None}
        )
        known = {NAIVE: naive}
        for scenario in scenarios:
            if scenario.name in known and scenario.name != NAIVE:
                raise ConfigurationError(
                    f"two scenarios are called {scenario.name!r}",
                    hint="give each a name= of its own",
                )
            known.setdefault(scenario.name, scenario)
        folders = [result.folder]
        if isinstance(result, PolicySweep):
            folders = [sweep.folder for sweep in result.sweeps.values()]
        notes = []
        for folder in folders:
            for alone, whose in _kinds_of_prompts(folder).items():
                tokens, how = cacheable_tokens(folder, alone=alone)
                if tokens is not None:
                    notes.append(f"cached prefix: about {tokens:,} tokens of {whose}; {how}")
        own = price_of(folders[0])
        for scenario in known.values():
            if scenario.price is None and isinstance(own, Price | str):
                scenario = scenario.model_copy(update={"price": own})
            notes += scenario.notes()
        return cls(
            results={name: result.in_scenario(scenario) for name, scenario in known.items()},
            notes=list(dict.fromkeys(notes)),
        )

    @property
    def bills(self) -> dict[str, dict[str, Decimal | None]]:
        """US dollars of a thousand answers: by scenario, then by way to answer."""
        return {
            name: {
                way: None if summary.cost is None else summary.cost * 1000 / summary.rows
                for way, summary in ways(result).items()
            }
            for name, result in self.results.items()
        }

    @property
    def cheapest_alone(self) -> tuple[str, Decimal] | None:
        """The scenario in which the teacher alone costs least, and its cost there."""
        known = [
            (name, cost)
            for name, bill in self.bills.items()
            for way, cost in bill.items()
            if _is_alone(way) and cost is not None
        ]
        return min(known, key=lambda pair: pair[1], default=None)

    def table(self) -> Table:
        """Return the cost of each way to answer in each scenario."""
        bills, alone = self.bills, self.cheapest_alone
        first = next(iter(self.results.values()))
        rows = []
        for way, summary in ways(first).items():
            costs = [bill[way] for bill in bills.values()]
            least = min((cost for cost in costs if cost is not None), default=None)
            base = alone[1] if alone else None
            rows.append(
                [
                    way,
                    f"{summary.accuracy:.1%}",
                    *("unknown" if cost is None else f"{cost:.4f}" for cost in costs),
                    f"{least / base:.1%}" if least is not None and base else "?",
                ]
            )
        notes = ["costs: US dollars of 1,000 answers"]
        if alone is not None:
            naive = [cost for way, cost in bills[NAIVE].items() if _is_alone(way) and cost]
            share = f", which is {alone[1] / max(naive):.1%} of {NAIVE!r}" if naive else ""
            notes.append(
                "least: the cheapest scenario of that way, as a share of the cheapest way to ask "
                f"the teacher alone: {alone[0]!r} at {alone[1]:.4f}{share}"
            )
        return Table(
            title=f"{first.task_name}: the bill in each scenario",
            head=["", "accuracy", *self.results, "least"],
            rows=rows,
            notes=[*notes, *self.notes],
        )

    def tables(self) -> list[Table]:
        """Return the bills, and each scenario's choice."""
        lines = []
        for name, result in self.results.items():
            if isinstance(result, Comparison):
                continue
            for kind, selection in _choices(result).items():
                choice = selection.choice if isinstance(selection, PolicyChoice) else selection
                policy = getattr(selection, "name", "")
                lines.append(
                    [
                        name,
                        kind,
                        f"{policy}: {choice.chosen.guidance}" if policy else choice.chosen.guidance,
                        choice.chosen.asks_below,
                        f"{choice.chosen.accuracy:.1%}",
                        f"{choice.unseen.accuracy:.1%}",
                        choice.unseen.price,
                    ]
                )
        head = ["scenario", "kind", "guidance", "asks below", "seen", "unseen", "price unseen"]
        title = "What is chosen in each scenario"
        return [self.table(), *([Table(title=title, head=head, rows=lines)] if lines else [])]

    def figures(self) -> dict[str, Figure]:
        """Draw accuracy against cost, a panel for each scenario.

        Raises:
            ImportError: If matplotlib is missing.
        """
        first = next(iter(self.results.values()))
        unit = "$ per 1,000 answers"
        if not isinstance(first, Comparison):
            unit = first.outcomes.price_name if isinstance(first, Sweep) else first.price_name
        panels = {name: self._points(name) for name in self.results}
        return {"scenarios": frontier_panels(panels, unit)} if any(panels.values()) else {}

    def _points(self, name: str) -> Points:
        result = self.results[name]
        if not isinstance(result, Comparison):
            return result.frontiers() if isinstance(result, Sweep) else result.lines()
        ends = {_ALONE: "teacher only", "student": "student only"}
        return {
            ends.get(way, way): [Rival(way, summary.accuracy, float(cost))]
            for way, summary in ways(result).items()
            if (cost := self.bills[name][way]) is not None
        }

    def conclusion(self) -> list[str]:
        """Return the cheapest way to ask the teacher alone as a sentence, if its price is known."""
        if (cheapest := self.cheapest_alone) is None:
            return []
        name, cost = cheapest
        return [f"The teacher alone is cheapest by {name!r}: ${cost:.4f} for 1,000 answers."]

    def save(self, folder: str | Path) -> list[Path]:
        """Write scenarios.txt, scenarios.md, scenarios.html and the chart, and return the files.

        Args:
            folder: The target.

        Raises:
            ImportError: If matplotlib or jinja2 is missing.
        """
        return self._write(Path(folder), "scenarios", next(iter(self.results.values())))


def ways(result: Result) -> dict[str, Summary]:
    """Return the sums of a run by the way to answer."""
    if isinstance(result, Comparison):
        return {
            _ALONE if way == "teacher" else way: summary
            for way, summary in result.summaries.items()
        }
    if isinstance(result, PolicySweep):
        return {
            f"{name}: {way}": summary
            for name, sweep in result.sweeps.items()
            for way, summary in ways(sweep).items()
        }
    lengths = {
        f"{n} tokens" if n else "student alone": summary for n, summary in result.by_length.items()
    }
    return {**lengths, **result.further, _ALONE: result.teacher}


def _kinds_of_prompts(folder: RunStore) -> dict[bool | None, str]:
    """Return whose prompts begin otherwise. In a comparison guidance may have one of its own."""
    measured = folder.manifest["sessions"][-1].get("prompts") or {}
    apart = folder.manifest["kind"] == "compare" and "shown" in measured
    if apart and measured["shown"] != measured["whole"]:
        return {True: "each prompt of the teacher alone", False: "each prompt for guidance"}
    return {None: "each prompt"}


def _choices(result: Sweep | PolicySweep) -> dict[str, Choice | PolicyChoice]:
    """Return a run's choices, the choice among every way included."""
    choices: dict[str, Choice | PolicyChoice] = dict(result.choices())
    if choices and isinstance(result, Sweep):
        choices["any way"] = result.any_way
    elif choices and isinstance(result, PolicySweep) and result.whole:
        choices["any way"] = result.choose_any(max_loss=result.max_loss)
    return choices


def _is_alone(way: str) -> bool:
    return way.endswith(_ALONE)
