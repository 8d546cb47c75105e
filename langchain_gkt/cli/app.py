"""The command line: ``python -m langchain_gkt`` or ``langchain-gkt``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_gkt.errors import BudgetExceeded, StudentError, TeacherError

_EXPECTED = (
    BudgetExceeded,
    ImportError,
    OSError,
    RuntimeError,
    StudentError,
    TeacherError,
    TypeError,
    ValueError,
)


def main(argv: list[str] | None = None) -> int:
    """Read the command line and run what it asks for.

    Args:
        argv: The arguments, without the program's name; None for those of the process.

    Returns:
        The exit status.
    """
    args = _parser().parse_args(argv)
    try:
        _handler(args.command)(args)
    except KeyboardInterrupt:
        return 130
    except _EXPECTED as error:
        if args.traceback:
            raise
        sys.stderr.write(f"langchain-gkt {args.command}: {error}\n")
        return 1
    return 0


def _handler(command: str) -> Callable[[Any], None]:
    if command == "demo":
        try:
            from langchain_gkt.demo.show import demo
        except ImportError as error:
            raise ImportError(
                f'{error}\nThe demo needs more: pip install "langchain-gkt[demo]"'
            ) from error
        chosen: Callable[[Any], None] = demo
        return chosen
    from langchain_gkt.cli import commands

    handler: Callable[[Any], None] = getattr(commands, command)
    return handler


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="langchain-gkt",
        description="A big teacher begins each answer, a small local student finishes it.",
    )
    parser.add_argument(
        "--traceback", action="store_true", help="show where an error comes from in full"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    answer = commands.add_parser(
        "answer",
        help="answer one question and say what it cost",
        description="Answer one question with a guided pair, and say what it cost.",
    )
    answer.add_argument("question", help="the question; - to read it from standard input")
    answer.add_argument(
        "--mode",
        choices=("guided", "teacher", "student"),
        default="guided",
        help="who answers (default: %(default)s)",
    )
    _add_models(answer, temperature=None)
    compare = commands.add_parser(
        "compare",
        help="teacher, student and guided answers to the same questions, side by side",
        description="Answer the questions of a task with the teacher alone, the student alone and "
        "the guided pair, and compare accuracy, cost and speed. Ended at any moment, the same "
        "command goes on where it was.",
    )
    compare.add_argument(
        "--modes",
        default="teacher,student,guided",
        metavar="LIST",
        help="which of them, separated by commas (default: %(default)s)",
    )
    _add_models(compare, temperature="0")
    _add_task(compare, out="runs/compare")
    sweep = commands.add_parser(
        "sweep",
        help="accuracy and cost over the guidance length, from one teacher-only run",
        description="Find out how many guidance tokens to use: the teacher answers each question "
        "once, and every shorter guidance is cut from that. Writes the choice to policy.json. "
        "Ended at any moment, the same command goes on where it was.",
    )
    sweep.add_argument(
        "--lengths",
        metavar="LIST",
        help="guidance lengths, such as 8,16,24, or one number for all up to it "
        "(default: a dozen up to --guidance-tokens)",
    )
    sweep.add_argument(
        "--check-lengths",
        metavar="LIST",
        default="",
        help="lengths at which the teacher is really asked again for some rows, at its price, to "
        "check the cut (default: none)",
    )
    sweep.add_argument(
        "--teacher-tokenizer",
        metavar="PATH",
        help="folder or hub id of the teacher's tokenizer, where its API tells no tokens",
    )
    _add_max_loss(sweep)
    _add_models(sweep, temperature="0")
    _add_task(sweep, out="runs/sweep")
    report = commands.add_parser(
        "report",
        help="rebuild the tables and pictures of a run without calling any model",
        description="Rebuild the tables and pictures of a run: report.txt, report.md, report.html "
        "and the pictures as PNG and SVG. No model is called.",
    )
    report.add_argument("run", type=Path, help="the run's folder, as --out named it")
    report.add_argument(
        "--format",
        choices=("text", "markdown", "html"),
        default="text",
        help="what to print (default: %(default)s)",
    )
    _add_max_loss(report)
    report.add_argument("--out", type=Path, help="folder for the files (default: the run's own)")
    return parser


def _add_max_loss(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-loss",
        type=_share,
        default=0.02,
        help="accuracy that a sweep's choice may give up against the best length "
        "(default: %(default)s)",
    )


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo", help="compare teacher, student and guided on the two embedded models"
    )
    demo.add_argument(
        "--rows", type=_positive, default=60, help="problems to answer (default: %(default)s)"
    )
    demo.add_argument(
        "--guidance-tokens",
        type=_positive,
        default=18,
        help="tokens the teacher writes (default: %(default)s)",
    )
    demo.add_argument("--seed", type=int, default=7, help="of the problems (default: %(default)s)")
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("demo_output"),
        help="folder of the chart (default: %(default)s)",
    )


def _add_models(parser: argparse.ArgumentParser, *, temperature: str | None) -> None:
    models = parser.add_argument_group("models")
    models.add_argument(
        "--teacher",
        default="demo",
        help="a model such as openai:gpt-4o-mini (see LangChain's init_chat_model), a folder with "
        "a local model, or demo (default: %(default)s)",
    )
    models.add_argument("--base-url", help="address of an OpenAI-compatible server")
    models.add_argument(
        "--student",
        default="demo",
        help="a folder or hub id of a Hugging Face model, or demo (default: %(default)s)",
    )
    models.add_argument("--device", help="where the student runs, such as cuda")
    models.add_argument("--dtype", default="auto", help="the student's, such as bfloat16 or int8")
    models.add_argument(
        "--guidance-tokens",
        type=_whole,
        help="most tokens the teacher writes (default: the task's)",
    )
    models.add_argument(
        "--guidance",
        type=Path,
        metavar="FILE",
        help="a policy that sweep wrote, such as policy.json",
    )
    models.add_argument("--max-tokens", type=_positive, help="most tokens of a whole answer")
    models.add_argument(
        "--temperature",
        default=temperature,
        help="of both models; own for their own"
        + (f" (default: {temperature})" if temperature else ""),
    )
    models.add_argument(
        "--teacher-price",
        metavar="PRICE",
        help="US dollars per million prompt and completion tokens, such as 0.15,0.60, or a model "
        "of the price list such as openai:gpt-4o-mini (default: that of the teacher)",
    )
    models.add_argument(
        "--student-price", metavar="PRICE", help="the same for the student (default: free)"
    )


def _add_task(parser: argparse.ArgumentParser, *, out: str) -> None:
    task = parser.add_argument_group("task")
    task.add_argument(
        "--task",
        default="word_problems",
        help="gsm8k, csqa, aqua or word_problems (default: %(default)s)",
    )
    task.add_argument(
        "--data", type=Path, metavar="FILE", help="JSON lines as the publisher offers them"
    )
    task.add_argument("--rows", type=_positive, help="how many questions (default: all)")
    task.add_argument("--seed", type=int, help="draw the questions by it (default: the first ones)")
    task.add_argument("--shots", type=_whole, help="worked examples (default: the task's)")
    task.add_argument(
        "--style",
        choices=("chat", "text"),
        default="chat",
        help="examples as chat turns or as one text (default: %(default)s)",
    )
    task.add_argument("--exemplars", type=Path, metavar="FILE", help="worked examples of your own")
    task.add_argument(
        "--reference", action="store_true", help="also score as the paper's code does"
    )
    run = parser.add_argument_group("run")
    run.add_argument(
        "--out", type=Path, default=Path(out), help="the run's folder (default: %(default)s)"
    )
    run.add_argument(
        "--concurrency",
        type=_positive,
        default=8,
        help="questions at the same time (default: %(default)s)",
    )


def _whole(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {text}")
    return number


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"must be a share such as 0.02, not {text}")
    return number


def _positive(text: str) -> int:
    if (number := _whole(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text}")
    return number
