"""Reprices a stored run, as if its teacher had been billed otherwise. No model is called."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from decimal import Decimal
from statistics import StatisticsError, linear_regression
from typing import Any

from langchain_gkt.costs.listed import is_nearly_cached, least_cached
from langchain_gkt.costs.prices import Price, price_call
from langchain_gkt.costs.scenarios import BillingScenario, check_prefix
from langchain_gkt.costs.usage import Tokens, as_usage
from langchain_gkt.errors import ConfigurationError
from langchain_gkt.evaluation.running.records import Answer, ModelUsage
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.metadata import Role
from langchain_gkt.prompts.shared_prefix import SharedPrefix

_TEACHER: Role = "teacher"


def repriced(folder: RunStore, scenario: BillingScenario) -> RunStore:
    """Return a copy of a run in memory whose teacher is billed by a scenario.

    Tokens and answers stay. Cacheable tokens are the common beginning of the rows' prompts, as
    measured in the run. Additional prompts of a strategy are assumed to share it. A scenario
    without a price of its own has the run's.

    Raises:
        ConfigurationError: If no price is known, more is cached than prompted, or the common
            beginning of all prompts is needed and unknown.
    """
    pricing = _Pricing(folder, scenario)
    run = RunStore(None)
    run.manifest, run.lines = folder.manifest, [pricing.line(line) for line in folder.lines]
    return run


def cacheable_tokens(folder: RunStore, *, alone: bool | None = None) -> tuple[int | None, str]:
    """Return about how many tokens all teacher prompts begin with, and how that is known.

    ``alone`` says whether to use the prompts of the teacher alone, or the others. None is for all,
    if they are the same. The tokens are None if nothing shows them.
    """
    parts = [
        (answer.row, answer.teacher.prompt_tokens)
        for answer in folder.answers()
        if answer.teacher.calls == 1 and alone in (None, answer.mode == _TEACHER)
    ]
    if not parts:
        return None, "the teacher was not asked"
    mean = sum(tokens for _, tokens in parts) / len(parts)
    if measured := folder.manifest["sessions"][-1].get("prompts"):
        kind = "whole" if alone is True or "shown" not in measured else "shown"
        prefix = SharedPrefix(**measured[kind])
        return prefix.tokens(round(mean * prefix.prompts)), (
            f"all prompts begin with the same {prefix.shared:,} characters"
        )
    questions = dict(zip(folder.manifest["rows"], folder.manifest["questions"], strict=True))
    lengths = [len(questions[row]) for row, _ in parts]
    try:
        fit = linear_regression(lengths, [tokens for _, tokens in parts])
    except StatisticsError:
        return None, "the run is of an older release, which did not measure what prompts share"
    shared = max(0, min(round(fit.intercept), *(tokens for _, tokens in parts)))
    return shared, (
        "what all prompts begin with is estimated from the questions' lengths: the run is of an "
        "older release, which did not measure it"
    )


def baseline_notes(folder: RunStore) -> list[str]:
    """Describe what the teacher alone costs, naively and, if it was shown less, at the least."""
    settings, answers = folder.manifest["settings"], folder.answers()
    alone = [answer.teacher for answer in answers if answer.mode == _TEACHER]
    if not alone or any(part.cost is None for part in alone):
        return []
    scenario = (settings.get("prices") or {}).get("scenario") or {}
    price = price_of(folder)
    only = RunStore(None)
    only.manifest = folder.manifest
    only.lines = [line for line in folder.lines_of("answer") if line["answer"]["mode"] == _TEACHER]
    try:
        naive = repriced(only, BillingScenario(price=price, cached_prefix=None))
    except ConfigurationError:  # a machine's time, or a price no longer known
        return []
    notes = _nearly_cached(folder, price, answers)
    paid, listed = (
        _per_thousand([part.cost for part in parts], len(parts))
        for parts in (alone, [answer.teacher for answer in naive.answers()])
    )
    if paid != listed:
        named = f" ({scenario['name']})" if scenario else ""
        notes.append(
            f"the teacher alone is billed as the run was{named}: ${paid} for 1,000 answers; naive, "
            f"at the list price, nothing cached and no batch, it is ${listed}"
        )
    shown = [a.teacher for a in answers if a.mode != _TEACHER and a.teacher.calls == 1]
    if folder.manifest["kind"] == "compare" and settings["chain"].get("teacher_prompt") and shown:
        prompt = sum((Decimal(part.prompt_cost or 0) for part in shown), Decimal(0)) / len(shown)
        written = [Decimal(part.completion_cost or 0) for part in alone]
        least = _per_thousand([prompt * len(alone), *written], len(alone))
        notes.append(
            f"at the least the teacher alone would be about ${least} for 1,000 answers: on the "
            "shorter prompt that it was shown for guidance (estimated; how right it is then was "
            "not measured)"
        )
    return notes


def _nearly_cached(folder: RunStore, price: Any, answers: Sequence[Answer]) -> list[str]:
    """Report prompts that are just too short for a cache that would make them cheaper."""
    settings = folder.manifest["settings"]
    model = settings["teacher"][0]
    prefix = ((settings.get("prices") or {}).get("scenario") or {}).get("cached_prefix") or {}
    least = prefix.get("min_tokens") or least_cached(model["model"] or "")
    rates = _price_of_call(model, price, as_usage(Tokens(prompt=least, completion=0)))
    if rates.prompt is None or (rates.prompt_if_cached or rates.prompt) >= rates.prompt:
        return []
    prompts = {(a.row, a.teacher.prompt_tokens) for a in answers if a.teacher.calls == 1}
    near = [tokens for _, tokens in prompts if is_nearly_cached(tokens, least)]
    if not near:
        return []
    return [
        f"{len(near)} of {len(prompts)} prompts of the teacher have {sum(near) // len(near):,} "
        f"tokens on average, just too few for a cache that begins at {least:,}: if they begin "
        "alike, a few more tokens in front would make them cheaper"
    ]


def _per_thousand(costs: Sequence[Decimal | None], rows: int) -> str:
    return f"{sum(filter(None, costs), Decimal(0)) * 1000 / rows:.4f}"


def _price_of_call(
    model: Mapping[str, Any], price: Any, usage: Any, tier: str | None = None
) -> Any:
    """Price a call of a model that a run's settings describe."""
    if isinstance(price, Mapping):
        price = price.get(model["model"])
    where = {"provider": model["provider"], "model": model["model"] or "", "base_url": None}
    return price_call(price, usage, **where, tier=tier)


