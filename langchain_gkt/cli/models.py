"""The chain and the prices that the model options of the command line describe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from langchain_gkt import GuidedKnowledgeTransferChain, Price
from langchain_gkt.cli.options import ModelOptions
from langchain_gkt.demo import pair
from langchain_gkt.prompts.plain_data import from_data


@contextmanager
def open_chain(
    options: ModelOptions, *, task_guidance_tokens: int | None = None
) -> Iterator[GuidedKnowledgeTransferChain]:
    """Load the models, and close them in the end.

    Args:
        options: The options.
        task_guidance_tokens: Most guidance tokens if the options say nothing of it; None for
            the chain's own default.

    Yields:
        The chain.

    Raises:
        ImportError: If a package is missing that the teacher needs.
        ValueError: If an option has no usable value.
    """
    hush: Any = transformers_logging.disable_progress_bar
    hush()
    policy: dict[str, Any] = {"guidance": options.guidance} if options.guidance else {}
    tokens = options.guidance_tokens
    if tokens is None and not options.guidance:
        tokens = task_guidance_tokens
    if tokens is not None:
        policy["guidance_tokens"] = tokens
    if options.teacher_prompt:
        policy["teacher_prompt"] = _teacher_prompt(options.teacher_prompt)
    temperature = _temperature(options.temperature)
    with _open_teacher(options) as teacher:
        chain = GuidedKnowledgeTransferChain(
            teacher=teacher,
            student=pair.STUDENT if options.student == "demo" else options.student,
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
            chain.student.close()


def prices(options: ModelOptions) -> dict[str, Any]:
    """Return the prices of both models.

    Args:
        options: The options.

    Returns:
        ``teacher_price`` and ``student_price``, as a cost tracker takes them.

    Raises:
        ValueError: If one is not a price.
    """
    teacher = _price(options.teacher_price, "--teacher-price")
    if teacher is None and options.teacher == "demo":
        teacher = pair.PRICE
    return {
        "teacher_price": teacher,
        "student_price": _price(options.student_price, "--student-price"),
    }


def _price(text: str | None, name: str) -> Price | str | None:
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
        return float(text)
    except ValueError as error:
        raise ValueError(f"--temperature must be a number or own, not {text!r}") from error


@contextmanager
def _open_teacher(options: ModelOptions) -> Iterator[Any]:
    if options.teacher == "demo":
        with pair.demo_teacher() as served:
            yield served
    elif Path(options.teacher).is_dir():
        from langchain_gkt.students.huggingface import HuggingFaceStudent

        teacher = HuggingFaceStudent(model=options.teacher, device=options.device)
        try:
            yield teacher
        finally:
            teacher.close()
    else:
        yield _remote_teacher(options)


def _remote_teacher(options: ModelOptions) -> Any:
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise ImportError(
            f'--teacher {options.teacher} needs langchain: pip install "langchain-gkt[cli]"'
        ) from error
    settings: dict[str, Any] = {}
    if options.base_url:
        # A server of one's own seldom wants a key, but the client does.
        key = os.environ.get("OPENAI_API_KEY") or "none"
        settings = {"base_url": options.base_url, "api_key": key, "stream_usage": True}
    try:
        return init_chat_model(options.teacher, **settings)
    except ImportError:
        raise  # says what to install
    except Exception as error:  # whatever a provider's client raises
        raise ValueError(
            f"--teacher {options.teacher} cannot be used: {error} Set the provider's key in its "
            "environment variable (such as OPENAI_API_KEY), or give --base-url for a server of "
            "your own."
        ) from error
