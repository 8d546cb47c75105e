"""What is kept of a run in the repository: figures and a few examples, not the answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from langchain_gkt.evaluation import PolicySweep, Sweep
from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.choice import halves
from langchain_gkt.evaluation.results.outcomes import CONFIDENCE_GATES, OutcomeMatrix
from langchain_gkt.evaluation.results.summary import Summary

BILL = 0.52
"""What the paper's pair pays of the teacher's bill."""
_BUDGETS = (0.02, 0.05, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.35, 0.4, 0.46, BILL, 0.6, 0.7, 0.8, 0.9)
_SPLITS = 20
_SHOWN = 2


def condense(found: PolicySweep) -> dict[str, Any]:
    """Take the figures of a run.

    Args:
        found: The run. Its policy that shows the whole conversation is what bills are shares of.

    Returns:
        Plain values.
    """
    settings = next(iter(found.sweeps.values())).manifest["settings"]
    whole = found.sweeps[found.whole or next(iter(found.sweeps))]
    outcomes = whole.outcomes
    return {
        "task": settings["task"]["name"],
        "shots": settings["task"]["shots"],
        "teacher": settings["teacher"][0]["model"],
        "student": settings["student"]["model"],
        "dtype": settings["student"]["dtype"],
        "prices": settings["prices"]["teacher"],
        "rows": whole.student.rows,
        "policies": {name: _policy(one, whole) for name, one in found.sweeps.items()},
        "within_budget": _choice(found),
        "frontier": _frontier(found, whole.outcomes),
        "beginnings": {name: _beginnings(one) for name, one in found.sweeps.items()},
        "confidence": {
            str(gate.probe_tokens): round(outcomes.separation(gate, range(len(outcomes.rows))), 3)
            for gate in CONFIDENCE_GATES
        }
        if outcomes.tells_confidence
        else {},
    }


def _policy(one: Sweep, whole: Sweep) -> dict[str, Any]:
    chain = one.manifest["settings"]["chain"]
    return {
        "teacher_prompt": chain.get("teacher_prompt"),
        "guidance": chain["guidance"],
        "ways": {
            **{str(n): _figures(summary, whole.teacher) for n, summary in one.by_length.items()},
            "all": _figures(one.teacher, whole.teacher),
        },
    }


def _figures(one: Summary, whole: Summary) -> dict[str, Any]:
    teacher, rows = one.teacher, one.rows
    cost, base = float(one.cost or 0), float(whole.cost or 0)
    return {
        "right": round(one.accuracy * rows),
        "interval": [round(end, 3) for end in one.interval],
        "leak": round(one.leaked, 4),
        "unparsed": round(one.unparsed, 4),
        "dollars_per_thousand": round(1000 * cost / rows, 5),
        "of_bill": round(cost / base, 4) if base else None,
        "teacher_prompt_tokens": round(teacher.prompt_tokens / rows, 1),
        "teacher_completion_tokens": round(teacher.completion_tokens / rows, 1),
        "student_completion_tokens": round(one.student.completion_tokens / rows, 1),
        "median_seconds": round(one.seconds, 2),
    }


def _choice(found: PolicySweep) -> dict[str, Any]:
    """Choose within the paper's bill on half of the rows, by several splits."""
    if not found.whole:
        return {}
    choices = [found.choose(max_bill=BILL, seed=seed) for seed in range(_SPLITS)]
    first = choices[0]
    kept = [one.kept or 0.0 for one in choices]
    bills = [one.bill or 0.0 for one in choices]
    return {
        "policy": first.name,
        "tokens": first.choice.chosen.length,
        "unseen_rows": first.choice.unseen_rows,
        "seen": round(first.choice.chosen.accuracy, 4),
        "unseen": round(first.choice.unseen.accuracy, 4),
        "interval": [round(end, 3) for end in first.choice.unseen.interval],
        "teacher_unseen": round(first.teacher.accuracy, 4) if first.teacher else None,
        "kept": round(kept[0], 4),
        "bill": round(bills[0], 4),
        "splits": _SPLITS,
        "reached": sum(k >= 0.95 and b <= BILL for k, b in zip(kept, bills, strict=True)),
        "mean_kept": round(sum(kept) / _SPLITS, 4),
        "mean_bill": round(sum(bills) / _SPLITS, 4),
    }


