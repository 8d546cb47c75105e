"""Runs the examples: one as a user does, the others in this process, whose libraries are loaded."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import pytest
from support.programs.notebooks import run_notebook, with_less
from support.programs.processes import run_python, run_script

from langchain_gkt.demo.pair import QUESTION

EXAMPLES = Path(__file__).parents[3] / "examples"
FIRST_STEPS = EXAMPLES / "first_steps.ipynb"
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
AT_ONCE = {"out=f": "concurrency=40, out=f"}  # a batch costs little more than one answer
LESS = {"choose_guidance": {"rows=24": "rows=8", "[8, 14, 18]": "[8, 18]", **AT_ONCE}}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the teacher knows no completion limit:UserWarning")
@pytest.mark.parametrize("name", sorted(PROGRAMS.keys() - {"serve"}))
def test_a_program(name, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    program = tmp_path / f"{name}.py"
    program.write_text(with_less((EXAMPLES / program.name).read_text(), LESS.get(name, {})))
    run_script(program)
    assert PROGRAMS[name] in capsys.readouterr().out


@pytest.mark.slow
def test_a_program_of_its_own(cloud, tmp_path) -> None:
    program = tmp_path / "serve.py"
    # The embedded teacher runs already: one more process would load torch once more.
    teacher = f'"openai:{cloud.name}", "--base-url", "{cloud.base_url}", "--guidance-tokens", "18"'
    less = {'"--teacher", "demo"': f'"--teacher", {teacher}'}
    program.write_text(with_less((EXAMPLES / program.name).read_text(), less))
    done = run_python(program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert SOLVED in done.stdout


@pytest.mark.slow
def test_first_steps(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert "text/html" in {kind for shown in run_notebook(FIRST_STEPS) for kind in shown}
    said = capsys.readouterr()
    assert SOLVED in said.out
    assert not said.err


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
    run_script(EXAMPLES / "pages.py", "--docs", str(tmp_path / "docs"))
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
