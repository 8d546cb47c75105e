"""CostReport: usage, its cost, and what teacher-only would have cost."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from langchain_gkt.costs import rendering
from langchain_gkt.costs.comparison import BillComparison
from langchain_gkt.costs.estimate import ESTIMATE_METHODS
from langchain_gkt.costs.scenarios import BillingScenario, describe_scenario
from langchain_gkt.costs.totals import Estimate, UsageTotals, amount
from langchain_gkt.reporting.table import Table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1
"""Grows when a key of `CostReport.to_dict` is renamed or removed, not when one is added."""


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """A snapshot of a `CostTracker`.

    ``print(report)`` shows a table. A notebook shows the report itself.

    Attributes:
        models: Sums by role and model, in every mode.
        estimate: Teacher-only estimate for the guided calls.
        comparison: The result of `measure_costs`, if it was put here.
        budget: The budget with its spent part, if there is one.
        hidden_retries: Models whose clients may retry without any callback.
        running: Calls still running when the report was made.
        breakers: The state of each teacher's circuit breaker, by the teacher's model. See
            `CircuitBreaker.to_dict`.
        scenario: How the teacher's calls are billed. None to keep the reported billing.
    """

    models: dict[tuple[str, str], UsageTotals] = field(default_factory=dict)
    estimate: Estimate = field(default_factory=Estimate)
    comparison: BillComparison | None = None
    budget: dict[str, Any] | None = None
    hidden_retries: tuple[str, ...] = ()
    running: int = 0
    breakers: dict[str, dict[str, Any]] = field(default_factory=dict)
    scenario: BillingScenario | None = None

    @property
    def teacher(self) -> UsageTotals:
        """Sums of the teacher's calls, in every mode."""
        return self._sum("teacher")

    @property
    def student(self) -> UsageTotals:
        """Sums of the student's calls, in every mode."""
        return self._sum("student")

    @property
    def total(self) -> UsageTotals:
        """Sums of all calls."""
        return self._sum("teacher", "student")

    def _sum(self, *roles: str) -> UsageTotals:
        total = UsageTotals()
        for (role, _), counts in self.models.items():
            if role in roles:
                total.add(counts)
        return total

    @property
    def ratio(self) -> float | None:
        """Cost of the guided calls over their teacher-only estimate. None if unknown.

        The estimate is the cheapest way to ask the teacher alone that the calls allowed: cached and
        batched as they were, and with the same short prompt if they had one.
        """
        return self._ratio(self.estimate.cheapest)

    def _ratio(self, alone: UsageTotals) -> float | None:
        guided = self.estimate.guided
        if not self.estimate.calls or _unpriced(guided) or _unpriced(alone):
            return None
        return _share(guided.known_cost + guided.unreported_cost, alone.known_cost)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold.

        Returns:
            ``schema_version``, ``teacher``, ``student`` and ``total`` (see `UsageTotals`),
            ``teacher_only_estimate``, ``comparison`` (see `BillComparison`, None if nothing was
            compared), ``budget``, ``notes``, ``running``, ``circuit_breakers`` and ``scenario``.
            ``cost`` is None if it would leave calls out. ``known_cost`` never is. ``unreported`` is
            estimated. ``models`` holds the same for each model of a role. Money is a decimal string
            in US dollars. Times are seconds.
        """
        roles = {}
        for role in ("teacher", "student"):
            named = {
                model: counts.to_dict()
                for (owner, model), counts in sorted(self.models.items())
                if owner == role
            }
            roles[role] = {**self._sum(role).to_dict(), "models": named}
        return {
            "schema_version": SCHEMA_VERSION,
            **roles,
            "total": self.total.to_dict(),
            "teacher_only_estimate": self._estimate_dict(),
            "comparison": self.comparison.to_dict() if self.comparison else None,
            "budget": self.budget,
            "notes": self.notes(),
            "running": self.running,
            "circuit_breakers": self.breakers,
            "scenario": describe_scenario(self.scenario),
        }

    def _estimate_dict(self) -> dict[str, Any]:
        guided, alone = self.estimate.guided, self.estimate.cheapest
        known = self.estimate.calls > 0 and not _unpriced(alone)
        paid = known and not _unpriced(guided)
        spent = guided.known_cost + guided.unreported_cost
        prompt = guided.prompt_cost + guided.unreported_prompt_cost
        cached = paid and not guided.uncacheable_calls and not alone.uncacheable_calls
        return {
            "estimated": True,
            "calls": self.estimate.calls,
            "not_estimated_calls": self.estimate.not_estimated_calls,
            "methods": dict(self.estimate.methods),
            "method": "; ".join(ESTIMATE_METHODS[name] for name in sorted(self.estimate.methods))
            or None,
            "prompt_tokens": alone.prompt_tokens,
            "completion_tokens": alone.completion_tokens,
            # No estimate is not a zero estimate.
            "prompt_cost": amount(alone.prompt_cost) if known else None,
            "completion_cost": amount(alone.completion_cost) if known else None,
            "cost": amount(alone.known_cost) if known else None,
            "guided_prompt_cost": amount(prompt) if paid else None,
            "guided_completion_cost": amount(spent - prompt) if paid else None,
            "guided_cost": amount(spent) if paid else None,
            "ratio": self.ratio,
            "guided_prompt_share": _share(prompt, spent) if paid else None,
            # The prompt is paid for either way, so no guidance comes below this ratio.
            "prompt_share": _share(alone.prompt_cost, alone.known_cost) if known else None,
            "if_prompts_were_cached": (
                {
                    "guided_cost": amount(spent - prompt + guided.prompt_cost_if_cached),
                    "cost": amount(alone.completion_cost + alone.prompt_cost_if_cached),
                }
                if cached
                else None
            ),
            "against": "the teacher alone on "
            + (
                "the whole conversation"
                if alone is self.estimate.counts
                else "the prompt that it was shown"
            ),
            # At the list price, nothing cached, no batch.
            "naive": self._alternative(self.estimate.naive) if self.estimate.calls else None,
            "own_prompt": (
                {"calls": own_calls, **self._alternative(self.estimate.own_prompt)}
                if (own_calls := self.estimate.own_prompt_calls)
                else None
            ),
        }

    def _alternative(self, alone: UsageTotals) -> dict[str, Any]:
        """Return the bill of another way to ask the teacher alone."""
        return {
            "prompt_tokens": alone.prompt_tokens,
            "completion_tokens": alone.completion_tokens,
            "cost": None if _unpriced(alone) else amount(alone.known_cost),
            "ratio": self._ratio(alone),
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def to_frame(self) -> pandas.DataFrame:
        """Return the table as a pandas DataFrame.

        Returns:
            A row for each role, each model, the total, and the teacher-only estimate and
            measurement if there are any, indexed by ``role`` and ``model``. Money is Decimal, None
            if it would leave calls out. ``kind`` says whether a row is ``measured`` or
            ``estimated``.

        Raises:
            ImportError: If pandas is missing.
        """
        return rendering.frame(self._rows())

    def plot(self) -> Figure:
        """Draw what was paid, what would have been paid, and which of it is measured.

        Returns:
            A matplotlib figure, one chart. If money is unknown it shows tokens.

        Raises:
            ImportError: If matplotlib is missing.
        """
        return rendering.chart(self._roles(), self.estimate, self.comparison, self.ratio)

    def notes(self) -> list[str]:
        """Return what the table cannot show, in sentences."""
        notes = [
            *rendering.role_notes("teacher", self.teacher),
            *rendering.role_notes("student", self.student),
            *rendering.estimate_notes(self._estimate_dict()),
            *(self.scenario.notes() if self.scenario else ()),
        ]
        if self.comparison:
            notes.append(str(self.comparison))
        if self.budget:
            notes.append(rendering.budget_note(self.budget))
        notes += [
            rendering.breaker_note(*item) for item in self.breakers.items() if item[1]["opened"]
        ]
        if self.hidden_retries:
            notes.append(
                f"not seen: retries inside the client of {', '.join(self.hidden_retries)}; set "
                "its max_retries=0 and use with_retry() to have them counted"
            )
        if self.running:
            notes.append(f"{self.running} call(s) still running, not counted")
        return notes

    def _roles(self) -> dict[str, UsageTotals]:
        return {"teacher": self.teacher, "student": self.student, "total": self.total}

    def _rows(self) -> list[rendering.ReportRow]:
        return rendering.report_rows(self._roles(), self.models, self.estimate, self.comparison)

    def _table(self) -> Table:
        return rendering.table(self._rows(), self.notes())

    def __str__(self) -> str:
        """Return a table with what is measured, what is estimated, and what is unknown."""
        return self._table().terminal_text()

    def __rich__(self) -> Any:
        """Return the table for a rich console."""
        return self._table().rich()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the table in IPython. The fields alone fill a screen."""
        printer.text(str(self))

    def _repr_html_(self) -> str:
        """Return the table for a notebook, in the notebook's own colours."""
        return self._table().notebook_html()


def _unpriced(counts: UsageTotals) -> bool:
    return bool(counts.unpriced_calls or counts.unreported_unpriced_calls)


def _share(part: Decimal, whole: Decimal) -> float | None:
    return float(part / whole) if whole else None
