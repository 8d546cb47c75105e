"""The command line: ``python -m langchain_gkt`` or ``langchain-gkt``.

Each command imports what it needs when it runs, so that ``--help`` loads no model library.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import typer

from langchain_gkt import __version__
from langchain_gkt.cli import options
from langchain_gkt.cli.errors import in_words
from langchain_gkt.cli.interrupts import INTERRUPTED, end_at_once_when_repeated
from langchain_gkt.cli.recorded import RecordedOptions

_PROGRAM = "langchain-gkt"
_EXPECTED = (ImportError, OSError, RuntimeError, TypeError, ValueError)
"""Errors that are reported without a traceback. Those of the package are RuntimeErrors."""
_CONTINUED = ("compare", "sweep")
"""Commands that can continue an interrupted run."""

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main(argv: list[str] | None = None) -> int:
    """Run the command of a command line, without the program's name. None for the process's own.

    Returns:
        The exit status.

    Raises:
        SystemExit: After ``--help``, and with status 2 after a usage error.
    """
    group = typer.main.get_command(app)
    words = sys.argv[1:] if argv is None else [*argv]
    context, traceback = None, False
    at_end = ExitStack()
    at_end.callback(end_at_once_when_repeated(lambda: _interruption(context)))
    try:
        with group.make_context(_PROGRAM, words) as context:
            traceback = context.params["traceback"]
            group.invoke(context)
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{_interruption(context)}\n")
        if argv is None:  # the process ends, and waits for its threads
            at_end.pop_all()
        return INTERRUPTED
    except typer.Exit as ended:
        raise SystemExit(ended.exit_code) from None
    except typer.TyperException as error:
        command = _command(context)
        sys.stderr.write(f"{command}: error: {_reason(error)}. See {command} --help.\n")
        raise SystemExit(2) from None
    except _EXPECTED as error:
        if traceback:
            raise
        sys.stderr.write(f"{_command(context)}: {in_words(error)}\n")
        return 1
    finally:
        at_end.close()
    return 0


def _interruption(context: Any) -> str:
    """Report that Ctrl-C ended the command, and how to continue."""
    name = context and context.invoked_subcommand
    hint = " The same command continues the run." if name in _CONTINUED else ""
    return f"{_command(context)}: interrupted.{hint}"


def _reason(error: typer.TyperException) -> str:
    """Return in one line which argument is wrong, and why."""
    if isinstance(error, typer.BadParameter) and error.param and error.message:
        # typer lets a prefix of pydantic's through.
        return f"argument {error.param.opts[0]}: {error.message.removeprefix('Value error, ')}"
    return error.format_message().rstrip(".")


def _command(context: Any) -> str:
    """Return the program's name and, once read, its command."""
    name = context and context.invoked_subcommand
    return f"{_PROGRAM} {name}" if name else _PROGRAM


def _show_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"{_PROGRAM} {__version__}\n")
        raise typer.Exit


def _say_what_loads(*, as_json: bool = False) -> None:
    """Report what takes the first seconds, unless it is already loaded."""
    if "torch" in sys.modules:
        return
    line = "Loading torch and transformers ..."
    if as_json:
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, "level": "info", "event": line})
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _commands() -> ModuleType:
    """Load the commands' modules, which takes seconds."""
    _say_what_loads()
    from langchain_gkt.cli import commands

    return commands


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error comes from in full.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """A big teacher begins each answer, a small local student finishes it."""
    if context.invoked_subcommand is None:
        sys.stdout.write(f"{context.get_help()}\n")


@app.command(short_help="Show teacher, student and guided: the embedded pair, or any other.")
@options.grouped
def demo(
    *,
    models: options.EvaluationModelOptions,
    task: options.TaskOptions,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the chart.")] = Path(
        "demo_output"
    ),
) -> None:
    """Answer some questions with teacher, student and guided, and show where guidance helped.

    Without options it is the embedded pair on 60 word problems of seed 7, with 18 guidance tokens.
    --teacher and --student take any models, --task and --data any questions (20 of them).
    """
    try:
        import matplotlib  # noqa: F401  before torch, which takes seconds
        import rich  # noqa: F401

        _say_what_loads()
        from langchain_gkt.demo import run  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'{error}. The demo needs more: pip install "langchain-gkt[demo]"'
        ) from error
    _commands().demo(models, task, out=out)


