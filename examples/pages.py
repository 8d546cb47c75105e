"""Writes what the site's pages show: a drawing, shares, one marked answer, and how to install.

``python examples/pages.py`` (extra ``demo``), or ``make pages``. Takes some seconds.
"""

from __future__ import annotations

import argparse
import html
import re
from decimal import Decimal
from pathlib import Path

from langchain_gkt import GuidedKnowledgeTransferChain, Price
from langchain_gkt.costs import BillingScenario, CachedPrefix
from langchain_gkt.demo.pair import STUDENT, demo_teacher
from langchain_gkt.evaluation.tasks.word_problems import sample

RELEASED = False
"""Whether the package is on PyPI. The first release sets it, and runs ``make pages``."""

DOCS = Path(__file__).parents[1] / "docs"
PROMPTS = (50, 100, 300, 1000, 3000)
GUIDANCE = (10, 20, 40, 80)
ANSWER = 200
INPUT, OUTPUT = Decimal("0.15"), Decimal("0.60")
_HALF = {"batch": "0.5"}
PRESETS = {
    "openai:gpt-6.1-terra": Price("1", "5", "0.05", cache_write_mtok="1.25", tiers=_HALF),
    "openai:gpt-6-luna": Price("0.1", "0.5", "0.01", cache_write_mtok="0.125", tiers=_HALF),
    "anthropic:claude-sonnet-5-5": Price("2", "10", "0.1", cache_write_mtok="2.5", tiers=_HALF),
    "google:gemini-3.8-flash": Price("0.75", "3.75", "0.075", tiers=_HALF),
    "mistral:mistral-large-4": Price("0.7", "2.1", "0.07", tiers=_HALF),
}
PRICED = "genai-prices 0.2.3, read on 2026-11-29"
FRONT, PROMPT, SHORT_ANSWER, GUIDED = 1024, 1124, 110, 40

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


def options() -> str:
    """Return the calculator's models, as HTML options that hold their prices."""
    lines = ['<option value="">of your own</option>']
    for model, price in PRESETS.items():
        fields = {
            "input": price.input_mtok,
            "output": price.output_mtok,
            "discount": _percent(price.cached_input_mtok, price.input_mtok),
            "write": _percent(price.cache_write_mtok, price.input_mtok),
        }
        data = " ".join(f'data-{name}="{value}"' for name, value in fields.items())
        lines.append(f"<option {data}>{model.partition(':')[2]}</option>")
    return "\n".join(lines)


def _percent(rate: Decimal | None, whole: Decimal) -> str:
    return f"{float((whole if rate is None else rate) / whole * 100):.4g}"


def presets() -> str:
    """Return the bills of the calculator's models, as a Markdown table, with their source."""
    lines = [
        "| model | input, $ per 1M tokens | output / input price | list price, 1,000 calls "
        "| cached | batch | both | guided, cached | guided, both |",
        "| --- |" + " ---: |" * 8,
    ]
    front = CachedPrefix(tokens=FRONT, hit_rate=1.0)
    for model, price in PRESETS.items():
        naive, cached, batch, both = (
            BillingScenario(price=price, cached_prefix=prefix, tier=tier)
            for tier in (None, "batch")
            for prefix in (None, front)
        )
        whole = naive.cost(PROMPT, SHORT_ANSWER)
        bills = [one.cost(PROMPT, SHORT_ANSWER) for one in (cached, batch, both)]
        bills += [one.cost(PROMPT, GUIDED) for one in (cached, both)]
        cells = [
            model.partition(":")[2],
            f"{price.input_mtok}",
            f"{price.output_mtok / price.input_mtok:.1f}",
            f"${1000 * whole:.2f}",
            *(f"{bill / whole:.0%}" for bill in bills),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Prices: {PRICED}."])


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

Marked is the teacher's part. Of 40 problems, this is the first that the student solves only
with guidance. Both models are toys inside this package, the *embedded pair*. They know only one
family of word problems."""


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
    for name, text in (("shares", shares()), ("options", options()), ("presets", presets())):
        put(docs / "will-it-pay.md", name, text)
    put(docs / "how-guidance-works.md", "answer", marked_answer())


if __name__ == "__main__":
    main()
