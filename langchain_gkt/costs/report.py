"""CostReport: what was paid, what teacher-only calls would have cost, and what is not known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import Any

METHOD = (
    "same teacher prompt; the whole answer in teacher tokens at the characters per token "
    "measured on the teacher's own guidance"
)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Sums over model runs; two of them add up.

    Attributes:
        calls: Runs that ended, failed ones and cache hits included.
        failed_calls: Runs that ended with an error, early-closed streams left out.
        cache_hits: Runs that LangChain's LLM cache answered; they cost nothing.
        unreported_calls: Runs whose tokens the provider never told.
        unpriced_calls: Runs whose model has no known price.
        priced_calls: Runs whose cost is known.
        uncosted_calls: Runs that have a price, not free, but no tokens to put it to.
        prompt_tokens: Prompt tokens, cached ones included.
        cached_prompt_tokens: Prompt tokens the provider read from its own cache.
        completion_tokens: Completion tokens, reasoning included.
        reasoning_tokens: Hidden completion tokens.
        seconds: Time the runs were busy, summed over concurrent ones.
        first_token_sum: Seconds to the first token, summed over the streamed runs.
        streamed_calls: Runs that showed a first token before their end.
        prompt_money: USD for prompts, of priced runs.
        completion_money: USD for completions, of priced runs.
        sources: Where prices come from, or why there is none.
    """

    calls: int = 0
    failed_calls: int = 0
    cache_hits: int = 0
    unreported_calls: int = 0
    unpriced_calls: int = 0
    priced_calls: int = 0
    uncosted_calls: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    seconds: float = 0.0
    first_token_sum: float = 0.0
    streamed_calls: int = 0
    prompt_money: Decimal = Decimal(0)
    completion_money: Decimal = Decimal(0)
    sources: frozenset[str] = frozenset()

    def __add__(self, other: Figures) -> Figures:
        """Add two sums, field by field."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        mine, theirs = pairs.pop("sources")
        sums = {name: left + right for name, (left, right) in pairs.items()}
        return Figures(sources=mine | theirs, **sums)

    @property
    def cost_known(self) -> bool:
        """Whether the money is a sum, or at least a lower bound of it."""
        return not self.unpriced_calls and (self.priced_calls > 0 or not self.uncosted_calls)

    @property
    def prompt_cost(self) -> Decimal | None:
        """USD for prompts; None where a price or all usage is missing."""
        return self.prompt_money if self.cost_known else None

    @property
    def completion_cost(self) -> Decimal | None:
        """USD for completions; None where a price or all usage is missing."""
        return self.completion_money if self.cost_known else None

    @property
    def cost(self) -> Decimal | None:
        """USD in all; None where a price or all usage is missing."""
        return self.prompt_money + self.completion_money if self.cost_known else None

    @property
    def first_token_seconds(self) -> float | None:
        """Mean seconds to the first token; None where nothing was streamed."""
        return self.first_token_sum / self.streamed_calls if self.streamed_calls else None

    def to_dict(self) -> dict[str, Any]:
        """Return the sums as JSON values.

        Returns:
            Counts as int, seconds as float, USD as decimal strings or None.
        """
        return {
            "calls": self.calls,
            "failed_calls": self.failed_calls,
            "cache_hits": self.cache_hits,
            "unreported_calls": self.unreported_calls,
            "unpriced_calls": self.unpriced_calls,
            "prompt_tokens": self.prompt_tokens,
            "cached_prompt_tokens": self.cached_prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "seconds": round(self.seconds, 6),
            "first_token_seconds": self.first_token_seconds,
            "prompt_cost": _plain(self.prompt_cost),
            "completion_cost": _plain(self.completion_cost),
            "cost": _plain(self.cost),
            "cost_is_lower_bound": self.uncosted_calls > 0,
            "price_source": "; ".join(sorted(self.sources)) or "no calls priced",
        }


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """The bill at one moment. ``str(report)`` is a table, ``to_dict()`` is for programs.

    Attributes:
        teacher: All teacher runs.
        student: All student runs.
        models: By role, the sums of each model.
        guided: All runs of guided calls, of both roles.
        compared: The runs of those guided calls that were estimated.
        estimate: What the teacher alone would have used for those same calls.
        not_estimated_calls: Guided calls that could not be estimated.
        running: Runs that had not ended when the report was made.
    """

    teacher: Figures = Figures()
    student: Figures = Figures()
    models: Mapping[str, Mapping[str, Figures]] = field(default_factory=dict)
    guided: Figures = Figures()
    compared: Figures = Figures()
    estimate: Figures = Figures()
    not_estimated_calls: int = 0
    running: int = 0

    @property
    def total(self) -> Figures:
        """Teacher and student together; its money is unknown where either's is."""
        total = self.teacher + self.student
        if self.teacher.cost_known and self.student.cost_known:
            return total
        return total + Figures(unpriced_calls=0 if total.unpriced_calls else 1)

    @property
    def cost(self) -> Decimal | None:
        """USD paid in all; None where a part of it is unknown."""
        return self.total.cost

    @property
    def ratio(self) -> float | None:
        """Cost of the estimated guided calls over the teacher-only estimate for the same."""
        paid, alone = self.compared.cost, self.estimate.cost
        if paid is None or not alone:
            return None
        return float(paid / alone)

    @property
    def prompt_share(self) -> float | None:
        """The part of the guided bill that is prompt money, which guidance cannot save."""
        cost, prompt = self.guided.cost, self.guided.prompt_cost
        return float(prompt / cost) if cost and prompt is not None else None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values.

        Returns:
            ``teacher``, ``student`` (each with ``models``), ``total``, ``guided``,
            ``teacher_only_estimate`` and ``running``. USD are decimal strings, or None where
            unknown.
        """
        alone = self.estimate.to_dict()
        some = self.estimate.calls > 0
        return {
            **{
                role: {
                    **figures.to_dict(),
                    "models": {
                        name: model.to_dict() for name, model in self.models.get(role, {}).items()
                    },
                }
                for role, figures in (("teacher", self.teacher), ("student", self.student))
            },
            "total": {
                **self.total.to_dict(),
                "unpriced_calls": self.teacher.unpriced_calls + self.student.unpriced_calls,
            },
            "guided": {
                key: self.guided.to_dict()[key]
                for key in ("prompt_cost", "completion_cost", "cost", "cost_is_lower_bound")
            }
            | {"prompt_share": self.prompt_share},
            "teacher_only_estimate": {
                "estimated": True,
                "method": METHOD,
                "calls": self.estimate.calls,
                "not_estimated_calls": self.not_estimated_calls,
                "prompt_tokens": alone["prompt_tokens"],
                "completion_tokens": alone["completion_tokens"],
                "prompt_cost": alone["prompt_cost"] if some else None,
                "completion_cost": alone["completion_cost"] if some else None,
                "cost": alone["cost"] if some else None,
                "guided_cost": _plain(self.compared.cost) if some else None,
                "ratio": self.ratio,
            },
            "running": self.running,
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text.

        Returns:
            An indented JSON object.
        """
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        """Return the bill as a plain-text table with its footnotes."""
        rows = [
            ("", "calls", "prompt tok", "(cached)", "compl. tok", "prompt $", "compl. $")
            + ("total $", "seconds"),
            _row("teacher", self.teacher),
            _row("student", self.student),
            _row("total", self.total),
        ]
        if self.estimate.calls:
            rows.append((*_row("teacher only, estimated", self.estimate)[:-1], "-"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if at else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join([*lines, *(f"* {note}" for note in self._notes())])

    def _notes(self) -> list[str]:
        notes = []
        for role, figures in (("teacher", self.teacher), ("student", self.student)):
            notes += [f"{role} price: {source}" for source in sorted(figures.sources)]
            for count, what in (
                (figures.unpriced_calls, "unpriced: the money of these is not known"),
                (figures.unreported_calls, "unreported: the provider told no tokens for these"),
                (figures.failed_calls, "failed"),
                (figures.cache_hits, "from LangChain's cache, at no cost"),
            ):
                if count:
                    notes.append(f"{role} calls {what}: {count} of {figures.calls}")
        if self.teacher.completion_tokens:
            notes.append("guidance tokens cut away at the seam were still paid for, and are in")
        if self.estimate.calls:
            compared = f"estimated for {self.estimate.calls} guided calls: {METHOD}"
            if self.ratio is not None:
                compared += f"; guided cost {self.ratio:.1%} of it"
            notes.append(compared)
        if self.not_estimated_calls:
            notes.append(f"guided calls not estimated: {self.not_estimated_calls}")
        if self.prompt_share is not None:
            notes.append(f"prompt money, which guidance cannot save: {self.prompt_share:.1%}")
        if self.running:
            notes.append(f"still running, not counted yet: {self.running}")
        return notes


def _row(label: str, figures: Figures) -> tuple[str, ...]:
    return (
        label,
        f"{figures.calls:,}",
        f"{figures.prompt_tokens:,}",
        f"{figures.cached_prompt_tokens:,}",
        f"{figures.completion_tokens:,}",
        _shown(figures, figures.prompt_cost),
        _shown(figures, figures.completion_cost),
        _shown(figures, figures.cost),
        f"{figures.seconds:.2f}",
    )


def _shown(figures: Figures, usd: Decimal | None) -> str:
    if usd is None:
        return "unpriced" if figures.unpriced_calls else "unknown"
    # Rounding must not turn a small amount into nothing.
    amount = "<0.000001" if 0 < usd < Decimal("0.000001") else f"{usd:,.6f}"
    return f">={amount}" if figures.uncosted_calls else amount


def _plain(usd: Decimal | None) -> str | None:
    return None if usd is None else format(usd.normalize(), "f")
