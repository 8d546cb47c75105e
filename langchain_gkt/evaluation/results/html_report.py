"""The HTML report of an evaluation: one page that needs no other file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_gkt.evaluation.results.answer_table import STUDENT
from langchain_gkt.reporting.html import render
from langchain_gkt.reporting.table import Table

if TYPE_CHECKING:
    import pandas

_EXAMPLES = 6


def page(
    manifest: Mapping[str, Any],
    tables: Sequence[Table],
    charts: Sequence[Path],
    answers: pandas.DataFrame,
    conclusion: Sequence[str] = (),
) -> str:
    """Return one page with a run's conclusion, the charts among files, its tables and some answers.

    The answers are those of its `answer_table`.
    """
    from markupsafe import Markup  # comes with jinja2

    settings = manifest["settings"]
    about = {name: v for name, v in manifest.items() if name not in ("rows", "questions")}
    about["rows"] = len(manifest["rows"])
    return render(
        "evaluation_report.html.j2",
        title=f"{manifest['kind']}: {settings['task']['name']}",
        teacher=", ".join(str(model["model"] or model["class"]) for model in settings["teacher"]),
        student=str(settings["student"]["model"] or settings["student"]["class"]),
        conclusion=conclusion,
        tables=[Markup(table.html()) for table in tables],  # noqa: S704  it escapes its cells
        charts=[Markup(_svg(file)) for file in charts if file.suffix == ".svg"],  # noqa: S704
        examples=_examples(manifest, answers),
        about=json.dumps(about, indent=1, ensure_ascii=False),
    )


def _svg(file: Path) -> str:
    drawn = file.read_text(encoding="utf-8")
    return drawn[drawn.index("<svg") :]


def _examples(manifest: Mapping[str, Any], answers: pandas.DataFrame) -> list[dict[str, Any]]:
    """Pick some guided answers, first those that only guidance made right."""
    if answers.empty:
        return []
    alone = answers[answers["strategy"] == STUDENT].drop_duplicates("row").set_index("row")["right"]
    guided = answers[answers["guidance_tokens"].notna() & (answers["guidance"] != "")]
    # After answers that are right with guidance and wrong without it come the others.
    plain = guided["right"] <= guided["row"].map(alone).eq(True)
    guided = guided.assign(plain=plain).sort_values(["plain", "row"], kind="stable")
    questions = dict(zip(manifest["rows"], manifest["questions"], strict=True))
    examples = []
    for answer in guided.drop_duplicates("row").head(_EXAMPLES).to_dict("records"):
        guidance = answer["guidance"] if answer["text"].startswith(answer["guidance"]) else ""
        examples.append(
            {
                "question": questions[answer["row"]],
                "guidance": guidance,
                "continuation": answer["text"][len(guidance) :],
                "verdict": "right" if answer["right"] else "wrong",
                "length": answer["guidance_tokens"],
            }
        )
    return examples
