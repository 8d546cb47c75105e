"""CostReport: what was counted, what it cost, and what teacher-only would have cost."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any


@dataclass(kw_only=True)
class Counts:
    """Sums over the calls of one role.

    Attributes:
        calls: Calls made, whatever became of them.
        failed_calls: Calls that ended in an error.
        cache_hits: Calls answered from LangChain's cache; they cost nothing.
        unreported_calls: Calls that ended without usage: their tokens are not in the sums.
        prompt_tokens: Prompt tokens, cached ones included.
        cached_prompt_tokens: Prompt tokens the provider read from its cache.
        completion_tokens: Completion tokens, reasoning tokens included.
        reasoning_tokens: Completion tokens spent on hidden reasoning.
        seconds: Time between start and end, summed over calls.
        prompt_cost: US dollars for prompt tokens.
        completion_cost: US dollars for completion tokens.
        unpriced_calls: Calls whose model has no known price: not in the money.
        sources: Where the prices come from.
    """

    calls: int = 0
    failed_calls: int = 0
    cache_hits: int = 0
    unreported_calls: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    seconds: float = 0.0
    prompt_cost: Decimal = Decimal(0)
    completion_cost: Decimal = Decimal(0)
    unpriced_calls: int = 0
    sources: set[str] = field(default_factory=set)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; money as decimal strings, None where a call has no known money."""
        values = asdict(self)
        sources = sorted(values.pop("sources"))
        # Money that leaves calls out would look like the whole bill.
        priced = not self.unpriced_calls and not self.unreported_calls
        values["prompt_cost"] = str(self.prompt_cost) if priced else None
        values["completion_cost"] = str(self.completion_cost) if priced else None
        values["cost"] = str(self.prompt_cost + self.completion_cost) if priced else None
        values["price_source"] = "; ".join(sources) or None
        return values


@dataclass(kw_only=True)
class Estimate:
    """Sums for what teacher-only would have cost, over the guided calls that allow it.

    Attributes:
        calls: Guided calls in the estimate.
        not_estimated_calls: Guided calls that gave nothing to estimate from.
        counts: Tokens and money of the imagined teacher-only calls.
        guided: Money of the same calls as they really were, both models.
    """

    calls: int = 0
    not_estimated_calls: int = 0
    counts: Counts = field(default_factory=Counts)
    guided: Counts = field(default_factory=Counts)


_METHOD = (
    "same prompt tokens; completion tokens = characters of the whole answer / characters per "
    "token of the teacher's own guidance"
)


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """A snapshot of a `CostTracker`.

    Attributes:
        teacher: Sums of the teacher's calls, in every mode.
        student: Sums of the student's calls, in every mode.
        estimate: Teacher-only estimate for the guided calls.
        running: Calls that had not ended when the report was made.
    """

    teacher: Counts
    student: Counts
    estimate: Estimate
    running: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold.

        Returns:
            ``teacher`` and ``student`` (the fields of `Counts`, with ``cost`` and
            ``price_source``), ``total``, ``teacher_only_estimate`` and ``running``. Money is a
            decimal string in US dollars, or None where a call in it is unpriced or unreported.
        """
        roles = {"teacher": self.teacher.to_dict(), "student": self.student.to_dict()}
        costs = [role["cost"] for role in roles.values()]
        estimate = self.estimate.counts.to_dict()
        if not self.estimate.calls:  # nothing estimated is not an estimate of nothing
            estimate |= dict.fromkeys(("prompt_cost", "completion_cost", "cost"))
        return {
            **roles,
            "total": {
                "prompt_tokens": self.teacher.prompt_tokens + self.student.prompt_tokens,
                "completion_tokens": self.teacher.completion_tokens
                + self.student.completion_tokens,
                "cost": None if None in costs else str(sum(map(Decimal, costs), Decimal(0))),
            },
            "teacher_only_estimate": {
                **{
                    key: estimate[key]
                    for key in (
                        "prompt_tokens",
                        "completion_tokens",
                        "prompt_cost",
                        "completion_cost",
                        "cost",
                    )
                },
                "calls": self.estimate.calls,
                "not_estimated_calls": self.estimate.not_estimated_calls,
                "ratio": self.ratio,
                "estimated": True,
                "method": _METHOD,
            },
            "running": self.running,
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @property
    def ratio(self) -> float | None:
        """Cost of the guided calls over their teacher-only estimate; None if unknown."""
        guided, alone = self.estimate.guided, self.estimate.counts
        cost = alone.prompt_cost + alone.completion_cost
        unknown = guided.unpriced_calls or guided.unreported_calls or alone.unpriced_calls
        if not self.estimate.calls or unknown or not cost:
            return None
        return float((guided.prompt_cost + guided.completion_cost) / cost)

    def __str__(self) -> str:
        """Return a table with what is measured, what is estimated, and what is not known."""
        data = self.to_dict()
        estimate = data["teacher_only_estimate"]
        head = ("", "calls", "prompt tok", "completion tok", "prompt $", "completion $", "total $")
        rows: list[tuple[str, ...]] = [head]
        for name in ("teacher", "student"):
            rows.append(_row(name, data[name], data[name]["calls"]))
        rows.append(("total", "", *_tokens(data["total"]), "", "", _dollars(data["total"]["cost"])))
        if estimate["calls"]:
            rows.append(_row("teacher only (estimated)", estimate, estimate["calls"]))
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]  # noqa: B905
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, *self._notes(estimate)])

    def _notes(self, estimate: dict[str, Any]) -> list[str]:
        notes = []
        for name, counts in (("teacher", self.teacher), ("student", self.student)):
            if counts.sources:
                notes.append(f"{name} price: {'; '.join(sorted(counts.sources))}")
            if counts.unpriced_calls:
                notes.append(f"{name}: {counts.unpriced_calls} call(s) are unpriced")
            if counts.unreported_calls:
                notes.append(
                    f"{name}: {counts.unreported_calls} call(s) reported no usage; their tokens "
                    "are missing above"
                )
            if counts.failed_calls:
                notes.append(f"{name}: {counts.failed_calls} call(s) failed")
            if counts.cache_hits:
                notes.append(f"{name}: {counts.cache_hits} call(s) from the cache, free")
        if self.estimate.calls:
            if self.ratio is not None:
                guided = self.estimate.guided
                paid = guided.prompt_cost + guided.completion_cost
                share = f"{float(guided.prompt_cost / paid):.0%}" if paid else "0%"
                notes.append(
                    f"guided calls cost {self.ratio:.0%} of teacher only (estimated); {share} of "
                    "what they cost is prompt, which guidance cannot save"
                )
            notes.append(f"estimate: {estimate['method']}")
        if self.estimate.not_estimated_calls:
            notes.append(f"{self.estimate.not_estimated_calls} guided call(s) not in the estimate")
        if self.running:
            notes.append(f"{self.running} call(s) still running, not counted")
        return notes


def _row(name: str, values: dict[str, Any], calls: int) -> tuple[str, ...]:
    money = (values["prompt_cost"], values["completion_cost"], values["cost"])
    return (name, str(calls), *_tokens(values), *map(_dollars, money))


def _tokens(values: dict[str, Any]) -> tuple[str, str]:
    return f"{values['prompt_tokens']:,}", f"{values['completion_tokens']:,}"


def _dollars(amount: str | None) -> str:
    return "unknown" if amount is None else f"{Decimal(amount):.6f}"
