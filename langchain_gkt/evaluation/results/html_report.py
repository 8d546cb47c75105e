"""Reports of an evaluation: text, Markdown, and one HTML page that needs nothing else."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_gkt.evaluation.results import charts as pictures
from langchain_gkt.evaluation.results.run import Run
from langchain_gkt.evaluation.running.records import Answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EXAMPLES = 6
_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1b1b1b;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}
caption{text-align:left;font-weight:600;padding:.4rem 0}
th,td{padding:.25rem .7rem;text-align:right;white-space:nowrap;border-bottom:1px solid #8884}
th:first-child{text-align:left;font-weight:500}thead th{font-weight:600}
ul{color:#555;font-size:.88rem;padding-left:1.2rem}
figure{margin:1rem 0;background:#fff;border-radius:6px;padding:.5rem}
figure svg{width:100%;height:auto;display:block}
.answer{border-left:3px solid #8886;padding:.1rem 0 .1rem .8rem;margin:1rem 0;font-size:.92rem;
white-space:pre-wrap}
mark{background:#009e7333;color:inherit}
.right{color:#00734f}.wrong{color:#b03000}
pre{font-size:.8rem;overflow-x:auto;background:#8881;padding:.7rem;border-radius:6px}
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#16181b}ul{color:#aaa}
.right{color:#4fd1a5}.wrong{color:#ff9a70}}
"""


def save(run: Run, folder: Path) -> list[Path]:
    """Write a run's reports and pictures; see `Run.save`.

    Args:
        run: The run.
        folder: Where to.

    Returns:
        The files.
    """
    figures = run.figures()
    folder.mkdir(parents=True, exist_ok=True)
    files = pictures.save(figures, folder)
    shown = "\n\n".join(f"![{name}]({name}.svg)" for name in figures)
    for name, text in (
        ("report.txt", f"{run}\n"),
        ("report.md", f"{run.markdown()}\n\n{shown}\n"),
        ("report.html", html(run, figures)),
    ):
        (folder / name).write_text(text, encoding="utf-8")
        files.append(folder / name)
    return files


def html(run: Run, figures: Mapping[str, Figure]) -> str:
    """Return one page with tables, pictures and some answers.

    Args:
        run: The run.
        figures: Its figures.

    Returns:
        An HTML document without references to anything outside of it.
    """
    settings = run.manifest["settings"]
    teacher = ", ".join(str(one["model"] or one["class"]) for one in settings["teacher"])
    student = settings["student"]["model"] or settings["student"]["class"]
    title = f"{run.manifest['kind']}: {run.task_name}"
    drawn = "".join(f"<figure>{_svg(name, figure)}</figure>" for name, figure in figures.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>Teacher <b>{escape(teacher)}</b>, student "
        f"<b>{escape(str(student))}</b>.</p>"
        f"{''.join(grid.html() for grid in run.grids())}<h2>Pictures</h2>{drawn}"
        f"{_answers(run)}<h2>How it was made</h2><pre>{escape(_about(run))}</pre></body></html>\n"
    )


def _svg(name: str, figure: Figure) -> str:
    buffer = io.StringIO()
    pictures.write(figure, buffer, name, "svg")
    drawn = buffer.getvalue()
    return drawn[drawn.index("<svg") :]


def _answers(run: Run) -> str:
    """Show some guided answers with the guidance marked, those first that guidance turned."""
    alone = {answer.row: answer.right for answer in run.answers if answer.mode == "student"}
    guided = [answer for answer in run.answers if answer.mode == "guided" and answer.guidance]
    if not guided:
        return ""
    guided.sort(key=lambda answer: (answer.right <= alone.get(answer.row, False), answer.row))
    some: dict[str, Answer] = {}
    for answer in guided:
        if len(some) < _EXAMPLES:
            some.setdefault(answer.row, answer)
    asked = dict(zip(run.manifest["rows"], run.manifest["questions"], strict=True))
    shown = "".join(_answer(asked[row], answer) for row, answer in some.items())
    return f"<h2>Some guided answers</h2><p>The teacher's guidance is marked.</p>{shown}"


def _answer(question: str, answer: Answer) -> str:
    begun = answer.guidance if answer.text.startswith(answer.guidance) else ""
    verdict = "right" if answer.right else "wrong"
    rest = escape(answer.text[len(begun) :])
    return (
        f'<div class="answer"><i>{escape(question)}</i>\n<mark>{escape(begun)}</mark>{rest} '
        f'<span class="{verdict}">({verdict}, {answer.length} tokens)</span></div>'
    )


def _about(run: Run) -> str:
    long = ("rows", "questions")
    manifest = {name: value for name, value in run.manifest.items() if name not in long}
    return json.dumps({**manifest, "rows": len(run.manifest["rows"])}, indent=1, ensure_ascii=False)
