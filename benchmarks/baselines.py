"""The ways to run a student that are compared: the paper's, transformers', LangChain's, ours."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch
from langchain_huggingface import HuggingFacePipeline
from transformers import pipeline

from benchmarks.workloads import PADDED, STUDENT_TOKENS, Question, answer_all
from langchain_gkt.students.engine.engine import Engine


@dataclass
class Times:
    """Seconds per question, one entry per repeat.

    Attributes:
        cpu: Processor seconds of this process, all threads together.
        wall: Seconds on the clock.
        agreed: How many texts were the reference's.
        answered: How many texts there were.
    """

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    agreed: int = 0
    answered: int = 0

    def summary(self) -> dict[str, Any]:
        """Return medians with their ranges, for the JSON."""
        return {
            name: {"median": median(values), "min": min(values), "max": max(values)}
            for name, values in (("cpu_s", self.cpu), ("wall_s", self.wall))
        } | {"texts_agree": self.agreed, "texts": self.answered}


Answer = Callable[[Sequence[Question]], list[str]]


def measure(times: Times, answer: Answer, questions: Sequence[Question], *, exact: bool) -> None:
    """Answer the questions once, and measure.

    Args:
        times: Where the result goes.
        answer: Answers the questions.
        questions: The questions.
        exact: Whether a text that differs from the reference is an error.

    Raises:
        AssertionError: If ``exact`` is set and a text differs.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    texts = answer(questions)
    times.cpu.append((time.process_time() - cpu) / len(questions))
    times.wall.append((time.perf_counter() - wall) / len(questions))
    for text, question in zip(texts, questions, strict=True):
        same = text.split(question.request.stop[0])[0] == question.answer
        times.agreed, times.answered = times.agreed + same, times.answered + 1
        if exact and not same:
            raise AssertionError(f"texts differ: {text[:300]!r} is not {question.answer[:300]!r}")


def paper(model: Any, tokenizer: Any) -> Answer:
    """Stage 2 as the paper runs it: one by one, padded to 1,024, always to the last token."""

    def answer(questions: Sequence[Question]) -> list[str]:
        texts = []
        for question in questions:
            ids = [*question.request.prompt, *question.request.answer_prefix]
            pads = PADDED - len(ids)
            out = model.generate(
                torch.tensor([[0] * pads + ids]),
                attention_mask=torch.tensor([[0] * pads + [1] * len(ids)]),
                max_new_tokens=STUDENT_TOKENS,
                do_sample=False,
                pad_token_id=0,
            )
            texts.append(tokenizer.decode(out[0, PADDED:]))
        return texts

    return answer


def generate(model: Any, tokenizer: Any) -> Answer:
    """Call transformers' `generate` in a loop: no padding, and told the length beforehand."""

    def answer(questions: Sequence[Question]) -> list[str]:
        texts = []
        for question in questions:
            ids = [*question.request.prompt, *question.request.answer_prefix]
            out = model.generate(
                torch.tensor([ids]),
                max_new_tokens=question.length,
                do_sample=False,
                pad_token_id=0,
            )
            texts.append(tokenizer.decode(out[0, len(ids) :]))
        return texts

    return answer


def stock(model: Any, tokenizer: Any) -> Answer:
    """HuggingFacePipeline by hand, a thread per user, told the longest length beforehand."""
    wrapped = HuggingFacePipeline(
        pipeline=pipeline("text-generation", model=model, tokenizer=tokenizer)
    )

    def answer(questions: Sequence[Question]) -> list[str]:
        def one(question: Question) -> str:
            arguments = {"max_new_tokens": question.length, "do_sample": False, "pad_token_id": 0}
            # At the call, because it ignores its own field of that name.
            text = f"{question.text} {question.guidance}"
            return wrapped.invoke(text, pipeline_kwargs=arguments, skip_prompt=True)

        with ThreadPoolExecutor(len(questions)) as pool:
            return list(pool.map(one, questions))

    return answer


def ours(engine: Engine, *, fixed_length: bool = False) -> Answer:
    """Ask the engine everything at once.

    Args:
        engine: The engine.
        fixed_length: Whether to give the lengths instead of stop strings: other weights may
            write other texts, but must write as much.

    Returns:
        What answers questions.
    """

    def answer(questions: Sequence[Question]) -> list[str]:
        requests = [question.request for question in questions]
        if fixed_length:
            requests = [replace(q.request, stop=(), max_tokens=q.length) for q in questions]
        return asyncio.run(answer_all(engine, requests))

    return answer


def resident_bytes() -> int:
    """Return this process' memory in use, or 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
