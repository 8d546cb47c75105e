"""Writes what the site's pages show: a drawing, shares, one marked answer, and how to install.

``python examples/pages.py`` (extra ``demo``), or ``make pages``; takes some seconds.
"""

from __future__ import annotations

import argparse
import html
import re
from decimal import Decimal
from pathlib import Path

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt.demo.pair import STUDENT, demo_teacher
from langchain_gkt.evaluation.tasks.word_problems import sample

RELEASED = False
"""Whether the package is on PyPI. The first release sets it, and runs ``make pages``."""

DOCS = Path(__file__).parents[1] / "docs"
PROMPTS = (50, 100, 300, 1000, 3000)
GUIDANCE = (10, 20, 40, 80)
ANSWER = 200
INPUT, OUTPUT = Decimal("0.15"), Decimal("0.60")

_BOXES = (  # x, y, width, height, colour, heading, line below
    (10, 90, 150, 70, "#eceff1", "Question", "the whole conversation"),
    (235, 10, 190, 70, "#ffe0b2", "Teacher", "big, paid per token"),
    (235, 170, 190, 70, "#bbdefb", "Student", "small, on your machine"),
    (500, 90, 190, 70, "#c8e6c9", "One answer", "begun and finished"),
)
_ARROWS = (  # path, text, x and y of the text
    ("M160 110 L230 60", "", 0, 0),
    ("M160 140 L230 190", "", 0, 0),
    ("M330 80 L330 165", "guidance", 340, 127),
    ("M425 45 L495 110", "", 0, 0),
    ("M425 205 L495 140", "the rest", 468, 195),
)


def drawing() -> str:
    """Return the drawing of one guided call, as SVG."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 250" role="img" '
        'font-family="sans-serif" font-size="14">',
        "<title>One guided call</title>",
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L10 5L0 10z" fill="#37474f"/></marker></defs>',
        '<rect width="700" height="250" fill="#fff"/>',
    ]
    for path, text, x, y in _ARROWS:
        parts.append(
            f'<path d="{path}" stroke="#37474f" stroke-width="2" fill="none" '
            'marker-end="url(#tip)"/>'
        )
        if text:
            parts.append(f'<text x="{x}" y="{y}" fill="#37474f" font-size="13">{text}</text>')
    for x, y, width, height, colour, heading, line in _BOXES:
        middle = x + width // 2
        parts += [
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{colour}" '
            'stroke="#37474f"/>',
            f'<text x="{middle}" y="{y + 30}" text-anchor="middle" font-weight="bold">'
            f"{heading}</text>",
            f'<text x="{middle}" y="{y + 52}" text-anchor="middle" font-size="12">{line}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def shares() -> str:
    """Return the table of shares of the teacher's bill, as Markdown."""
    lines = [
        "| prompt tokens | " + " | ".join(f"{g} guidance tokens" for g in GUIDANCE) + " |",
        "| ---: |" + " ---: |" * len(GUIDANCE),
    ]
    for prompt in PROMPTS:
        alone = prompt * INPUT + ANSWER * OUTPUT
        cells = ((prompt * INPUT + g * OUTPUT) / alone for g in GUIDANCE)
        lines.append(f"| {prompt:,} | " + " | ".join(f"{cell:.0%}" for cell in cells) + " |")
    return "\n".join(lines)


def marked_answer() -> str:
    """Return Markdown of the first problem that the student solves with guidance alone."""
    with demo_teacher() as teacher:
        chain = GuidedKnowledgeTransferChain(teacher=teacher, student=STUDENT, guidance_tokens=18)
        for problem in sample(7, 40):
            alone = chain.invoke(problem.question, mode="student").text
            guided = chain.invoke(problem.question)
            right = f"is {problem.answer}."
            if right in guided.text and right not in alone:
                break
    guidance = guided.response_metadata["gkt"]["guidance"]
    rest = guided.text[len(guidance) :]
    marked = f"<mark>{html.escape(guidance.rstrip())}</mark> {html.escape(rest.strip())}"
    return f"""> **Question**: {html.escape(problem.question)}
>
> **The student alone**, wrong: {html.escape(alone)}
>
> **Guided**, right: {marked}

Marked is the teacher's part. It is the first of 40 problems that the student solves only with
guidance. These are the embedded toy models, which know one family of word problems and
nothing else."""


def install_lines(text: str) -> str:
    """Return a text whose ``pip install`` lines name the package as it is to be had today."""
    name = "langchain-gkt" if RELEASED else "."
    return re.sub(r'(?<=")(?:langchain-gkt|\.)(?=\[[a-z,]+\]\\?")', name, text)


def install_note() -> str:
    """Return what the first pages say about installing."""
    if RELEASED:
        return "Needs Python 3.10 or newer."
    return (
        "There is no release yet. Clone the repository, and run every `pip install` of these pages "
        "in its folder."
    )


def pages(root: Path) -> list[Path]:
    """Return the files that may say how to install the package."""
    kinds = ("*.md", "docs/*.md", "examples/*.md", "examples/*.py", "examples/*.ipynb")
    files = (file for kind in kinds for file in root.glob(kind))
    return sorted(file for file in files if file != Path(__file__))


def put(page: Path, name: str, text: str) -> None:
    """Put text between a page's two comments of a name."""
    before, start, rest = page.read_text().partition(f"<!-- {name} -->")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not start or not end:
        raise ValueError(f"{page} has no place <!-- {name} --> ... <!-- /{name} -->")
    page.write_text(f"{before}{start}\n{text}\n{end}{after}")


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the pages")
    docs = parser.parse_args().docs
    (docs / "images" / "how-guidance-works.svg").write_text(drawing())
    for page in pages(docs.parent):
        page.write_text(install_lines(page.read_text()))
        if "<!-- install -->" in page.read_text():
            put(page, "install", install_note())
    put(docs / "will-it-pay.md", "shares", shares())
    put(docs / "how-guidance-works.md", "answer", marked_answer())


if __name__ == "__main__":
    main()
