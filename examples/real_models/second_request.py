"""A second request: where the student begins a step unsurely, the teacher is asked again.

It is tried on the answers of a sweep, by asking the chain to go on from an answer that is begun:
the teacher reads its prompt and the answer so far, and the student goes on from what it adds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
from langchain_core.messages import AIMessage, HumanMessage

from langchain_gkt import GuidedKnowledgeTransferChain, HuggingFaceStudent
from langchain_gkt.costs import Price
from langchain_gkt.evaluation import Sweep, Task, sweep
from langchain_gkt.evaluation.results.answer_table import TEACHER_ALONE
from langchain_gkt.evaluation.results.frontier import worthwhile
from langchain_gkt.evaluation.results.outcomes import OutcomeMatrix
from langchain_gkt.evaluation.running.records import Answer
from langchain_gkt.texts import edges

FILE = "second-request.json"  # in a run's folder: what was found
SHARES = (0.25, 0.5, 1.0)
"""Of the answers with a further step, how many are broken off; it sets the entropy's threshold."""
MORE = (20, 40)
"""Completion tokens of the second request; the rest of the teacher's answer is tried, too."""


@dataclass(frozen=True)
class Step:
    """The beginning of a step in a student's part of an answer.

    Attributes:
        end: Where the text before it ends.
        entropy: Of the distribution of its first token, in nats.
    """

    end: int
    entropy: float


def try_again(
    found: Sweep,
    whole: OutcomeMatrix,
    tokens: int,
    chain: GuidedKnowledgeTransferChain,
    task: Task,
    price: Price,
    probe: HuggingFaceStudent,
    out: Path,
) -> list[dict[str, Any]]:
    """Ask again in the answers of one guidance length.

    Args:
        found: The sweep that they are taken from.
        whole: Outcomes of the same rows where the teacher sees the whole prompt.
        tokens: Their guidance length.
        chain: The pair.
        task: The sweep's task.
        price: The teacher's.
        probe: The student on an engine that tells entropies.
        out: Where to write down what is asked, to go on from if interrupted.

    Returns:
        By share of questions and length of the second request: right answers, the price of both
        calls, and the accuracy that one call gives for it.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = {task.row_key(i): row for i, row in enumerate(task.rows)}
    answers = {a.row: a for a in found.answers if a.length == tokens}
    steps = _steps([answers[key] for key in found.outcomes.rows], rows, task, probe, out)
    if not any(steps.values()):
        return []  # the teacher has finished every answer, or no student began a second step
    places = {share: _places(steps, share) for share in SHARES}
    begun = sorted({place for chosen in places.values() for place in chosen.items()})
    begun_task = _begun_task(task, [(rows[key], answers[key].text[:end]) for key, end in begun])
    again = sweep(
        chain.model_copy(update={"teacher_prompt": found.teacher_prompt}),
        begun_task,
        lengths=list(MORE),
        teacher_price=price,
        out=out / "answers",
        concurrency=16,
    )
    known = {row: i for i, row in enumerate(again.outcomes.rows)}
    at = {place: known.get(begun_task.row_key(i)) for i, place in enumerate(begun)}
    base = found.outcomes
    one_call = [base.point(n) for n in worthwhile(base, range(len(base.rows)))]
    lines = []
    for chosen in places.values():
        for more in (*MORE, TEACHER_ALONE):
            second = again.outcomes
            right, cost, asked = 0, 0.0, 0
            for row, key in enumerate(found.outcomes.rows):
                cost += base.cost[tokens].iloc[row]
                place = at[key, chosen[key]] if key in chosen else None
                if place is None:  # nobody asked, or it failed: the first answer stands
                    right += bool(base.right[tokens].iloc[row])
                else:
                    asked += 1
                    right += bool(second.right[more].iloc[place])
                    cost += second.cost[more].iloc[place]
            count = len(found.outcomes.rows)
            mixture = numpy.interp(
                cost / count, [one.cost for one in one_call], [one.accuracy for one in one_call]
            )
            lines.append(
                {
                    "tokens": tokens,
                    "rows": count,
                    "asked": round(asked / count, 4),
                    "more": "all" if more == TEACHER_ALONE else more,
                    "right": right,
                    "of_bill": round(cost / count / whole.point(TEACHER_ALONE).cost, 4),
                    "mixture": round(float(mixture), 4),
                }
            )
    return lines


def _steps(
    answers: Sequence[Answer],
    rows: Mapping[str, Any],
    task: Task,
    probe: HuggingFaceStudent,
    out: Path,
) -> dict[str, list[Step]]:
    """Find the steps of each answer that the student has begun, and how unsurely."""
    file = out / "steps.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for answer in answers:
        if answer.row in kept or answer.finished_by == "teacher":
            continue
        prompt = task.prompt(rows[answer.row])
        kept[answer.row] = []
        for end in _ends(answer.text, len(answer.guidance)):
            first = probe.first_tokens([*prompt, AIMessage(answer.text[:end])], tokens=1)
            if first[0].entropy is None:
                raise ValueError(f"--probe: {probe.backend} tells no entropy; give a torch folder")
            kept[answer.row].append([end, first[0].entropy])
        file.write_text(json.dumps(kept), encoding="utf-8")
    wanted = {answer.row for answer in answers}
    return {row: [Step(*one) for one in found] for row, found in kept.items() if row in wanted}


def _ends(text: str, begun: int) -> list[int]:
    """Return where steps end behind a beginning, with the blanks behind them, but for the last."""
    ends = {len(edges.whole_steps(text[:i]) or "") for i in range(begun + 1, len(text))}
    blanks = {end + len(text[end:]) - len(text[end:].lstrip()) for end in ends if end > begun}
    return sorted(end for end in blanks if end < len(text.rstrip()))


def _places(steps: Mapping[str, Sequence[Step]], share: float) -> dict[str, int]:
    """Return where a share of the answers is broken off: at their first unsure enough step."""
    highest = [max(step.entropy for step in found) for found in steps.values() if found]
    least = float(numpy.quantile(highest, 1 - share)) if share < 1 else 0.0
    places = {}
    for row, found in steps.items():
        unsure = [step.end for step in found if step.entropy >= least]
        if unsure:
            places[row] = unsure[0]
    return places


def _begun_task(task: Task, begun: Sequence[tuple[Mapping[str, Any], str]]) -> Task:
    """Return a task whose questions are answers that are begun."""

    def metric(text: str, row: Mapping[str, Any]) -> bool | None:
        return task.metric(row["begun"] + text, row)

    return replace(
        task,
        name=f"{task.name}, begun",
        rows=[
            {**row, "begun": text, "question": [HumanMessage(row["question"]), AIMessage(text)]}
            for row, text in begun
        ],
        metric=metric,
        leaks=None,
        more_metrics={},
    )
