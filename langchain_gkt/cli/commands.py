"""What the command line's words mean: models, tasks and runs made of its arguments."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from langchain_gkt import GuidedKnowledgeTransferChain, Price, track_costs
from langchain_gkt import evaluation as evaluations
from langchain_gkt.demo import pair
from langchain_gkt.evaluation.results.base import EvaluationResult


def answer(args: Namespace) -> None:
    """Answer one question.

    Args:
        args: The command's arguments.
    """
    question = sys.stdin.read() if args.question == "-" else args.question
    with _chain(args, None) as chain, track_costs(**_prices(args)) as costs:
        gkt: dict[str, Any] = {}
        for chunk in chain.stream(question, mode=args.mode):
            sys.stdout.write(str(chunk.text))
            sys.stdout.flush()
            gkt = chunk.response_metadata.get("gkt", gkt)
    sys.stdout.write("\n\n")
    if gkt["guidance"]:
        sys.stdout.write(f"guidance ({gkt['guidance_tokens']} tokens): {gkt['guidance']}\n\n")
    sys.stdout.write(f"{costs.report()}\n")


def compare(args: Namespace) -> None:
    """Run a comparison and write its report.

    Args:
        args: The command's arguments.
    """
    task = _task(args)
    modes: Any = [mode.strip() for mode in args.modes.split(",") if mode.strip()]
    with _chain(args, task) as chain:
        found = evaluations.compare(
            chain,
            task,
            modes=modes,
            out=args.out,
            concurrency=args.concurrency,
            **_prices(args),
        )
    _show(found)


def sweep(args: Namespace) -> None:
    """Run a sweep, write its report, and the choice as a policy.

    Args:
        args: The command's arguments.
    """
    task, tokenizer = _task(args), None
    lengths = _numbers(args.lengths, "--lengths") if args.lengths else None
    if args.teacher_tokenizer or args.teacher == "demo":
        from transformers import AutoTokenizer

        place = args.teacher_tokenizer or pair.TEACHER
        tokenizer = AutoTokenizer.from_pretrained(place)
    with _chain(args, task) as chain:
        found = evaluations.sweep(
            chain,
            task,
            lengths=lengths[0] if lengths and len(lengths) == 1 else lengths,
            teacher_tokenizer=tokenizer,
            check_lengths=_numbers(args.check_lengths, "--check-lengths"),
            out=args.out,
            concurrency=args.concurrency,
            **_prices(args),
        )
    found = replace(found, max_loss=args.max_loss)
    _show(found)
    choices = found.choices()
    if not choices:
        sys.stdout.write("\nNo policy was written: choosing takes 4 rows or more.\n")
    for name, choice in choices.items():
        file = args.out / ("policy.json" if name == "fixed length" else "policy-gated.json")
        choice.policy.save(file)
        sys.stdout.write(f"\n{file}: {choice}\n")


def report(args: Namespace) -> None:
    """Rebuild a run's report.

    Args:
        args: The command's arguments.
    """
    found = evaluations.load_run(args.run)
    if isinstance(found, evaluations.Sweep):
        found = replace(found, max_loss=args.max_loss)
    files = found.save(args.out)
    if args.format == "html":
        text = next(file for file in files if file.suffix == ".html").read_text(encoding="utf-8")
    else:
        text = found.markdown() if args.format == "markdown" else str(found)
    sys.stdout.write(f"{text}\n")


def _show(run: EvaluationResult) -> None:
    files = run.save()
    page = next(file for file in files if file.suffix == ".html")
    sys.stdout.write(f"{run}\n\nReport: {page}\n")


def _task(args: Namespace) -> evaluations.Task:
    return evaluations.load_task(
        args.task,
        data=args.data,
        rows=args.rows,
        seed=args.seed,
        shots=args.shots,
        style=args.style,
        exemplars=args.exemplars,
        reference=args.reference,
    )


def _prices(args: Namespace) -> dict[str, Any]:
    teacher = _price(args.teacher_price, "--teacher-price")
    if teacher is None and args.teacher == "demo":
        teacher = pair.PRICE
    return {
        "teacher_price": teacher,
        "student_price": _price(args.student_price, "--student-price"),
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


def _numbers(text: str, name: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ValueError(f"{name} must be numbers such as 8,16,24, not {text!r}") from error


@contextmanager
def _chain(
    args: Namespace, task: evaluations.Task | None
) -> Iterator[GuidedKnowledgeTransferChain]:
    """Make the guided pair, with the embedded teacher's server where that is wanted."""
    hush: Any = transformers_logging.disable_progress_bar
    hush()
    if args.temperature in (None, "own"):
        temperature = None
    else:
        try:
            temperature = float(args.temperature)
        except ValueError as error:
            raise ValueError(
                f"--temperature must be a number or own, not {args.temperature!r}"
            ) from error
    given: dict[str, Any] = {}
    if args.guidance is not None:
        given["guidance"] = args.guidance
    if args.guidance_tokens is not None:
        given["guidance_tokens"] = args.guidance_tokens
    elif task is not None and args.guidance is None:
        given["guidance_tokens"] = task.guidance_tokens
    student = pair.STUDENT if args.student == "demo" else args.student
    settings = {"dtype": args.dtype, **({"device": args.device} if args.device else {})}
    with _teacher(args) as teacher:
        chain = GuidedKnowledgeTransferChain(
            teacher=teacher,
            student=student,
            student_kwargs=settings,
            temperature=temperature,
            max_tokens=args.max_tokens,
            **given,
        )
        try:
            yield chain
        finally:
            chain.student.close()


@contextmanager
def _teacher(args: Namespace) -> Iterator[Any]:
    if args.teacher == "demo":
        with pair.demo_teacher() as served:
            yield served
        return
    if Path(args.teacher).is_dir():
        from langchain_gkt.students.huggingface import HuggingFaceStudent

        teacher = HuggingFaceStudent(model=args.teacher, device=args.device)
        try:
            yield teacher
        finally:
            teacher.close()
        return
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise ImportError(
            f'--teacher {args.teacher} needs langchain: pip install "langchain-gkt[cli]"'
        ) from error
    settings: dict[str, Any] = {}
    if args.base_url:
        # Servers of one's own seldom want a key, but the client does.
        key = os.environ.get("OPENAI_API_KEY") or "none"
        settings = {"base_url": args.base_url, "api_key": key, "stream_usage": True}
    try:
        teacher = init_chat_model(args.teacher, **settings)
    except ImportError:
        raise  # says what to install
    except Exception as error:  # whatever a provider's client raises
        raise ValueError(
            f"--teacher {args.teacher} cannot be used: {error} Set the provider's key in its "
            "environment variable (such as OPENAI_API_KEY), or give --base-url for a server of "
            "your own."
        ) from error
    yield teacher
