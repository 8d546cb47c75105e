"""Errors of the command line name the option, and come before anything is loaded."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from langchain_core.language_models import FakeListChatModel

from langchain_gkt.__main__ import main
from langchain_gkt.cli import app, models, serve
from langchain_gkt.cli.errors import in_words, naming
from langchain_gkt.cli.options import EvaluationModelOptions, ModelOptions

CONTENTS = {
    "bad.json": b"{",
    "list.json": b"[1]",
    "text.json": b'"x"',
    "strange.json": b'{"ada": 5}',
    "bytes.json": b"\xff\xfe\x00",
    "empty.json": b"",
}
OPTIONS = {
    "--keys": "serve --port 0",
    "--guidance": "answer x",
    "--policies": "sweep --rows 2",
    "--recorded": "sweep --rows 2",
    "--requests": "sweep --rows 2 --recorded text.json",
    "--data": "compare --task gsm8k --rows 2",
    "--exemplars": "compare --task gsm8k --data rows.jsonl --rows 2",
}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, content in CONTENTS.items():
        Path(name).write_bytes(content)
    Path("rows.jsonl").write_text(json.dumps({"question": "Hm?", "answer": "#### 7"}))
    Path("folder").mkdir()
    return tmp_path


@pytest.fixture
def loaded(monkeypatch) -> list[str]:
    """Note what is loaded, and let a fake be the teacher."""
    noted: list[str] = []

    def start():
        noted.append("teacher")
        return nullcontext(FakeListChatModel(responses=["x"]))

    monkeypatch.setattr(models.pair, "demo_teacher", start)
    return noted


@pytest.mark.parametrize(
    ("option", "file"),
    [
        (option, file)
        for option in OPTIONS
        for file in ("none.json", "folder", *CONTENTS)
        # A policy in a file of policies is checked with its chain.
        if (option, file) != ("--policies", "strange.json")
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_option(
    here, loaded, capsys, option, file
) -> None:
    assert main([*OPTIONS[option].split(), option, file]) == 1
    _, line = capsys.readouterr().err.rstrip("\n").rsplit("\n", 1)[-1].split(": ", 1)
    if (option, file) not in (("--requests", "list.json"), ("--requests", "empty.json")):
        assert option in line  # else the other file is the one that is wrong
    assert file in line or "--recorded" in line
    assert "[type=" not in line and "pydantic" not in line
    assert not loaded


@pytest.mark.parametrize(
    ("command", "said", "is_early"),
    [
        ("answer x --student /none", "--student /none is a folder that does not exist", True),
        ("answer x --student ./none", "--student ./none is a folder that does not exist", True),
        ("answer x --student folder", "--student folder: ", False),
        ("answer x --teacher folder", "--teacher folder: ", True),
        ("answer x --teacher=", "--teacher  is no folder", True),
        ("answer x --teacher nope:x", "names no provider that LangChain knows", True),
        ("answer x --device nope", "--device nope: device='nope'", False),
        ("compare --rows 1 --out bad.json", "--out bad.json: bad.json is a file", True),
        ("sweep --rows 1 --out bad.json/x", "--out bad.json/x: bad.json is a file", True),
        ("report folder --out bad.json", "--out bad.json: bad.json is a file", True),
        ("sweep --rows 1 --teacher-tokenizer /none", "--teacher-tokenizer /none: ", True),
        ("sweep --rows 1 --teacher-tokenizer folder", "--teacher-tokenizer folder: ", True),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_option(
    here, loaded, capsys, command, said, is_early
) -> None:
    assert main(command.split()) == 1
    told = capsys.readouterr().err
    assert said in told
    assert "http" not in told and "_KEY" not in told and "pydantic" not in told
    assert is_early is not bool(loaded)


def test_a_port_that_is_none_is_a_usage_error(here, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--port", "99999"])
    assert "--port" in capsys.readouterr().err


def test_an_error_that_is_about_none_of_the_values_is_left_alone() -> None:
    with pytest.raises(KeyError), naming(data="a.json"):
        raise KeyError("x")
    with pytest.raises(ValueError, match=r"^x$"), naming(data="a.json", exemplars="b.json"):
        raise ValueError("x")
    with pytest.raises(ValueError, match="--exemplars b: in b"), naming(data="a", exemplars="b"):
        raise ValueError("in b")
    assert in_words(ValueError("x")) == "x"


def test_a_tier_reaches_the_prices(here, loaded, capsys, monkeypatch) -> None:
    given = models.prices(ModelOptions(tier="batch"))
    assert given == {"teacher_price": models.pair.PRICE, "student_price": None, "tier": "batch"}
    assert EvaluationModelOptions(tier="flex").tier == "flex"
    assert main(["answer", "x", "--mode", "teacher", "--tier", "batch"]) == 0
    assert "batch" in capsys.readouterr().out


def test_a_server_says_what_it_loads_to_programs_too(capsys, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")  # it is yet to be loaded
    app._say_what_loads(as_json=True)
    first = json.loads(capsys.readouterr().err)
    assert (first["event"], first["level"]) == ("Loading torch and transformers ...", "info")
    try:
        serve._log("Loading the student x")
        assert json.loads(capsys.readouterr().err)["event"] == "Loading the student x"
    finally:  # later tests listen to it as usual
        logger = logging.getLogger("langchain_gkt.serving")
        logger.handlers, logger.propagate = [], True
