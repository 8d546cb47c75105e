"""The chain and the prices from the model options of the command line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from langchain_gkt import GuidancePolicy, GuidedKnowledgeTransferChain, Price, RecordedTeacher
from langchain_gkt.cli.errors import existing_file, naming
from langchain_gkt.cli.options import ModelOptions
from langchain_gkt.demo import pair
from langchain_gkt.evaluation.tasks.word_problems import GUIDANCE_TOKENS
from langchain_gkt.prompts.plain_data import from_data

_LOCAL = re.compile(r"[./~\\]|[A-Za-z]:[\\/]")
"""Beginnings of a local path, as opposed to a name on a hub."""
_PATH = re.compile(rf"{_LOCAL.pattern}|[^:]*[\\/]|$")
"""Names that are not a provider's."""


def say(what: str) -> None:
    """Report what takes the next seconds."""
    sys.stderr.write(f"{what} ...\n")
    sys.stderr.flush()


@contextmanager
def open_chain(
    options: ModelOptions,
    *,
    task_guidance_tokens: int | None = None,
    tell: Callable[[str], None] = say,
    teacher: RecordedTeacher | None = None,
) -> Iterator[GuidedKnowledgeTransferChain]:
    """Load the models, and close them at the end.

    Args:
        options: The options.
        task_guidance_tokens: Maximum guidance tokens if the options set none. None for the chain's
            own default, or for as many as leave the embedded student something to do.
        tell: Gets a line on each model that loads.
        teacher: Replaces the options' teacher.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    policy: dict[str, Any] = {}
    tokens = options.guidance_tokens
    if options.guidance:
        with naming(guidance=options.guidance):
            policy["guidance"] = GuidancePolicy.load(existing_file(options.guidance, "--guidance"))
    elif tokens is None:
        embedded = GUIDANCE_TOKENS if options.teacher == "demo" and not teacher else None
        tokens = task_guidance_tokens or embedded
    if tokens is not None:
        policy["guidance_tokens"] = tokens
    if options.teacher_prompt:
        policy["teacher_prompt"] = _teacher_prompt(options.teacher_prompt)
    temperature = _temperature(options.temperature)
    student = None if options.student == "demo" else options.student
    if student is not None and (not student or _LOCAL.match(student)):
        _require_there("--student", student)
    with nullcontext(teacher) if teacher else _open_teacher(options, tell) as opened:
        tell(f"Loading the student {student or '(embedded)'}")
        dtype = None if options.dtype == "auto" else options.dtype
        with naming(student=student, device=options.device, dtype=dtype):
            chain = GuidedKnowledgeTransferChain(
                teacher=opened,
                student=student or pair.STUDENT,
                student_kwargs={
                    "dtype": options.dtype,
                    **({"device": options.device} if options.device else {}),
                },
                temperature=temperature,
                max_tokens=options.max_tokens,
                **policy,
            )
        try:
            yield chain
        finally:
            loaded: Any = chain.student
            loaded.close()


def prices(options: ModelOptions, recorded: RecordedTeacher | None = None) -> dict[str, Any]:
    """Return the prices of both models, and the tier, as a cost tracker takes them.

    ``recorded`` replaces the options' teacher.
    """
    teacher = read_price(options.teacher_price, "--teacher-price")
    if teacher is None and options.teacher == "demo" and recorded is None:
        teacher = pair.PRICE
    return {
        "teacher_price": teacher,
        "student_price": read_price(options.student_price, "--student-price"),
        "tier": options.tier,
    }


def read_price(text: str | None, name: str) -> Price | str | None:
    """Read an option's price: two amounts, or a model of the price list. None for None."""
    if text is None or "," not in text:
        return text
    try:
        prompt, completion = text.split(",")
        return Price(input_mtok=prompt.strip(), output_mtok=completion.strip())  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(
            f"{name} must be two amounts such as 0.15,0.60 or a model such as openai:gpt-4o-mini, "
            f"not {text!r}"
        ) from error


def _teacher_prompt(text: str) -> Any:
    try:
        return from_data([{"prompt": name.strip().replace("-", "_")} for name in text.split("+")])
    except ValueError as error:
        raise ValueError(f"--teacher-prompt {text}: {error}") from error


def _temperature(text: str | None) -> float | None:
    if text in (None, "own"):
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not number >= 0:
        raise ValueError(f"--temperature must be a number, 0 or more, or own, not {text!r}")
    return number


@contextmanager
def _open_teacher(options: ModelOptions, tell: Callable[[str], None]) -> Iterator[Any]:
    folder = Path(options.teacher).expanduser()
    if options.teacher == "demo":
        tell("Starting the embedded teacher, a server on this machine")
        with pair.demo_teacher() as served:
            yield served
    elif options.teacher and folder.is_dir():
        from langchain_gkt.students.huggingface import HuggingFaceStudent

        tell(f"Loading the teacher {folder}")
        with naming(teacher=folder):
            teacher = HuggingFaceStudent(model=str(folder), device=options.device)
        try:
            yield teacher
        finally:
            teacher.close()
    elif not options.base_url and _PATH.match(options.teacher):
        _require_there(
            "--teacher", options.teacher, "a provider's model such as openai:gpt-4o-mini"
        )
    else:
        yield _remote_teacher(options)


def _require_there(option: str, name: str, otherwise: str = "a hub id such as owner/name") -> None:
    """Refuse a path without a model, before anything is loaded."""
    path = Path(name).expanduser()
    if name and path.exists() and option == "--student":  # a folder, or a GGUF file
        return
    fault = "is no folder" if path.exists() else "is a folder that does not exist"
    raise NotADirectoryError(f"{option} {name} {fault}. Give a folder with a model, or {otherwise}")


def _remote_teacher(options: ModelOptions) -> Any:
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise ImportError(
            f'--teacher {options.teacher} needs langchain: pip install "langchain-gkt[cli]"'
        ) from error
    named = ":" in options.teacher
    settings: dict[str, Any] = {}
    if options.base_url:
        # A local server seldom needs a key, but the client does.
        key = os.environ.get("OPENAI_API_KEY") or "none"
        settings = {"base_url": options.base_url, "api_key": key, "stream_usage": True}
        if not named:  # a server's own name for its model, such as owner/name
            settings["model_provider"] = "openai"
    try:
        return init_chat_model(options.teacher, **settings)
    except ImportError:
        raise  # says what to install
    except Exception as error:  # any error of a provider's client
        if "model_provider" in str(error) or "Unsupported provider" in str(error):
            fault = "no provider that LangChain knows" if named else "no provider"
            raise ValueError(
                f"--teacher {options.teacher} names {fault}. Put it in front, as in "
                f"openai:{options.teacher.rpartition(':')[2]}, or give a folder with a model"
            ) from error
        raise ValueError(
            f"--teacher {options.teacher} cannot be used: {error} Set the provider's key in its "
            "environment variable (such as OPENAI_API_KEY), or give --base-url for a server of "
            "your own."
        ) from error
