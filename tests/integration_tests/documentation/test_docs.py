"""Runs the code of the documentation, each page as one program."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from contextlib import nullcontext
from decimal import Decimal
from functools import partial
from importlib.metadata import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import tiktoken
import typer
from langchain_core.messages import AIMessage
from support.models import exam
from support.models.fakes import MODELS
from support.models.scripted import save_scripted
from support.programs.notebooks import with_less
from support.servers.completions_server import completions_server
from support.servers.token_server import TokenServer
from transformers import AutoModelForCausalLM, AutoTokenizer

from langchain_gkt import GuidancePolicy, __version__, evaluation
from langchain_gkt.cli.app import app
from langchain_gkt.demo import pair
from langchain_gkt.students.backends.server import backend as server_backend
from langchain_gkt.teachers.token_cuts import load_tokenizer

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
# A batch costs little more than one answer.
AT_ONCE = {"        teacher_tokenizer=": "        concurrency=40,\n        teacher_tokenizer="}
PAGES = [*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "examples" / "README.md"]


def blocks(page: Path) -> list[str]:
    """Return the Python blocks of a page, each at its own line numbers."""
    text = page.read_text()
    return [
        "\n" * text[: found.start(1)].count("\n") + found[1]
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def run_page(
    name: str, *, at_least: int = 1, less: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Run the Python blocks of a page as one program, and return its variables.

    What `less` names is replaced, so that it takes less time.
    """
    page = DOCS / name
    found = with_less("\0".join(blocks(page)), less).split("\0")
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


def test_strategies(capsys) -> None:
    space = run_page("strategies.md", at_least=3)
    assert "agreement:" in capsys.readouterr().out
    assert space["message"].text
    assert space["gkt"]["strategy"] == "verified"


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_use_in_langchain(world) -> None:
    space = run_page("use-in-langchain.md", at_least=6)
    assert space["again"].usage_metadata["total_cost"] == 0
    assert isinstance(space["first"], AIMessage)


def test_agents(world, capsys) -> None:
    space = run_page("agents.md", at_least=5)
    assert "the answer to this is: 5" in capsys.readouterr().out  # the agent's sum
    assert space["answer"]["structured_response"].score == 7
    assert (space["gkt"]["finished_by"], space["gkt"]["agreement"]) == ("student", 1.0)


def test_middleware(world) -> None:
    space = run_page("middleware.md", at_least=2)
    assert space["guided_state"]["messages"][-1].text
    assert space["advised"]["messages"][-1].text.endswith("the answer to this is: 5.")


def test_structured_output(world) -> None:
    assert run_page("structured-output.md")["raw"]["parsing_error"] is None


def test_engines(world, monkeypatch) -> None:
    folder = MODELS / "student"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    server = TokenServer(model, tokenizer, key="KEY")
    made = partial(server_backend.ServerBackend, transport=server.transport)
    monkeypatch.setattr(server_backend, "ServerBackend", made)
    ends = {tokenizer.eos_token_id}
    monkeypatch.setattr(server_backend, "load_tokenizer", lambda source: (tokenizer, ends))
    student = run_page("student-servers.md", at_least=2)["student"]
    assert len(server.bodies) == 4  # the first of the page was checked
    assert student.chat_model.extra_body["continue_final_message"] is True


def test_costs(world, capsys) -> None:
    space = run_page("costs.md")
    printed = capsys.readouterr().out
    assert space["measured"].questions == 2
    assert space["answer"].response_metadata["gkt"]["fallback"].startswith("BudgetExceeded")
    assert "per_call_usd" in printed


def test_traces(world) -> None:
    assert run_page("traces.md")["own"].input_mtok


def test_billing(world) -> None:
    space = run_page("billing.md")
    assert 0 < space["scenario"].cost(1124, 110) < Decimal("0.00446")  # the uncached bill


def test_recorded_teachers(tmp_path, monkeypatch, capsys) -> None:
    encoding = tiktoken.Encoding(  # a real one would have to be fetched
        "o200k_base",
        pat_str=r"\s*\S+",
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
        special_tokens={},
    )
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: encoding)
    monkeypatch.chdir(tmp_path)
    load_tokenizer.cache_clear()
    try:
        space = run_page("recorded-teachers.md", at_least=3)
    finally:
        load_tokenizer.cache_clear()
    assert space["message"].response_metadata["gkt"]["guidance_tokens"] == 20
    assert "no recorded answer" in capsys.readouterr().out
    assert "the teacher is recorded: 2 answers of gpt-4o-mini in log.jsonl" in str(space["found"])


def test_reliability(world) -> None:
    chain = run_page("reliability.md")["chain"]
    assert chain.invoke("What is 2 plus 3?").text
    chain.student.close()


