"""The HTML report of an evaluation: one page that needs no other file."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_gkt.evaluation.results.charts import write_figure
from langchain_gkt.evaluation.running.records import Answer
from langchain_gkt.reporting.html import render
from langchain_gkt.reporting.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EXAMPLES = 6


def page(
    manifest: Mapping[str, Any],
    tables: Sequence[Table],
    figures: Mapping[str, Figure],
    answers: Sequence[Answer],
) -> str:
    """Return one page with tables, charts and some guided answers.

    Args:
        manifest: What the run was made with.
        tables: Its tables.
        figures: Its figures by name.
        answers: Its answers.

    Returns:
        An HTML document without references to anything outside of it.

    Raises:
        ImportError: If jinja2 is missing.
    """
    from markupsafe import Markup  # comes with jinja2

    settings = manifest["settings"]
    return render(
        "evaluation_report.html.j2",
        title=f"{manifest['kind']}: {settings['task']['name']}",
        teacher=", ".join(str(one["model"] or one["class"]) for one in settings["teacher"]),
        student=str(settings["student"]["model"] or settings["student"]["class"]),
        tables=[Markup(table.html()) for table in tables],  # noqa: S704  it escapes its cells
        charts=[Markup(_svg(name, figure)) for name, figure in figures.items()],  # noqa: S704
        examples=_examples(manifest, answers),
        about=_about(manifest),
    )


def _svg(name: str, figure: Figure) -> str:
    buffer = io.StringIO()
    write_figure(figure, buffer, name, "svg")
    drawn = buffer.getvalue()
    return drawn[drawn.index("<svg") :]


def _examples(manifest: Mapping[str, Any], answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Pick some guided answers; first those that only guidance made right."""
    alone = {answer.row: answer.right for answer in answers if answer.mode == "student"}
    guided = [answer for answer in answers if answer.mode == "guided" and answer.guidance]
    guided.sort(key=lambda answer: (answer.right <= alone.get(answer.row, False), answer.row))
    picked: dict[str, Answer] = {}
    for answer in guided:
        if len(picked) < _EXAMPLES:
            picked.setdefault(answer.row, answer)
    questions = dict(zip(manifest["rows"], manifest["questions"], strict=True))
    return [_example(questions[row], answer) for row, answer in picked.items()]


def _example(question: str, answer: Answer) -> dict[str, Any]:
    guidance = answer.guidance if answer.text.startswith(answer.guidance) else ""
    return {
        "question": question,
        "guidance": guidance,
        "continuation": answer.text[len(guidance) :],
        "verdict": "right" if answer.right else "wrong",
        "length": answer.length,
    }


def _about(manifest: Mapping[str, Any]) -> str:
    long = ("rows", "questions")
    short = {name: value for name, value in manifest.items() if name not in long}
    return json.dumps({**short, "rows": len(manifest["rows"])}, indent=1, ensure_ascii=False)
