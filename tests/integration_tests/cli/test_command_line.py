"""The command line as a user types it, on the embedded pair and on files in publishers' forms."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
from langchain_core.language_models import FakeListChatModel
from support.models.exam import pair, rows, task
from support.models.fakes import MODELS

from langchain_gkt import GuidancePolicy
from langchain_gkt.__main__ import main
from langchain_gkt.cli import models
from langchain_gkt.cli.options import ModelOptions
from langchain_gkt.demo.pair import QUESTION
from langchain_gkt.evaluation import load_run, sweep

AT_ONCE = ["--concurrency", "40"]  # a batch costs little more than one answer


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_sweep_compare_and_report(here, capsys) -> None:
    command = ["sweep", "--rows", "8", "--lengths", "8,18", "--check-lengths", "18", *AT_ONCE]
    assert main([*command, "--out", "runs/s", "--max-loss", "0.05"]) == 0
    printed = capsys.readouterr().out
    assert "8 of 8 guidances were the ones that had been cut" in printed
    assert "the teacher's tokenizer" in printed
    policy = GuidancePolicy.load("runs/s/policy.json")
    assert policy.tokens == 18
    assert Path("runs/s/policy-gated.json").exists()
    given = ["--guidance", "runs/s/policy.json", "--rows", "4", "--out", "runs/c"]
    assert main(["compare", *given, "--modes", "teacher, guided"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"accuracy \(95%\) +\d+\.\d% \(\d+-\d+\) +\d+\.\d%", printed)
    assert load_run("runs/c").summaries["guided"].length == 18
    for run in ("runs/s", "runs/c"):
        for file in Path(run).glob("report.*"):
            file.unlink()
        assert main(["report", run]) == 0
        text = capsys.readouterr().out
        assert text.strip() == str(load_run(run)).strip()
        names = {file.name for file in Path(run).iterdir()}
        assert {"report.txt", "report.md", "report.html"} <= names
    assert main(["report", "runs/s", "--format", "markdown", "--out", "elsewhere"]) == 0
    assert "| ---" in capsys.readouterr().out
    assert Path("elsewhere/accuracy.svg").exists()


@pytest.mark.slow
def test_policies_and_teacher_prompts(here, capsys) -> None:
    own = {"whole": {}, "told": {"teacher_prompt": {"prompt": "instruct_teacher"}, "cut": "step"}}
    Path("policies.json").write_text(json.dumps(own))
    short = ["--max-tokens", "20"]  # what these prompts ask for, a toy goes on and on about
    command = ["sweep", "--rows", "4", "--lengths", "18", "--policies", "policies.json", *short]
    assert main([*command, *AT_ONCE, "--out", "runs/p"]) == 0
    printed = capsys.readouterr().out
    assert "policy.json: whole: " in printed or "policy.json: told: " in printed
    assert list(load_run("runs/p").sweeps) == ["whole", "told"]
    assert main(["report", "runs/p"]) == 0
    assert capsys.readouterr().out.strip() == str(load_run("runs/p")).strip()
    told = ["compare", "--rows", "2", "--teacher-prompt", "last-turns+instruct_teacher", *short]
    assert main([*told, "--out", "runs/c"]) == 0
    assert "guided: the teacher was shown a prompt of its own" in capsys.readouterr().out
    settings = load_run("runs/c").manifest["settings"]["chain"]["teacher_prompt"]
    assert [step["prompt"] for step in settings] == ["last_turns", "instruct_teacher"]


@pytest.mark.slow
def test_too_few_rows_to_choose_are_said_to_be(here, capsys) -> None:
    command = ["sweep", "--rows", "2", "--lengths", "8,18", "--max-tokens", "30"]
    assert main([*command, *AT_ONCE]) == 0
    assert "choosing takes 4 rows or more" in capsys.readouterr().out
    assert not Path("runs/sweep/policy.json").exists()


def test_the_page_needs_nothing_else(here, capsys) -> None:
    sweep(pair(), task(6), lengths=[2, 6], out="run")
    assert main(["report", "run", "--format", "html"]) == 0
    page = capsys.readouterr().out
    assert page.strip() == Path("run/report.html").read_text().strip()
    assert page.count("<svg") == 2
    outside = re.findall(r'(?:src|href)="([^"#]*)"|url\(([^)#]*)\)|@import', page)
    assert outside == []
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len([i for i in ids if i.startswith(("m", "p"))]) > 0
    assert "What is one more than 11?" in page
    assert "<mark>Plan: take 11 and add </mark>" in page
    assert "Needy" in page


def test_the_same_run_makes_the_same_pictures(here) -> None:
    run = sweep(pair(), task(6), lengths=[2, 6], out="run")
    first = {file.name: file.read_bytes() for file in run.save("one")}
    second = {file.name: file.read_bytes() for file in load_run("run").save("two")}
    assert first == second
    assert first["accuracy.png"][:4] == b"\x89PNG"


def test_answers_with_files_of_the_users_own(here, capsys) -> None:
    data = [
        {"question": one["question"], "answer": f"{one['answer']} it is.\n#### {one['answer']}"}
        for one in rows(3)
    ]
    Path("gsm.jsonl").write_text("\n".join(map(json.dumps, data)))
    # Local folders as teacher and student, a few-shot prompt, prices by the token.
    command = [
        "compare",
        "--teacher",
        str(MODELS / "teacher"),
        "--student",
        str(MODELS / "student"),
    ]
    command += ["--task", "gsm8k", "--data", "gsm.jsonl", "--shots", "0", "--max-tokens", "12"]
    command += ["--guidance-tokens", "4", "--teacher-price", "1,2", "--reference", "--out", "run"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for name in ("strict", "flexible", "reference", "gsm8k: 3 questions"):
        assert name in printed
    run = load_run("run")
    tokens = run.summaries["teacher"].teacher
    assert float(run.summaries["teacher"].cost) == pytest.approx(
        (tokens.prompt_tokens + 2 * tokens.completion_tokens) / 1e6
    )
    assert run.manifest["settings"]["prices"]["teacher"]["input_mtok"] == "1"


def test_one_answer(here, capsys, cloud, monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    question = (
        "Anna has 14 pens. She finds 6 more. The dog swallows 5. How many pens are left with Anna?"
    )
    command = ["answer", question, "--student", str(MODELS / "student"), "--guidance-tokens", "18"]
    command += ["--teacher", f"openai:{cloud.name}", "--base-url", cloud.base_url]
    assert main([*command, "--temperature", "0", "--teacher-price", "openai:gpt-4o-mini"]) == 0
    printed = capsys.readouterr().out
    assert "The answer is 15." in printed
    assert "guidance (18 tokens): Plan: 14" in printed
    assert "teacher price: openai:gpt-4o-mini" in printed
    assert main([*command, "--mode", "student"]) == 0
    assert "guidance (" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_embedded_pair_needs_guidance_for_the_example(here, capsys) -> None:
    assert main(["answer", QUESTION]) == 0
    printed, said = capsys.readouterr()
    assert "The answer is 88." in printed
    assert "guidance (18 tokens): Plan: 29 plus 15, times 2." in printed
    assert "toy models" not in printed
    assert said.splitlines() == [
        "Starting the embedded teacher, a server on this machine ...",
        "Loading the student (embedded) ...",
    ]
    assert main(["answer", QUESTION, "--mode", "student", "--max-tokens", "80"]) == 0
    assert "The answer is 88." not in capsys.readouterr().out
    assert main(["answer", "What is the capital of France?", "--max-tokens", "20"]) == 0
    assert "toy models, word problems only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("teacher", "given", "length"),
    [
        ("demo", {}, 18),
        ("demo", {"guidance_tokens": 5}, 5),
        ("openai:m", {"base_url": "http://127.0.0.1:9/v1"}, 40),
        ("owner/m", {"base_url": "http://127.0.0.1:9/v1", "guidance_tokens": 0}, 0),
    ],
)
def test_how_much_guidance_there_is_without_a_task(teacher, given, length, monkeypatch) -> None:
    fake = FakeListChatModel(responses=["x"])
    monkeypatch.setattr(models.pair, "demo_teacher", lambda: nullcontext(fake))
    with models.open_chain(ModelOptions(teacher=teacher, **given)) as chain:
        assert chain.guidance_tokens == length


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["compare", "--task", "gms8k"], "did you mean 'gsm8k'"),
        (["compare", "--task", "gsm8k", "--data", "none.jsonl"], "none.jsonl"),
        (["compare", "--modes", "guide"], "modes must be some of"),
        (["compare", "--teacher-price", "1,x"], "--teacher-price must be two amounts"),
        (["compare", "--temperature", "hot"], "--temperature must be a number"),
        (["answer", "x", "--teacher-prompt", "last_turn"], "did you mean 'last_turns'"),
        (["sweep", "--policies", "none.json"], "none.json"),
        (["sweep", "--lengths", "a,b"], "--lengths must be numbers"),
        (["answer", "x", "--student", "/none"], "/none"),
        (["answer", "x", "--guidance", "none.json"], "none.json"),
        (["answer", "x", "--guidance", "."], "--guidance . is a folder"),
        (["answer", "x", "--teacher", "/nope"], "--teacher /nope is a folder that does not exist"),
        (["answer", "x", "--teacher", "./nope"], "does not exist"),
        (["answer", "x", "--teacher", "~/nope"], "does not exist"),
        (["answer", "x", "--teacher", "models/nope"], "does not exist"),
        (["answer", "x", "--teacher", __file__], "is no folder"),
        (["answer", "x", "--teacher", "nope"], "as in openai:nope, or give a folder"),
        (["report", "."], "no manifest.json"),
        (["answer", "x", "--teacher", "openai:gpt-4o-mini"], "such as OPENAI_API_KEY"),
        (["compare", "--teacher-price", "1"], "teacher_price='1' is unpriced"),
    ],
)
def test_errors_name_the_fault_and_show_no_traceback(
    here, capsys, command, said, monkeypatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main([*command, *(["--rows", "2"] if command[0] in ("compare", "sweep") else [])]) == 1
    told = capsys.readouterr()
    assert said in told.err
    assert "Traceback" not in told.err
    assert "[Errno" not in told.err
    assert ("_KEY" in told.err) is ("_KEY" in said)  # no advice on keys where none is missing
    assert told.out == ""
    assert not Path("runs").exists()


@pytest.mark.slow
def test_the_demo_shows_any_pair(here, capsys) -> None:
    lines = [json.dumps({"question": row["question"], "answer": "#### 7"}) for row in rows(3)]
    Path("rows.jsonl").write_text("\n".join(lines) + "\n")
    models = ["--teacher", str(MODELS / "teacher"), "--student", str(MODELS / "student")]
    task = ["--task", "gsm8k", "--data", "rows.jsonl", "--rows", "2", "--shots", "0"]
    task += ["--max-tokens", "40"]
    assert main(["demo", *models, *task, "--guidance-tokens", "4", "--teacher-price", "1,2"]) == 0
    printed = capsys.readouterr().out
    assert "gsm8k" in printed and "of its bill" in printed and "Guided" in printed
    assert "toy models" not in printed
    assert Path("demo_output/demo.svg").exists()