@pytest.mark.slow
def test_evaluate(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    less = {"rows=16": "rows=6", "14, 16, 18, 20": "14, 18", **AT_ONCE}
    space = run_page("evaluate.md", at_least=4, less=less)
    assert "McNemar" in capsys.readouterr().out
    assert "8 of 8 guidances" in str(space["found"])
    assert GuidancePolicy.load(tmp_path / "policy.json") == space["choice"].policy


@pytest.mark.slow
def test_ask_by_question(tmp_path, monkeypatch, capsys) -> None:
    """Choosing per question takes 60 rows, so here a pair without weights sits an exam."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pair, "STUDENT", exam.Needy())
    monkeypatch.setattr(pair, "demo_teacher", lambda: nullcontext(exam.Knowing()))
    monkeypatch.setattr(evaluation, "load_task", lambda name, rows: exam.task(rows))
    less = {"        teacher_tokenizer=tokenizer,\n": ""}
    space = run_page("ask-by-question.md", at_least=4, less=less)
    assert str(space["gated"].policy) in capsys.readouterr().out
    saved = GuidancePolicy.load(tmp_path / "policy-agreement.json")
    assert saved == space["agreement"].policy
    assert set(space["gkt"]["predicted"]) == {"none", "some", "all"}
    assert GuidancePolicy.load(tmp_path / "policy-any.json") == space["best"].policy


@pytest.mark.slow
def test_teacher_prompt(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    less = {"rows=16": "rows=6", "max_tokens=120": "max_tokens=64", **AT_ONCE}
    space = run_page("teacher-prompt.md", at_least=3, less=less)
    assert space["answered"].response_metadata["gkt"]["teacher_prompt_share"] < 1
    assert space["best"].bill <= 0.9


def test_tasks() -> None:
    assert run_page("tasks.md", at_least=2)["mine"].name == "mine"


def test_every_code_block_of_the_pages_is_python_or_shell() -> None:
    for page in PAGES:
        fences = re.findall(r"^```(\w*)$", page.read_text(), re.MULTILINE)
        assert set(fences) <= {"python", "bash", ""}, page


@pytest.mark.filterwarnings("ignore:the teacher knows no completion limit:UserWarning")
def test_security(capsys) -> None:
    space = run_page("security.md", at_least=2)
    assert "written to ann@example.org today" in capsys.readouterr().out
    space["student"].close()


@pytest.mark.slow
def test_start(world, capsys) -> None:
    assert run_page("index.md", at_least=2)["message"].text
    assert "44 * 2 = 88. The answer is 88." in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_langchain_integration(world) -> None:
    space = run_page("langchain-integration.md", at_least=6)
    assert space["called"].tool_calls[0]["args"] == {"a": 2, "b": 3}
    assert space["joke"].setup


@pytest.mark.slow
def test_from_the_papers_code(capsys) -> None:
    run_page("from-the-papers-code.md")
    assert "44 * 2 = 88. The answer is 88." in capsys.readouterr().out


def test_will_it_pay(capsys) -> None:
    run_page("will-it-pay.md")
    bills = capsys.readouterr().out.splitlines()
    assert bills[0] == "list price: $0.2346 alone, $0.1926 guided, per 1,000"
    assert "| 100 | 16% | 20% | 29% | 47% |" in (DOCS / "will-it-pay.md").read_text()


def test_readme(world) -> None:
    assert run_page("../README.md")["message"].text


def commands(page: Path) -> list[list[str]]:
    """Return the words of each command of a page's bash blocks."""
    found = re.findall(r"^```bash\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    text = "\n".join(found).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def test_every_command_of_the_pages_is_one() -> None:
    """Options are read by the command line itself; targets, extras and files must be there."""
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[
        1
    ].split()
    known = set(metadata("langchain-gkt").get_all("Provides-Extra"))
    group: Any = typer.main.get_command(app)
    for page in PAGES:
        for words in commands(page):
            name = Path(words[0]).name
            if name == "make":
                assert words[1] in targets, (page, words)
            elif name == "langchain-gkt":
                command = group.commands[words[1]]
                command.make_context(words[1], words[2:]).close()
            elif name == "python" and words[1].endswith(".py"):
                assert (ROOT / words[1]).exists(), (page, words)
            for extras in re.findall(r"(?:langchain-gkt|\.)\[([a-z,]+)\]", " ".join(words)):
                assert set(extras.split(",")) <= known, page


NEEDS = {  # what code imports, and the extras that bring it
    "langchain_gkt.demo": {"demo"},
    "langchain_gkt.evaluation import load_task": {"cli", "demo", "report"},
    "langchain_openai": {"demo", "openai", "server"},
    "ray": {"ray"},
}


@pytest.mark.parametrize("page", [*DOCS.glob("*.md"), ROOT / "README.md"], ids=lambda p: p.name)
def test_a_page_says_what_its_code_needs(page) -> None:
    text, code = page.read_text(), "\n".join(blocks(page))
    named = set(",".join(re.findall(r"\[([a-z,]+)\]\"", text)).split(","))
    for module, extras in NEEDS.items():
        if re.search(rf"^(?:from|import) {module}\b", code, re.MULTILINE):
            assert named & extras, module


def test_the_readme_names_the_command_that_ci_runs() -> None:
    (demo, *_), (test, *_) = (
        [words for words in commands(ROOT / "README.md") if words == ["make", name]]
        for name in ("demo", "test")
    )
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert " ".join(test) in script
    assert demo


def test_every_link_and_picture_of_the_pages_is_there() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), (page, link)


def test_the_version_is_one_number() -> None:
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {__version__} " in (ROOT / "CHANGELOG.md").read_text()
