"""The options of the command line: their types, their help and their values.

Options that several commands share are fields of a dataclass. `grouped` lets a command take such a
dataclass as one parameter.
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
    """Let a command take dataclasses of options. For typer, each field is an option of its own."""
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


def _number(kind: Callable[[str], Any], accepts: Callable[[Any], bool], must: str) -> Any:
    """Return a parser of numbers whose error says what they must be."""

    def parse(text: str) -> Any:
        try:
            number = kind(text)
        except ValueError:
            number = None
        if number is None or not accepts(number):
            raise typer.BadParameter(f"must be {must}, not {text}")
        return number

    return parse


def _at_least(minimum: int) -> Any:
    return _number(int, lambda number: number >= minimum, f"{minimum} or more")


_share = _number(float, lambda number: 0 <= number < 1, "a share such as 0.02")
_more_than_zero = _number(float, lambda number: number > 0, "a number above 0")


def mode(text: str) -> str:
    """Refuse a name that no strategy has."""
    if text not in ("guided", "teacher", "student"):  # those are known without a second's import
        from langchain_gkt.chain import strategies  # noqa: F401  registers them
        from langchain_gkt.chain.strategy import strategy_names

        if text not in strategy_names():
            names = ", ".join(map(repr, strategy_names()))
            raise typer.BadParameter(f"{text!r} is not one of {names}.")
    return text


positive, not_negative = _at_least(1), _at_least(0)


def option(metavar: str, help: str, default: str | None = None, **more: Any) -> Any:
    """Return an option. ``default`` describes in words what holds without it."""
    return typer.Option(
        metavar=metavar, help=help, **(more | ({"show_default": default} if default else {}))
    )


Concurrency = Annotated[int, option("N", "How many questions at the same time.", parser=positive)]
MaxLoss = Annotated[
    float,
    option(
        "SHARE",
        "Accuracy that a sweep's choice may give up against the best length.",
        parser=_share,
    ),
]
Out = Annotated[Path, option("FOLDER", "The run's folder.")]
Temperature = Annotated[str | None, option("NUMBER", "Of both models; own for each model's own.")]


@dataclass(frozen=True)
class ModelOptions:
    """The models that answer, and their terms."""

    teacher: Annotated[
        str,
        option(
            "MODEL",
            "A model such as openai:gpt-4o-mini (see LangChain's init_chat_model), a folder with a "
            "local model, or demo.",
        ),
    ] = "demo"
    base_url: Annotated[str | None, option("URL", "Address of an OpenAI-compatible server.")] = None
    student: Annotated[
        str, option("MODEL", "A folder or hub id of a Hugging Face model, or demo.")
    ] = "demo"
    device: Annotated[str | None, option("NAME", "Where the student runs, such as cuda.")] = None
    dtype: Annotated[
        str, option("NAME", "Number type of the student, such as bfloat16 or int8.")
    ] = "auto"
    guidance_tokens: Annotated[
        int | None,
        option(
            "N",
            "Most tokens the teacher writes.",
            "the task's, else 18 of the embedded teacher and 40 of others",
            parser=not_negative,
        ),
    ] = None
    guidance: Annotated[
        Path | None, option("FILE", "A policy that sweep wrote, such as policy.json.")
    ] = None
    max_tokens: Annotated[
        int | None, option("N", "Most tokens of a whole answer.", parser=positive)
    ] = None
    temperature: Temperature = None
    teacher_price: Annotated[
        str | None,
        option(
            "PRICE",
            "US dollars per million prompt and completion tokens, such as 0.15,0.60, or a model of "
            "the price list such as openai:gpt-4o-mini.",
            "that of the teacher",
        ),
    ] = None
    student_price: Annotated[str | None, option("PRICE", "The same for the student.", "free")] = (
        None
    )
    teacher_prompt: Annotated[
        str | None,
        option(
            "LIST",
            "What the teacher is shown: without_exemplars, last_turns, keep_prefix, "
            "instruct_teacher or summarize_older, or several joined by +.",
            "the whole conversation",
        ),
    ] = None
    tier: Annotated[
        str | None,
        option(
            "NAME",
            "Service tier at which the teacher's calls are billed, such as batch or flex.",
            "as the responses say",
        ),
    ] = None


@dataclass(frozen=True)
class EvaluationModelOptions(ModelOptions):
    """Model options of an evaluation, whose answers should be the same each time."""

    temperature: Temperature = "0"


@dataclass(frozen=True)
class TaskOptions:
    """The questions, and how to ask them."""

    task: Annotated[str, option("NAME", "gsm8k, csqa, aqua or word_problems.")] = "word_problems"
    data: Annotated[Path | None, option("FILE", "JSON lines as the publisher offers them.")] = None
    rows: Annotated[int | None, option("N", "How many questions.", "all", parser=positive)] = None
    seed: Annotated[int | None, option("N", "Draw the questions by it.", "the first ones")] = None
    shots: Annotated[
        int | None, option("N", "How many worked examples.", "the task's", parser=not_negative)
    ] = None
    style: Annotated[
        Literal["chat", "text"], typer.Option(help="Examples as chat turns or as one text.")
    ] = "chat"
    exemplars: Annotated[Path | None, option("FILE", "Worked examples of your own.")] = None
    reference: Annotated[
        bool, typer.Option("--reference", help="Also score as the paper's code does.")
    ] = False


@dataclass(frozen=True)
class SweepOptions:
    """The values that a sweep tries, and the bill of its choice."""

    lengths: Annotated[
        str | None,
        option(
            "LIST",
            "Guidance lengths, such as 8,16,24, or one number for all up to it.",
            "a dozen up to --guidance-tokens",
        ),
    ] = None
    check_lengths: Annotated[
        str,
        option(
            "LIST",
            "Lengths at which the teacher is really asked again for some rows, at its price, to "
            "check the cut.",
            "none",
        ),
    ] = ""
    teacher_tokenizer: Annotated[
        str | None,
        option(
            "PATH", "Folder or hub id of the teacher's tokenizer, if its API reports no tokens."
        ),
    ] = None
    max_loss: MaxLoss = 0.02
    policies: Annotated[
        Path | None,
        option(
            "FILE",
            "Policies to compare: a JSON object that maps a name to the fields of each, such as "
            '{"whole": {}, "short": {"teacher_prompt": [{"prompt": "without_exemplars"}]}}.',
        ),
    ] = None
    agreement: Annotated[
        int | None,
        option(
            "N",
            "Have the student answer N times, to ask the teacher where too few agree.",
            "no",
            parser=_at_least(2),
        ),
    ] = None


@dataclass(frozen=True)
class ServeOptions:
    """Where a server listens, who may send requests, and for how much."""

    host: Annotated[
        str, option("ADDRESS", "Where to listen; others than this machine's own need keys.")
    ] = "127.0.0.1"
    port: Annotated[int, option("N", "The port; 0 for any free one.", min=0, max=65535)] = 8000
    name: Annotated[str, option("NAME", "What clients call the pair.")] = "langchain-gkt"
    api_key_env: Annotated[
        str | None,
        option(
            "NAME",
            "Environment variable with the key that clients must send, or several keys separated "
            "by commas.",
            "no key is asked for",
        ),
    ] = None
    keys: Annotated[
        Path | None, option("FILE", "JSON file of keys, each with limits of its own.")
    ] = None
    budget_usd: Annotated[str | None, option("USD", "Most that all requests may cost.", "none")] = (
        None
    )
    key_budget_usd: Annotated[
        str | None, option("USD", "Most that each key may spend.", "none")
    ] = None
    on_exceeded: Annotated[
        Literal["raise", "student"],
        typer.Option(help="What a spent budget does: refuse, or let the student answer alone."),
    ] = "raise"
    on_teacher_error: Annotated[
        Literal["raise", "student"], typer.Option(help="What a failing teacher does: the same.")
    ] = "raise"
    requests_per_minute: Annotated[
        float | None, option("N", "Of each key.", "no limit", parser=_more_than_zero)
    ] = None
    max_body_bytes: Annotated[int, option("N", "Most bytes of a request.", parser=positive)] = 2**20
    read_seconds: Annotated[
        float, option("N", "How long a client may take to send a request.", parser=_more_than_zero)
    ] = 30.0
    max_connections: Annotated[
        int, option("N", "Most connections at the same time.", parser=positive)
    ] = 256
    allowed_hosts: Annotated[
        str | None,
        option(
            "LIST",
            "Names that clients may call the server, such as ai.example.com; * for any.",
            "this machine's names, or any on another --host",
        ),
    ] = None
    cors_origins: Annotated[
        str | None,
        option(
            "LIST",
            "Web pages that may ask from a browser, such as https://app.example.com.",
            "none",
        ),
    ] = None
    shutdown_seconds: Annotated[
        float,
        option(
            "N",
            "How long answers that have begun may take after Ctrl-C or SIGTERM.",
            parser=_more_than_zero,
        ),
    ] = 30.0