def _frontier(found: PolicySweep, whole: OutcomeMatrix) -> dict[str, list[list[float]]]:
    """Return share of the bill and accuracy of each way, chosen on other rows than tested.

    For each budget a half of the rows chooses the most accurate setting that costs no more, and
    the other half tests it. Then the halves change places.
    """
    lines: dict[str, list[list[float]]] = {}
    base = whole.point(TEACHER_ALONE).cost
    for name, one in found.sweeps.items():
        mine = one.outcomes
        fixed = [(n, None) for n in mine.lengths]
        lines[f"fixed length, {name}"] = _tested(mine, whole, lambda seen, f=fixed: f)
        if mine.tells_confidence:
            lines[f"cascade of whole answers, {name}"] = _tested(
                mine, whole, lambda seen, o=mine: _gated(o, seen, [TEACHER_ALONE])
            )
            lines[f"gated guidance, {name}"] = _tested(
                mine, whole, lambda seen, o=mine: _gated(o, seen, [n for n in o.lengths if n])
            )
        student, teacher = mine.point(0), mine.point(TEACHER_ALONE)
        ends = [[p.cost / base, p.accuracy] for p in (student, teacher)] if base else []
        lines[f"random router, {name}"] = [[round(x, 4), round(y, 4)] for x, y in ends]
        if not isinstance(one.per_question, str):
            predictor = one.per_question.cross_fitted.predictor
            lines[f"predictor, {name}"] = [
                [round(predictor.cost / base, 4), round(predictor.accuracy, 4)]
            ]
    return lines


def _gated(outcomes: OutcomeMatrix, seen: Sequence[int], lengths: Iterable[int]) -> list[Any]:
    return [(0, None), *((n, gate) for n in lengths for gate in [*outcomes.gates(seen), None])]


def _tested(outcomes: OutcomeMatrix, whole: OutcomeMatrix, candidates: Any) -> list[list[float]]:
    first, second = halves(outcomes.rows, 0)
    base, points = whole.point(TEACHER_ALONE).cost, list[list[float]]()
    for budget in (*_BUDGETS, 1.01):
        right = cost = 0.0
        for seen, unseen in ((first, second), (second, first)):
            limit = budget * whole.point(TEACHER_ALONE, only=seen).cost
            tried = [(way, outcomes.point(*way, only=seen)) for way in candidates(seen)]
            affordable = [pair for pair in tried if pair[1].cost <= limit] or tried[:1]
            way, _ = max(affordable, key=lambda pair: (pair[1].accuracy, -pair[1].cost))
            tested = outcomes.point(*way, only=unseen)
            right, cost = right + tested.right, cost + tested.cost * tested.rows
        rows = len(outcomes.rows)
        point = [round(cost / rows / base, 4) if base else 0.0, round(right / rows, 4)]
        if point not in points:
            points.append(point)
    return sorted(points)


def _beginnings(one: Sweep) -> dict[str, Any]:
    """Say what each length did to answers that the student alone gets right, with examples."""
    found, rows = {}, one.outcomes.rows
    asked = dict(zip(rows, one.outcomes.questions, strict=True)) if one.outcomes.questions else {}
    alone = {a.row: a for a in one.answers if a.mode == "student"}
    for length in [n for n in one.by_length if n]:
        guided = {a.row: a for a in one.answers if a.length == length}
        broken = [row for row in rows if alone[row].right and not guided[row].right]
        mended = [row for row in rows if guided[row].right and not alone[row].right]
        # An answer that the teacher finished is no beginning.
        cut = [row for row in rows if guided[row].finished_by != "teacher"]
        inside = [row for row in cut if guided[row].guidance.rstrip()[-1:] not in ".!?"]
        found[str(length)] = {
            "broken": len(broken),
            "mended": len(mended),
            "right_alone": sum(alone[row].right for row in rows),
            "cut_inside_a_sentence": len(inside),
            "of_these_right": sum(guided[row].right for row in inside),
            "of_these_right_alone": sum(alone[row].right for row in inside),
            "at_a_sentence_end": len(cut) - len(inside),
            "examples": [
                {
                    "question": asked.get(row, ""),
                    "alone": alone[row].text,
                    "guidance": guided[row].guidance,
                    "guided": guided[row].text,
                }
                for row in sorted(broken, key=lambda row: len(guided[row].text))[:_SHOWN]
            ],
        }
    return found
