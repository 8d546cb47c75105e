"""Runs the examples as a user does, each as a program of its own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from support.programs.processes import run_python

EXAMPLES = Path(__file__).parents[3] / "examples"
DOCS = EXAMPLES.parent / "docs"
SOLVED = "29 + 15 = 44. 44 * 2 = 88. The answer is 88."
PROGRAMS = {
    "pipeline": SOLVED,
    "agent_model": SOLVED,
    "agent_tool": SOLVED,
    "choose_guidance": "unseen",
    "redact": "written to ann@example.org today",
    "remote_student": SOLVED,
    "serve": SOLVED,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program(name, tmp_path) -> None:
    done = run_python(EXAMPLES / f"{name}.py", cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert PROGRAMS[name] in done.stdout


@pytest.mark.slow
def test_first_steps(tmp_path) -> None:
    notebook = nbformat.read(EXAMPLES / "first_steps.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    assert SOLVED in "".join(out.get("text", "") for out in shown)
    assert not [out for out in shown if out.get("name") == "stderr"]


@pytest.mark.parametrize(
    "name", [*(f"{name}.py" for name in (*PROGRAMS, "bulk")), "first_steps.ipynb"]
)
def test_a_user_changes_two_lines(name) -> None:
    text = (EXAMPLES / name).read_text()
    assert len(re.findall(r"# <- ", text)) == 2
    assert name in (EXAMPLES / "README.md").read_text()


@pytest.mark.slow
def test_the_pages_show_what_the_command_writes(tmp_path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    done = run_python(EXAMPLES / "pages.py", "--docs", tmp_path / "docs", timeout=300)
    assert done.returncode == 0, done.stderr
    for name in ("how-guidance-works.md", "will-it-pay.md", "images/how-guidance-works.svg"):
        assert (tmp_path / "docs" / name).read_text() == (DOCS / name).read_text()
