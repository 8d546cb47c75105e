"""The HTML report: what it shows, and that text of models cannot change the page."""

from __future__ import annotations

import pytest
from support.models.exam import pair, task

from langchain_gkt.evaluation import Task, compare
from langchain_gkt.evaluation.results.html_report import page


@pytest.mark.slow
def test_a_page_shows_tables_charts_answers_and_settings(tmp_path) -> None:
    found = compare(pair(), task(4), out=tmp_path)
    files = {file.name for file in found.save()}
    assert {"report.txt", "report.md", "report.html", "modes.png", "time.svg"} <= files
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert page.count("<figure><svg") == 2
    assert "<caption>exam: 4 questions</caption>" in page
    # What most readers want comes first, and what few need is folded.
    said = "<b>guided: 100.0% right at "
    assert said in page, page[:3000]
    assert page.index(said) < page.index("<figure>") < page.index("<table>")
    assert page.index("<details>") < page.index("&#34;schema_version")
    # First a question that only guidance gets right.
    assert page.index("one more than 11?") < page.index("one more than 10?")
    assert "<mark>Plan: take 11 and add </mark>one. 11 + 1 = 12." in page
    assert '<span class="right">(right, 6 tokens)</span>' in page
    assert "&#34;schema_version&#34;: 2" in page


def test_ipython_shows_the_tables() -> None:
    from IPython.lib.pretty import pretty

    found = compare(pair(), task(4))
    assert pretty(found) == str(found)


def test_what_models_and_users_write_is_escaped() -> None:
    asked = [{"question": "<script>What is one more than 11?</script>", "answer": "12"}]
    hostile = Task("<i>mine", asked, lambda text, row: row["answer"] in text)
    found = compare(pair(), hostile)
    written = page(found.manifest, found.tables(), [], found.to_frame())
    assert "<script>" not in written
    assert "&lt;script&gt;What is one more than 11?" in written
    assert "<i>mine" not in written
