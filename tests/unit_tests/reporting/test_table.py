from __future__ import annotations

import io

from rich.console import Console

from langchain_gkt.reporting.html import render
from langchain_gkt.reporting.table import Table

TABLE = Table(
    title="Costs <of> it",
    head=["", "a|b", "money"],
    rows=[["teacher", "1", "0.5"], ["  <big>", "1", "0.25"], ["total", "2", "1"]],
    notes=["a & b"],
    styles=["", "estimated", "total"],
)


def test_text_is_aligned() -> None:
    assert TABLE.text().splitlines() == [
        "Costs <of> it",
        "         a|b  money",
        "teacher    1    0.5",
        "  <big>    1   0.25",
        "total      2      1",
        "a & b",
    ]
    assert Table(head=["", "n"], rows=[["x", "1"]]).text() == "   n\nx  1"


def test_lines_name_their_columns() -> None:
    lines = [{"way": "a", "cost": "1"}, {"way": "b", "cost": "2"}]
    assert Table.of(lines, title="t", notes=["n"]) == Table(
        title="t", head=["way", "cost"], rows=[["a", "1"], ["b", "2"]], notes=["n"]
    )


def test_markdown_has_no_stray_bars() -> None:
    assert TABLE.markdown() == (
        "**Costs <of> it**\n\n|  | a\\|b | money |\n| --- | ---: | ---: |\n"
        "| teacher | 1 | 0.5 |\n|   <big> | 1 | 0.25 |\n| total | 2 | 1 |\n\n- a & b"
    )


def test_html_is_escaped_and_marks_its_rows() -> None:
    for html in (TABLE.html(), TABLE.notebook_html()):
        assert "<caption>Costs &lt;of&gt; it</caption>" in html
        assert '<tr class="estimated">\n<th scope="row" class="part">&lt;big&gt;</th>' in html
        assert '<tr class="total">' in html
        assert "<li>a &amp; b</li>" in html
    bare = Table(head=["", "n"], rows=[]).html()
    assert "caption" not in bare and "<ul>" not in bare


def test_a_page_can_be_extended(tmp_path) -> None:
    page = '{% extends "page.html.j2" %}{% block content %}<p>{{ text }}</p>{% endblock %}'
    (tmp_path / "mine.html.j2").write_text(page)
    html = render("mine.html.j2", folder=tmp_path, title="<t>", text="<x>")
    assert "<title>&lt;t&gt;</title>" in html
    assert "<p>&lt;x&gt;</p>" in html


def test_rich_shows_title_cells_and_notes() -> None:
    shown = io.StringIO()
    Console(file=shown, width=80).print(TABLE.rich())
    assert all(part in shown.getvalue() for part in ("Costs <of> it", "<big>", "a & b"))