class _Pricing:
    """Prices the teacher's part of each line."""

    def __init__(self, folder: RunStore, scenario: BillingScenario) -> None:
        self._price = price_of(folder) if scenario.price is None else scenario.billed_price
        self._model = folder.manifest["settings"]["teacher"][0]
        # In a comparison the teacher alone reads the whole conversation.
        self._apart = folder.manifest["kind"] == "compare"
        asked = [answer for answer in folder.answers() if answer.teacher.prompt_tokens]
        for answer in asked:
            check_prefix(scenario, answer.teacher.prompt_tokens)
        kinds = {answer.mode == _TEACHER for answer in asked} if self._apart else {None}
        self._scenarios = {
            alone: scenario.with_prefix(cacheable_tokens(folder, alone=alone)[0]) for alone in kinds
        }
        self._details = {
            (line["row"], line["mode"]): (line["reply"].get("usage") or {}).get(
                "input_token_details"
            )
            for line in folder.lines_of("reply")
        }

    def line(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Return a line with the teacher's money in the scenario."""
        if line["type"] == "answer":
            answer = Answer.from_dict(line["answer"])
            part = self._priced(answer.teacher, answer.row, answer.mode)
            return {**line, "answer": replace(answer, teacher=part).to_dict()}
        if line["type"] == "reply":
            part = ModelUsage(**line["reply"]["part"])
            priced = self._priced(part, line["row"], line["mode"])
            return {**line, "reply": {**line["reply"], "part": asdict(priced)}}
        return dict(line)

    def _priced(self, part: ModelUsage, row: str, mode: str) -> ModelUsage:
        if not part.calls or not part.prompt_tokens + part.completion_tokens:
            return part
        scenario = self._scenarios[mode == _TEACHER if self._apart else None]
        # A sweep cuts its guidance from the teacher's whole answer to the same prompt.
        details = self._details.get((row, mode)) or self._details.get((row, _TEACHER))
        costs = [
            self._cost(scenario, prompt, completion, details if part.calls == 1 else None)
            for prompt, completion in zip(
                _split(part.prompt_tokens, part.calls),
                _split(part.completion_tokens, part.calls),
                strict=True,
            )
        ]
        prompt_cost = sum((prompt for prompt, _ in costs), Decimal(0))
        completion_cost = sum((completion for _, completion in costs), Decimal(0))
        return replace(part, prompt_cost=str(prompt_cost), completion_cost=str(completion_cost))

    def _cost(
        self, scenario: BillingScenario, prompt: int, completion: int, details: Any
    ) -> tuple[Decimal, Decimal]:
        usage: Any = as_usage(Tokens(prompt=prompt, completion=completion))
        if details:
            usage["input_token_details"] = details
        cost = _price_of_call(self._model, self._price, scenario.as_billed(usage), scenario.tier)
        if cost.prompt is None or cost.completion is None:
            raise ConfigurationError(
                f"{scenario.name}: {cost.source}", hint="give BillingScenario(price=...)"
            )
        return cost.prompt, cost.completion


def _split(total: int, parts: int) -> Sequence[int]:
    """Split a number of tokens evenly among calls."""
    return [total * (n + 1) // parts - total * n // parts for n in range(parts)]


def price_of(folder: RunStore) -> Any:
    """Return the teacher's price of a run. None if it was looked up."""
    prices = folder.manifest["settings"].get("prices") or {}
    return _stored_price((prices.get("scenario") or {}).get("price") or prices.get("teacher"))


def _stored_price(described: Any) -> Any:
    """Rebuild the price that a run's manifest describes."""
    if not isinstance(described, Mapping):
        return described
    if "input_mtok" not in described:
        return {model: _stored_price(price) for model, price in described.items()}
    rates = {k: v for k, v in described.items() if k.endswith("_mtok") and v not in ("None", None)}
    tiers = described.get("tiers") or {}
    if isinstance(tiers, str):  # a manifest holds them as Python writes them
        tiers = ast.literal_eval(re.sub(r"Decimal\(('[^']*')\)", r"\1", tiers))
    own = {name: _stored_price(price) for name, price in tiers.items()}
    return Price(**rates, source=described.get("source", "user"), tiers=own)
