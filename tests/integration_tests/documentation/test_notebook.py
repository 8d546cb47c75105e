"""Runs the notebooks from top to bottom."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from support.programs.notebooks import run_notebook

from langchain_gkt import GuidancePolicy

EXAMPLES = Path(__file__).parents[3] / "examples"
NOTEBOOK = EXAMPLES / "cost_comparison.ipynb"


@pytest.mark.slow
def test_the_cost_notebook_runs(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    less = {"sample(7, 40)": "sample(7, 8)", "sample=20": "sample=3"}
    less |= {"prompts[:10]": "prompts[:4]", "tokens=500": "tokens=200"}
    less['"max_concurrency": 4'] = '"max_concurrency": 12'  # a batch costs little more than one
    kinds = {kind for shown in run_notebook(NOTEBOOK, less=less) for kind in shown}
    assert {"image/png", "text/html"} <= kinds
    said = capsys.readouterr()
    assert "measured on 3 question(s): guided answers cost" in said.out
    assert re.search(r"[1-3] answers guided, [1-3] by the student alone", said.out)
    assert not said.err


def test_a_user_changes_two_lines() -> None:
    code = [c.source for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    assert sum(source.count("# <-") for source in code) == 2


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda file: file.stem)
def test_a_notebook_is_kept_with_its_outputs(file: Path) -> None:
    cells = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    assert [cell for cell in cells if cell.outputs]
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    assert not [out for cell in cells for out in cell.outputs if out.get("name") == "stderr"]


@pytest.mark.slow
def test_the_notebook_of_a_small_log_runs_without_a_provider(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / "recorded_log.jsonl", tmp_path)
    less = {"concurrency=2": "concurrency=24"}  # a batch costs little more than one
    shown = list(run_notebook(EXAMPLES / "recorded_log.ipynb", less=less))
    tables = "".join(out.get("text/html", "") for out in shown)
    for part in ("the teacher is recorded", "agreement", "gated", "vote of 5", "over router"):
        assert part in tables
    assert any("image/png" in out for out in shown)
    assert GuidancePolicy.load(tmp_path / "policy.json")
    assert not capsys.readouterr().err
