"""The options of the command line: their types, their help and what they accept.

Options that several commands share are fields of a dataclass; `grouped` lets a command take
such a dataclass as one parameter.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take dataclasses of options.

    Args:
        command: A function with keyword parameters; some may be annotated with a dataclass
            whose fields are annotated as options.

    Returns:
        The same command as typer wants it: each field is an option of its own.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            types = get_type_hints(groups[name], include_extras=True)
            parameters += [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=types[field.name],
                )
                for field in fields(groups[name])
            ]
        else:
            parameters.append(
                parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
            )

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        for name, group in groups.items():
            values = {field.name: arguments.pop(field.name) for field in fields(group)}
            arguments[name] = group(**values)
        command(**arguments)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _at_least(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise typer.BadParameter(f"must be {minimum} or more, not {text}")
        return number

    return parse


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise typer.BadParameter(f"must be a share such as 0.02, not {text}")
    return number


def mode(text: str) -> str:
    """Read the name of a strategy.

    Args:
        text: What the user typed.

    Returns:
        The same.

    Raises:
        typer.BadParameter: If no strategy has that name.
    """
    if text not in ("guided", "teacher", "student"):  # those are known without a second's import
        from langchain_gkt.chain import strategies  # noqa: F401  registers them
        from langchain_gkt.chain.strategy import strategy_names

        if text not in strategy_names():
            names = ", ".join(map(repr, strategy_names()))
            raise typer.BadParameter(f"{text!r} is not one of {names}.")
    return text


positive, not_negative = _at_least(1), _at_least(0)

Concurrency = Annotated[
    int,
    typer.Option(parser=positive, metavar="N", help="How many questions at the same time."),
]
MaxLoss = Annotated[
    float,
    typer.Option(
        parser=_share,
        metavar="SHARE",
        help="Accuracy that a sweep's choice may give up against the best length.",
    ),
]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="The run's folder.")]
Temperature = Annotated[
    str | None,
    typer.Option(metavar="NUMBER", help="Of both models; own for each model's own."),
]


@dataclass(frozen=True)
class ModelOptions:
    """Which models answer, and on what terms."""

    teacher: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="A model such as openai:gpt-4o-mini (see LangChain's init_chat_model), a folder "
            "with a local model, or demo.",
        ),
    ] = "demo"
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Address of an OpenAI-compatible server.")
    ] = None
    student: Annotated[
        str,
        typer.Option(metavar="MODEL", help="A folder or hub id of a Hugging Face model, or demo."),
    ] = "demo"
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where the student runs, such as cuda.")
    ] = None
    dtype: Annotated[
        str,
        typer.Option(metavar="NAME", help="Number type of the student, such as bfloat16 or int8."),
    ] = "auto"
    guidance_tokens: Annotated[
        int | None,
        typer.Option(
            parser=not_negative,
            metavar="N",
            show_default="the task's, else 18 of the embedded teacher and 40 of others",
            help="Most tokens the teacher writes.",
        ),
    ] = None
    guidance: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A policy that sweep wrote, such as policy.json."),
    ] = None
    max_tokens: Annotated[
        int | None,
        typer.Option(parser=positive, metavar="N", help="Most tokens of a whole answer."),
    ] = None
    temperature: Temperature = None
    teacher_price: Annotated[
        str | None,
        typer.Option(
            metavar="PRICE",
            show_default="that of the teacher",
            help="US dollars per million prompt and completion tokens, such as 0.15,0.60, or a "
            "model of the price list such as openai:gpt-4o-mini.",
        ),
    ] = None
    student_price: Annotated[
        str | None,
        typer.Option(metavar="PRICE", show_default="free", help="The same for the student."),
    ] = None
    teacher_prompt: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            show_default="the whole conversation",
            help="What the teacher is shown: without_exemplars, last_turns, instruct_teacher or "
            "summarize_older, or several joined by +.",
        ),
    ] = None
    tier: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="as the responses say",
            help="Service tier at which the teacher's calls are billed, such as batch or flex.",
        ),
    ] = None


@dataclass(frozen=True)
class EvaluationModelOptions(ModelOptions):
    """Model options of an evaluation, whose answers are to come out the same each time."""

    temperature: Temperature = "0"


@dataclass(frozen=True)
class TaskOptions:
    """Which questions are asked, and how."""

    task: Annotated[
        str, typer.Option(metavar="NAME", help="gsm8k, csqa, aqua or word_problems.")
    ] = "word_problems"
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON lines as the publisher offers them.")
    ] = None
    rows: Annotated[
        int | None,
        typer.Option(parser=positive, metavar="N", show_default="all", help="How many questions."),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", show_default="the first ones", help="Draw the questions by it."),
    ] = None
    shots: Annotated[
        int | None,
        typer.Option(
            parser=not_negative,
            metavar="N",
            show_default="the task's",
            help="How many worked examples.",
        ),
    ] = None
    style: Annotated[
        Literal["chat", "text"], typer.Option(help="Examples as chat turns or as one text.")
    ] = "chat"
    exemplars: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Worked examples of your own.")
    ] = None
    reference: Annotated[
        bool, typer.Option("--reference", help="Also score as the paper's code does.")
    ] = False


@dataclass(frozen=True)
class SweepOptions:
    """What a sweep tries, and what its choice may cost."""

    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            show_default="a dozen up to --guidance-tokens",
            help="Guidance lengths, such as 8,16,24, or one number for all up to it.",
        ),
    ] = None
    check_lengths: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            show_default="none",
            help="Lengths at which the teacher is really asked again for some rows, at its "
            "price, to check the cut.",
        ),
    ] = ""
    teacher_tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Folder or hub id of the teacher's tokenizer, if its API reports no tokens.",
        ),
    ] = None
    max_loss: MaxLoss = 0.02
    policies: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Policies to compare: a JSON object that maps a name to the fields of each, such "
            'as {"whole": {}, "short": {"teacher_prompt": [{"prompt": "without_exemplars"}]}}.',
        ),
    ] = None
    agreement: Annotated[
        int | None,
        typer.Option(
            parser=_at_least(2),
            metavar="N",
            show_default="no",
            help="Have the student answer N times, to ask the teacher where too few agree.",
        ),
    ] = None


def _more_than_zero(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise typer.BadParameter(f"must be a number above 0, not {text}")
    return number


@dataclass(frozen=True)
class ServeOptions:
    """Where a server listens, and who may ask it for how much."""

    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Where to listen; others than this machine's own need keys."
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, metavar="N", help="The port; 0 for any free one."),
    ] = 8000
    name: Annotated[str, typer.Option(metavar="NAME", help="What clients call the pair.")] = (
        "langchain-gkt"
    )
    api_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="no key is asked for",
            help="Environment variable with the key that clients must send, or several keys "
            "separated by commas.",
        ),
    ] = None
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON file of keys, each with limits of its own."),
    ] = None
    budget_usd: Annotated[
        str | None,
        typer.Option(metavar="USD", show_default="none", help="Most that all requests may cost."),
    ] = None
    key_budget_usd: Annotated[
        str | None,
        typer.Option(metavar="USD", show_default="none", help="Most that each key may spend."),
    ] = None
    on_exceeded: Annotated[
        Literal["raise", "student"],
        typer.Option(help="What a spent budget does: refuse, or let the student answer alone."),
    ] = "raise"
    on_teacher_error: Annotated[
        Literal["raise", "student"],
        typer.Option(help="What a failing teacher does: the same."),
    ] = "raise"
    requests_per_minute: Annotated[
        float | None,
        typer.Option(
            parser=_more_than_zero, metavar="N", show_default="no limit", help="Of each key."
        ),
    ] = None
    max_body_bytes: Annotated[
        int, typer.Option(parser=positive, metavar="N", help="Most bytes of a request.")
    ] = 2**20
    read_seconds: Annotated[
        float,
        typer.Option(
            parser=_more_than_zero,
            metavar="N",
            help="How long a client may take to send a request.",
        ),
    ] = 30.0
    max_connections: Annotated[
        int, typer.Option(parser=positive, metavar="N", help="Most connections at the same time.")
    ] = 256
    allowed_hosts: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            show_default="this machine's names, or any on another --host",
            help="Names that clients may call the server, such as ai.example.com; * for any.",
        ),
    ] = None
    cors_origins: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            show_default="none",
            help="Web pages that may ask from a browser, such as https://app.example.com.",
        ),
    ] = None
    shutdown_seconds: Annotated[
        float,
        typer.Option(
            parser=_more_than_zero,
            metavar="N",
            help="How long answers that have begun may take after Ctrl-C or SIGTERM.",
        ),
    ] = 30.0
