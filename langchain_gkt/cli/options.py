"""The options of the command line: their types, their help and their values.

Options that several commands share are fields of a dataclass. `grouped` lets a command take such a
dataclass as one parameter.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
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
            parameters += _parameters(groups[name])
        else:
            parameters.append(
                parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
            )

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        for name, group in groups.items():
            values = {one.name: arguments.pop(one.name) for one in fields(group)}
            arguments[name] = group(**values)
        command(**arguments)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameters(group: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for one in fields(group):
        hint = hints[one.name]
        if "option" in one.metadata:
            hint = Annotated[hint, one.metadata["option"]]
        kind = inspect.Parameter.KEYWORD_ONLY
        yield inspect.Parameter(one.name, kind, default=one.default, annotation=hint)


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


def option(
    default: Any, metavar: str | None, help: str, without: str | None = None, **more: Any
) -> Any:
    """Return a field that is an option. ``without`` says in words what holds without it."""
    names = [more.pop("flag")] if "flag" in more else []
    if without:
        more["show_default"] = without
    return field(
        default=default,
        metadata={"option": typer.Option(*names, metavar=metavar, help=help, **more)},
    )


Concurrency = Annotated[
    int, typer.Option(metavar="N", help="How many questions at the same time.", parser=positive)
]
MaxLoss = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        help="Accuracy that a sweep's choice may give up against the best length.",
        parser=_share,
    ),
]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="The run's folder.")]
Temperature = Annotated[
    str | None, typer.Option(metavar="NUMBER", help="Of both models; own for each model's own.")
]


@dataclass(frozen=True)
class ModelOptions:
    """The models that answer, and their terms."""

    teacher: str = option(
        "demo",
        "MODEL",
        "A model such as openai:gpt-4o-mini (see LangChain's init_chat_model), a folder with a "
        "local model, or demo.",
    )
    base_url: str | None = option(None, "URL", "Address of an OpenAI-compatible server.")
    student: str = option("demo", "MODEL", "A folder or hub id of a Hugging Face model, or demo.")
    device: str | None = option(None, "NAME", "Where the student runs, such as cuda.")
    dtype: str = option("auto", "NAME", "Number type of the student, such as bfloat16 or int8.")
    guidance_tokens: int | None = option(
        None,
        "N",
        "Most tokens the teacher writes.",
        "the task's, else 18 of the embedded teacher and 40 of others",
        parser=not_negative,
    )
    guidance: Path | None = option(None, "FILE", "A policy that sweep wrote, such as policy.json.")
    max_tokens: int | None = option(None, "N", "Most tokens of a whole answer.", parser=positive)
    temperature: Temperature = None
    teacher_price: str | None = option(
        None,
        "PRICE",
        "US dollars per million prompt and completion tokens, such as 0.15,0.60, or a model of "
        "the price list such as openai:gpt-4o-mini.",
        "that of the teacher",
    )
    student_price: str | None = option(None, "PRICE", "The same for the student.", "free")
    teacher_prompt: str | None = option(
        None,
        "LIST",
        "What the teacher is shown: without_exemplars, last_turns, keep_prefix, "
        "instruct_teacher or summarize_older, or several joined by +.",
        "the whole conversation",
    )
    tier: str | None = option(
        None,
        "NAME",
        "Service tier at which the teacher's calls are billed, such as batch or flex.",
        "as the responses say",
    )


@dataclass(frozen=True)
class EvaluationModelOptions(ModelOptions):
    """Model options of an evaluation, whose answers should be the same each time."""

    temperature: Temperature = "0"


@dataclass(frozen=True)
class TaskOptions:
    """The questions, and how to ask them."""

    task: str = option("word_problems", "NAME", "gsm8k, csqa, aqua or word_problems.")
    data: Path | None = option(None, "FILE", "JSON lines as the publisher offers them.")
    rows: int | None = option(None, "N", "How many questions.", "all", parser=positive)
    seed: int | None = option(None, "N", "Draw the questions by it.", "the first ones")
    shots: int | None = option(
        None, "N", "How many worked examples.", "the task's", parser=not_negative
    )
    style: Literal["chat", "text"] = option("chat", None, "Examples as chat turns or as one text.")
    exemplars: Path | None = option(None, "FILE", "Worked examples of your own.")
    reference: bool = option(
        False, None, "Also score as the paper's code does.", flag="--reference"
    )


@dataclass(frozen=True)
class SweepOptions:
    """The values that a sweep tries, and the bill of its choice."""

    lengths: str | None = option(
        None,
        "LIST",
        "Guidance lengths, such as 8,16,24, or one number for all up to it.",
        "a dozen up to --guidance-tokens",
    )
    check_lengths: str = option(
        "",
        "LIST",
        "Lengths at which the teacher is really asked again for some rows, at its price, to "
        "check the cut.",
        "none",
    )
    teacher_tokenizer: str | None = option(
        None, "PATH", "Folder or hub id of the teacher's tokenizer, if its API reports no tokens."
    )
    max_loss: MaxLoss = 0.02
    policies: Path | None = option(
        None,
        "FILE",
        "Policies to compare: a JSON object that maps a name to the fields of each, such as "
        '{"whole": {}, "short": {"teacher_prompt": [{"prompt": "without_exemplars"}]}}.',
    )
    agreement: int | None = option(
        None,
        "N",
        "Have the student answer N times, to ask the teacher where too few agree.",
        "no",
        parser=_at_least(2),
    )


@dataclass(frozen=True)
class ServeOptions:
    """Where a server listens, who may send requests, and for how much."""

    host: str = option(
        "127.0.0.1", "ADDRESS", "Where to listen; others than this machine's own need keys."
    )
    port: int = option(8000, "N", "The port; 0 for any free one.", min=0, max=65535)
    name: str = option("langchain-gkt", "NAME", "What clients call the pair.")
    api_key_env: str | None = option(
        None,
        "NAME",
        "Environment variable with the key that clients must send, or several keys separated "
        "by commas.",
        "no key is asked for",
    )
    keys: Path | None = option(None, "FILE", "JSON file of keys, each with limits of its own.")
    budget_usd: str | None = option(None, "USD", "Most that all requests may cost.", "none")
    key_budget_usd: str | None = option(None, "USD", "Most that each key may spend.", "none")
    on_exceeded: Literal["raise", "student"] = option(
        "raise", None, "What a spent budget does: refuse, or let the student answer alone."
    )
    on_teacher_error: Literal["raise", "student"] = option(
        "raise", None, "What a failing teacher does: the same."
    )
    requests_per_minute: float | None = option(
        None, "N", "Of each key.", "no limit", parser=_more_than_zero
    )
    max_body_bytes: int = option(2**20, "N", "Most bytes of a request.", parser=positive)
    read_seconds: float = option(
        30.0, "N", "How long a client may take to send a request.", parser=_more_than_zero
    )
    max_connections: int = option(256, "N", "Most connections at the same time.", parser=positive)
    allowed_hosts: str | None = option(
        None,
        "LIST",
        "Names that clients may call the server, such as ai.example.com; * for any.",
        "this machine's names, or any on another --host",
    )
    cors_origins: str | None = option(
        None,
        "LIST",
        "Web pages that may ask from a browser, such as https://app.example.com.",
        "none",
    )
    shutdown_seconds: float = option(
        30.0,
        "N",
        "How long answers that have begun may take after Ctrl-C or SIGTERM.",
        parser=_more_than_zero,
    )