@app.command(short_help="Answer one question and say what it cost.")
@options.grouped
def answer(
    question: Annotated[
        str,
        typer.Argument(metavar="QUESTION", help="The question; - to read it from standard input."),
    ],
    *,
    mode: Annotated[
        str,
        typer.Option(
            parser=options.mode,
            metavar="NAME",
            help="How the answer is made: guided, teacher, student, or another strategy.",
        ),
    ] = "guided",
    models: options.ModelOptions,
) -> None:
    """Answer one question with a guided pair, and say what it cost.

    Try: langchain-gkt answer "Ben has 29 shells. A parcel brings 15. He doubles them. How many
    shells does Ben have now?" - with --mode student, the student alone gets it wrong.
    """
    _commands().answer(question, models, mode=mode)


@app.command(short_help="Teacher, student and guided answers to the same questions, side by side.")
@options.grouped
def compare(
    *,
    modes: Annotated[
        str, typer.Option(metavar="LIST", help="Which modes, separated by commas.")
    ] = "teacher,student,guided",
    models: options.EvaluationModelOptions,
    task: options.TaskOptions,
    out: options.Out = Path("runs/compare"),
    concurrency: options.Concurrency = 8,
) -> None:
    """Answer the questions of a task in several modes, and compare them.

    The teacher alone, the student alone and the guided pair are compared in accuracy, cost and
    speed. A run that was interrupted is continued by the same command.
    """
    _commands().compare(models, task, modes=modes, out=out, concurrency=concurrency)


@app.command(short_help="Accuracy and cost over the guidance length, from one teacher-only run.")
@options.grouped
def sweep(
    lengths: options.SweepOptions,
    models: options.EvaluationModelOptions,
    task: options.TaskOptions,
    recorded: RecordedOptions,
    out: options.Out = Path("runs/sweep"),
    concurrency: options.Concurrency = 8,
) -> None:
    """Find out how many guidance tokens to use.

    The teacher answers each question once, and every shorter guidance is cut from that. The
    choice is written to policy.json. A run that was interrupted is continued by the same command.
    With --recorded no teacher is asked: answers that are there already are cut.
    """
    _commands().sweep(lengths, models, task, recorded, out=out, concurrency=concurrency)


@app.command(short_help="Rebuild the tables and pictures of a run without calling any model.")
def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The run's folder, as --out named it.")
    ],
    format: Annotated[
        Literal["text", "markdown", "html"], typer.Option(help="What to print.")
    ] = "text",
    max_loss: options.MaxLoss = 0.02,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", show_default="the run's own", help="Folder for the files."),
    ] = None,
    prices: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Price the teacher again: as a model of the price list such as openai:gpt-5-mini, "
            "or in US dollars per million prompt and completion tokens, such as 0.15,0.60.",
        ),
    ] = None,
    cached_prefix: Annotated[
        bool, typer.Option(help="With --prices, too: what all prompts begin with is cached.")
    ] = False,
    batch: Annotated[bool, typer.Option(help="With --prices, too: the calls are a batch.")] = False,
) -> None:
    """Rebuild the tables and pictures of a run. No model is called.

    It writes report.txt, report.md, report.html and the pictures as PNG and SVG. With --prices it
    shows the bill in each scenario instead, side by side, and writes scenarios.txt and so on.
    """
    if prices is None and (cached_prefix or batch):
        raise ValueError("--cached-prefix and --batch need --prices, such as openai:gpt-5-mini")
    bill = (prices, cached_prefix, batch)
    _commands().report(run, format=format, max_loss=max_loss, out=out, bill=bill)


@app.command(short_help="Serve a guided pair behind OpenAI's chat completions API.")
@options.grouped
def serve(serving: options.ServeOptions, models: options.ModelOptions) -> None:
    """Serve a guided pair, its teacher and its student, as an OpenAI-compatible API.

    Clients choose by the model's name: NAME for the pair, NAME-teacher and NAME-student for one of
    the two alone. Ctrl-C finishes the answers that have begun. A second one does not.
    """
    _say_what_loads(as_json=not sys.stderr.isatty())  # programs read its log
    from langchain_gkt.cli import serve as command

    command.serve(serving, models)
