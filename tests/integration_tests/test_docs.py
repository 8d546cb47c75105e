"""Runs the code of the documentation, each page as one program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from support.completions_server import completions_server
from support.scripted import save_scripted

from langchain_gkt import GuidancePolicy

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: Path) -> list[str]:
    """Return the Python blocks of a page, each at its own line numbers."""
    text = page.read_text()
    return [
        "\n" * text[: found.start(1)].count("\n") + found[1]
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def run_page(name: str, *, at_least: int = 1) -> dict[str, Any]:
    """Run the Python blocks of a page as one program, and return its variables."""
    page = DOCS / name
    found = blocks(page)
    assert len(found) >= at_least
    space: dict[str, Any] = {"__name__": "docs"}
    for block in found:
        exec(compile(block, page, "exec"), space)
    return space


@pytest.fixture
def world(tmp_path, monkeypatch) -> Any:
    """What a reader of the pages has: a key, a provider and a local model."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("GKT_STUDENT", save_scripted(tmp_path / "student"))
    with completions_server() as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        yield


def test_use_in_langchain(world, capsys) -> None:
    space = run_page("use-in-langchain.md", at_least=12)
    printed = capsys.readouterr().out
    assert "the answer to this is: 5" in printed  # the agent's sum
    assert space["answer"]["structured_response"].score == 7
    assert space["raw"]["parsing_error"] is None
    assert space["again"].usage_metadata["total_cost"] == 0
    assert isinstance(space["first"], AIMessage)


def test_engines(world) -> None:
    student = run_page("engines.md")["student"]
    assert student.chat_model.extra_body["continue_final_message"] is True


def test_costs(world, capsys) -> None:
    space = run_page("costs.md")
    printed = capsys.readouterr().out
    assert space["measured"].questions == 2
    assert space["answer"].response_metadata["gkt"]["fallback"].startswith("BudgetExceeded")
    assert "per_call_usd" in printed


@pytest.mark.slow
def test_evaluate(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    space = run_page("evaluate.md", at_least=7)
    printed = capsys.readouterr().out
    assert "McNemar" in printed
    assert "8 of 8 guidances" in str(space["found"])
    assert GuidancePolicy.load(tmp_path / "policy.json") == space["choice"].policy
    assert str(space["gated"].policy) in printed


def test_every_code_block_of_the_pages_is_python_or_shell() -> None:
    for page in DOCS.glob("*.md"):
        fences = re.findall(r"^```(\w*)$", page.read_text(), re.MULTILINE)
        assert set(fences) <= {"python", "bash", ""}, page


@pytest.mark.filterwarnings("ignore:the teacher knows no completion limit:UserWarning")
def test_security(capsys) -> None:
    space = run_page("security.md", at_least=2)
    assert "written to ann@example.org today" in capsys.readouterr().out
    space["student"].close()
