"""The command line's options, help and errors; no model is loaded."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from support.programs.processes import run_python

from langchain_gkt import __main__ as program
from langchain_gkt import __version__
from langchain_gkt.cli import app, commands, options
from langchain_gkt.cli.recorded import RecordedOptions

COMMANDS = ("demo", "answer", "compare", "sweep", "report", "serve")


@pytest.fixture
def called(monkeypatch) -> list:
    """Record what each command would do, and do nothing."""
    calls: list = []
    for name in ("answer", "compare", "sweep", "report"):
        monkeypatch.setattr(
            commands, name, lambda *args, name=name, **given: calls.append((name, args, given))
        )
    return calls


def test_defaults(called) -> None:
    assert program.main(["answer", "x"]) == 0
    assert program.main(["compare"]) == 0
    assert program.main(["sweep"]) == 0
    assert program.main(["report", "run"]) == 0
    assert called == [
        ("answer", ("x", options.ModelOptions()), {"mode": "guided"}),
        (
            "compare",
            (options.EvaluationModelOptions(), options.TaskOptions()),
            {"modes": "teacher,student,guided", "out": Path("runs/compare"), "concurrency": 8},
        ),
        (
            "sweep",
            (
                options.SweepOptions(),
                options.EvaluationModelOptions(),
                options.TaskOptions(),
                RecordedOptions(),
            ),
            {"out": Path("runs/sweep"), "concurrency": 8},
        ),
        (
            "report",
            (Path("run"),),
            {"format": "text", "max_loss": 0.02, "out": None, "bill": (None, False, False)},
        ),
    ]
    assert options.ModelOptions().temperature is None
    assert options.EvaluationModelOptions().temperature == "0"


def test_every_option_arrives(called) -> None:
    models = "--teacher t --base-url u --student s --device cuda --dtype int8 --guidance-tokens 0 "
    models += "--guidance g.json --max-tokens 9 --temperature -1 --teacher-price 1,2 "
    models += "--student-price 3,4 --teacher-prompt last_turns"
    task = "--task aqua --data d --rows 5 --seed -2 --shots 0 --style text --exemplars e "
    task += "--reference --out o --concurrency 2"
    task += " --recorded r --columns question=q --requests b --tokenizer t"
    own = "--lengths 1,2 --check-lengths 2 --teacher-tokenizer k --max-loss 0 --policies p"
    own += " --agreement 5 --tier batch"
    assert program.main(["sweep", *f"{own} {models} {task}".split()]) == 0
    [(_, args, given)] = called
    assert args == (
        options.SweepOptions("1,2", "2", "k", 0.0, Path("p"), 5),
        options.EvaluationModelOptions(
            *(
                "t",
                "u",
                "s",
                "cuda",
                "int8",
                0,
                Path("g.json"),
                9,
                "-1",
                "1,2",
                "3,4",
                "last_turns",
            ),
            tier="batch",
        ),
        options.TaskOptions("aqua", Path("d"), 5, -2, 0, "text", Path("e"), True),
        RecordedOptions(Path("r"), "question=q", Path("b"), "t"),
    )
    assert given == {"out": Path("o"), "concurrency": 2}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("none", "langchain-gkt: error: No such command 'none'"),
        ("--none", "langchain-gkt: error: No such option: --none"),
        ("compare --row 3", "--rows"),
        ("compare --rows 0", "compare: error: argument --rows: must be 1 or more, not 0."),
        ("compare --rows x", "argument --rows: must be 1 or more, not x."),
        ("compare --rows", "langchain-gkt compare: error: Option '--rows' requires an argument."),
        ("compare --shots -1", "argument --shots: must be 0 or more, not -1."),
        ("sweep --max-loss 2", "argument --max-loss: must be a share such as 0.02, not 2."),
        ("sweep --agreement 1", "argument --agreement: must be 2 or more, not 1."),
        ("sweep --style verse", "argument --style: 'verse' is not one of 'chat', 'text'."),
        ("answer", "Missing argument 'QUESTION'."),
        ("answer two words", "unexpected extra argument"),
        ("answer x --mode y", "argument --mode: 'y' is not one of 'guided', 'teacher', 'student'"),
        ("report", "Missing argument 'RUN'."),
        ("report r --format x", "argument --format: 'x' is not one of 'text', 'markdown', 'html'."),
        ("demo --seed x", "argument --seed: "),
    ],
)
def test_a_usage_error_is_one_line(called, capsys, command, said, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    with pytest.raises(SystemExit) as ended:
        program.main(command.split())
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert told.err.endswith(" --help.\n")
    assert told.out == ""
    assert called == []


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_names_and_explains_every_option(capsys, command, flag, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with pytest.raises(SystemExit) as ended:
        program.main([*command.split(), flag])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "Usage: langchain-gkt" in text
    assert "\x1b" not in text
    group = typer.main.get_command(app.app)
    parameters = (group.commands[command] if command else group).params
    assert parameters
    for parameter in parameters:
        assert parameter.help, parameter.name
        assert all(name in text for name in parameter.opts if name.startswith("-"))


@pytest.mark.parametrize("error", [ValueError, OSError, RuntimeError, ImportError, TypeError])
def test_an_expected_error_is_told_without_a_traceback(capsys, monkeypatch, error) -> None:
    def fail(*args, **given):
        raise error("rows= must be more")

    monkeypatch.setattr(commands, "compare", fail)
    assert program.main(["compare"]) == 1
    assert capsys.readouterr().err == "langchain-gkt compare: rows= must be more\n"
    with pytest.raises(error, match="must be more"):
        program.main(["--traceback", "compare"])


def test_other_errors_are_not_hidden(monkeypatch) -> None:
    monkeypatch.setattr(commands, "compare", lambda *args, **given: {}["none"])
    with pytest.raises(KeyError):
        program.main(["compare"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file", "a.json"), "a.json: No such file"),
        (PermissionError(13, "Permission denied", "a", None, "b"), "a: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("no address: [Errno 99] not this machine's"), "no address: not this machine's"),
        (ValueError("shots=[1] is a list"), "shots=[1] is a list"),
    ],
)
def test_numbers_of_the_operating_system_are_not_shown(capsys, monkeypatch, error, said) -> None:
    def fail(*args, **given):
        raise error

    monkeypatch.setattr(commands, "compare", fail)
    assert program.main(["compare"]) == 1
    assert capsys.readouterr().err == f"langchain-gkt compare: {said}\n"


@pytest.mark.parametrize("command", [[], ["--traceback"]])
def test_no_command_shows_the_help(capsys, command) -> None:
    with pytest.raises(SystemExit):
        program.main(["--help"])
    asked = capsys.readouterr().out
    assert program.main(command) == 0
    assert capsys.readouterr() == (asked, "")


def test_the_version(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"langchain-gkt {__version__}\n"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own handler of Ctrl-C, which a program in the background does not have."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("compare", "compare: interrupted. The same command continues the run."),
        ("sweep", "sweep: interrupted. The same command continues the run."),
        ("answer x", "answer: interrupted."),
    ],
)
def test_ctrl_c_says_how_to_go_on(capsys, monkeypatch, interruptible, command, said) -> None:
    def interrupt(*args, **given):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(commands, command.split()[0], interrupt)
    assert program.main(command.split()) == 130
    assert capsys.readouterr() == ("", f"\nlangchain-gkt {said}\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("when", ["cleaning up", "exiting"])
def test_a_second_ctrl_c_shows_no_traceback(when, light) -> None:
    code = f"""
