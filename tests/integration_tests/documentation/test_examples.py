"""Runs the examples: one as a user does, the others in this process, whose libraries are loaded."""

from __future__ import annotations

import re
import runpy
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from support.programs.processes import run_python

from langchain_gkt.demo.pair import QUESTION

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
@pytest.mark.filterwarnings("ignore:the teacher knows no completion limit:UserWarning")
@pytest.mark.parametrize("name", sorted(PROGRAMS.keys() - {"serve"}))
def test_a_program(name, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert PROGRAMS[name] in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pipeline", "serve"])
def test_a_program_of_its_own(name, tmp_path) -> None:
    done = run_python(EXAMPLES / f"{name}.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert SOLVED in done.stdout


@pytest.mark.slow
def test_first_steps(tmp_path) -> None:
    notebook = nbformat.read(EXAMPLES / "first_steps.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
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
def test_the_pages_show_what_the_command_writes(tmp_path, monkeypatch) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    monkeypatch.setattr(sys, "argv", ["pages.py", "--docs", str(tmp_path / "docs")])
    runpy.run_path(str(EXAMPLES / "pages.py"), run_name="__main__")
    for name in ("how-guidance-works.md", "will-it-pay.md", "images/how-guidance-works.svg"):
        assert (tmp_path / "docs" / name).read_text() == (DOCS / name).read_text()


def test_every_file_says_how_to_install_as_one_place_does() -> None:
    made = runpy.run_path(str(EXAMPLES / "pages.py"))
    files = made["pages"](DOCS.parent)
    assert {DOCS / "index.md", DOCS.parent / "README.md", EXAMPLES / "bulk.py"} <= set(files)
    for file in files:
        text = file.read_text()
        assert made["install_lines"](text) == text, file
        if "<!-- install -->" in text:
            assert made["install_note"]() in text, file


@pytest.mark.parametrize("released", [False, True])
def test_a_release_flips_it(released) -> None:
    made = runpy.run_path(str(EXAMPLES / "pages.py"))
    made["install_lines"].__globals__["RELEASED"] = released
    for text in ('`pip install "{}[a,b]" x`', 'pip install \\"{}[a]\\"', 'pip install -U "{}[a]"'):
        wanted = text.format("langchain-gkt" if released else ".")
        for name in ("langchain-gkt", "."):
            assert made["install_lines"](text.format(name)) == wanted
    other = 'pip install "optimum-intel[openvino]" ray langchain-gkt'
    assert made["install_lines"](other) == other


def test_the_example_question_is_the_same_everywhere() -> None:
    shown = {EXAMPLES / f"{name}.py" for name in ("agent_model", "agent_tool", "serve")}
    shown |= {EXAMPLES / "remote_student.py", EXAMPLES / "first_steps.ipynb"}
    shown |= {DOCS / "index.md", DOCS / "from-the-papers-code.md", DOCS.parent / "README.md"}
    for file in shown:
        assert QUESTION in file.read_text(), file
    help_text = (DOCS.parent / "langchain_gkt" / "cli" / "app.py").read_text()
    assert QUESTION in " ".join(help_text.split())