import atexit, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a program in the background has none
from types import SimpleNamespace
from langchain_gkt.cli import app

def compare(*args, **given):
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        if {when!r} == "exiting":
            atexit.register(signal.raise_signal, signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)

sys.modules["langchain_gkt.cli.commands"] = SimpleNamespace(compare=compare)
sys.argv[1:] = ["compare"]
sys.exit(app.main())
"""
    done = light.run(code)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-1] == "langchain-gkt compare: interrupted. The same command continues the run."


def test_somebody_elses_handler_is_left_alone(capsys, monkeypatch) -> None:
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        monkeypatch.setattr(
            commands, "compare", lambda *args, **given: signal.raise_signal(signal.SIGINT)
        )
        assert program.main(["compare"]) == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, earlier)


def test_the_first_line_says_what_is_loaded(light) -> None:
    code = """
import sys
from langchain_gkt.cli import app
sys.modules["langchain_gkt.cli.commands"] = None
sys.exit(app.main(["report", "run"]))
"""
    first, *others = light.run(code).stderr.splitlines()
    assert first == "Loading torch and transformers ..."
    assert len(others) == 1  # the error


@pytest.mark.parametrize(
    ("missing", "command", "said"),
    [
        ("typer", [], 'pip install "langchain-gkt[cli]"'),
        ("matplotlib", ["demo"], 'The demo needs more: pip install "langchain-gkt[demo]"'),
    ],
)
def test_a_missing_package_is_named_with_its_extra(missing, command, said, light) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None\n"
    code += f"from langchain_gkt.__main__ import main; sys.exit(main({command}))"
    done = light.run(code)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_is_the_same_as_a_module_and_in_process(capsys) -> None:
    with pytest.raises(SystemExit):
        program.main(["--help"])
    done = run_python("-m", "langchain_gkt", "--help", env={**os.environ, "NO_COLOR": "1"})
    assert done.stdout == capsys.readouterr().out
