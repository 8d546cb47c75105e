"""Measure everything in one process and print one table: ``make bench``."""

from __future__ import annotations

import argparse
import asyncio
import copy
import datetime
import gc
import json
import platform
import resource
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from langchain_core.messages import AIMessage, HumanMessage
from rich.console import Console
from rich.table import Table
from transformers.utils import logging as transformers_logging

from benchmarks import baselines
from benchmarks.instant import InstantModel
from benchmarks.workloads import (
    GUIDANCE_TOKENS,
    STUDENT,
    TEACHER,
    Question,
    make_engine,
    make_model,
    make_questions,
    make_tokenizer,
    size_of,
    with_endings,
)
from langchain_gkt import GuidedKnowledgeTransferChain, HuggingFaceStudent
from langchain_gkt.demo.pair import STUDENT as EMBEDDED
from langchain_gkt.evaluation.scoring import extract_number
from langchain_gkt.evaluation.tasks.word_problems import sample
from langchain_gkt.students.engine.engine import Engine, Request
from langchain_gkt.students.engine.int8 import quantize

TARGETS = {
    ("zero-shot", "float32"): 10.0,
    ("few-shot", "float32"): 10.0,
    ("zero-shot", "int8"): 25.0,
    ("few-shot", "int8"): 15.0,
}


def compare(
    model: Any, small: Any, tokenizer: Any, *, shared: bool, count: int, repeats: int
) -> tuple[dict[str, Any], list[Question]]:
    """Compare ours with the baselines on the same questions, interleaved.

    Args:
        model: The student.
        small: The same student in int8.
        tokenizer: Their tokenizer.
        shared: Whether the questions begin with the same worked examples.
        count: How many questions.
        repeats: How often everything is run.

    Returns:
        What the JSON holds of it, and the questions with their answers.
    """
    engine = make_engine(model, tokenizer)
    questions = make_questions(tokenizer, count, shared=shared)
    questions = with_endings(engine, tokenizer, questions, shortest=60, longest=200)
    engine.close()
    names = ("paper", "generate", "stock", "float32", "int8")
    results = {name: baselines.Times() for name in names}
    paper, generate = baselines.paper(model, tokenizer), baselines.generate(model, tokenizer)
    for repeat in range(repeats):
        few = questions[4 * repeat :][:4]
        # A cold engine each time: the first question pays for the shared prefix.
        engines = {"float32": make_engine(model, tokenizer), "int8": make_engine(small, tokenizer)}
        baselines.measure(results["paper"], paper, few[:1], exact=True)
        baselines.measure(results["generate"], generate, few, exact=True)
        if repeat == 0:
            stock = baselines.stock(model, tokenizer)
            baselines.measure(results["stock"], stock, questions[:16], exact=True)
        for name, engine in engines.items():
            exact = name == "float32"
            answer = baselines.ours(engine, fixed_length=not exact)
            baselines.measure(results[name], answer, questions, exact=exact)
            engine.close()
    base = median(results["paper"].cpu)
    return {
        name: times.summary() | {"times_faster_than_paper": base / median(times.cpu)}
        for name, times in results.items()
    } | {"mean_answer_tokens": sum(q.length for q in questions) / count}, questions


def users_at_once(model: Any, tokenizer: Any, questions: list[Question]) -> dict[str, Any]:
    """Measure throughput and memory with 1, 4, 16 and 64 users, each asking once."""
    found = {}
    for users in (1, 4, 16, 64):
        engine = make_engine(model, tokenizer, users)
        asked = [questions[i % len(questions)] for i in range(users)]
        peak = {"kv_bytes": 0, "rss": 0}
        ended = threading.Event()

        def watch(engine: Engine, peak: dict[str, int], ended: threading.Event) -> None:
            while not ended.wait(0.05):
                peak["kv_bytes"] = max(peak["kv_bytes"], engine.scheduler.stats()["kv_bytes"])
                peak["rss"] = max(peak["rss"], baselines.resident_bytes())

        watcher = threading.Thread(target=watch, args=(engine, peak, ended))
        before = baselines.resident_bytes()
        watcher.start()
        start = time.perf_counter()
        baselines.measure(baselines.Times(), baselines.ours(engine), asked, exact=True)
        seconds = time.perf_counter() - start
        ended.set()
        watcher.join()
        engine.close()
        found[str(users)] = {
            "tokens_per_s": sum(q.length for q in asked) / seconds,
            "kv_mib": peak["kv_bytes"] / 2**20,
            "memory_growth_mib": max(0, peak["rss"] - before) / 2**20,
        }
    return found


def warm_up(engine: Engine) -> None:
    """Let an engine find out how its model can be run."""
    list(engine.generate(Request(prompt=[1], answer_prefix=[], max_tokens=1), threading.Event()))


def first_token(model: Any, tokenizer: Any, questions: list[Question]) -> dict[str, float]:
    """Measure seconds from the guidance's arrival to the student's first token."""

    def seconds(engine: Engine, question: Question) -> float:
        start = time.perf_counter()
        chunks = engine.generate(question.request, threading.Event())
        next(chunks)
        took = time.perf_counter() - start
        chunks.close()
        return took

    found: dict[str, list[float]] = {"cold": [], "prefix known": [], "prefilled ahead": []}
    for question, other in zip(questions[:5], questions[5:10], strict=True):
        engine = make_engine(model, tokenizer)
        warm_up(engine)
        found["cold"].append(seconds(engine, question))
        found["prefix known"].append(seconds(engine, other))
        with engine.prefill(questions[10].request.prompt) as ahead:
            while not ahead.done:
                time.sleep(0.01)
            found["prefilled ahead"].append(seconds(engine, questions[10]))
        engine.close()
    return {name: median(values) for name, values in found.items()}


def chain_overhead() -> dict[str, float]:
    """Measure milliseconds per call of a chain around two instant models, by users at once."""
    teacher, student = InstantModel(text="Two and two"), InstantModel(text=" make four.")
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, teacher_limit_param=None)
    found = {}
    # What torch has loaded is no garbage of the chain's. Scanning it would be counted per call.
    gc.collect()
    gc.freeze()
    for users in (1, 10, 100, 1000):

        async def gathered(users: int) -> None:
            await asyncio.gather(*(chain.ainvoke("2 + 2?") for _ in range(users)))

        times = []
        for _ in range(max(3, 30 // users)):
            start = time.perf_counter()
            asyncio.run(gathered(users))
            times.append((time.perf_counter() - start) / users * 1000)
        found[str(users)] = median(times)
    gc.unfreeze()
    return found


def embedded_accuracy(count: int) -> dict[str, Any]:
    """Measure the embedded student alone and after a guidance of a few words, by type."""
    problems = sample(5, count)
    found = {}
    for dtype in ("float32", "int8"):
        student = HuggingFaceStudent(model=EMBEDDED, dtype=dtype, max_tokens=160)
        right = {}
        for name, share in (("alone", 0.0), ("guided", 0.34)):
            begun = [
                p.solution[: int(len(p.solution) * share)].rpartition(" ")[0] for p in problems
            ]
            asked = [
                [HumanMessage(p.question), *([AIMessage(b)] if b else [])]
                for p, b in zip(problems, begun, strict=True)
            ]
            texts = [b + m.text for b, m in zip(begun, student.batch(asked), strict=True)]
            verdicts = [
                extract_number(t, "strict") == p.answer
                for t, p in zip(texts, problems, strict=True)
            ]
            right[name] = sum(verdicts) / count
        found[dtype] = right
        student.close()
    return found


def guided_over_teacher(
    student_model: Any, tokenizer: Any, question: Question, tokens: int
) -> dict[str, Any]:
    """Time guided answers against a teacher ten times the student's size, alone."""
    big = make_model(len(tokenizer), **TEACHER)
    teacher = HuggingFaceStudent(model=big, tokenizer=tokenizer, prefix_cache_bytes=0)
    student = HuggingFaceStudent(model=student_model, tokenizer=tokenizer)
    found: dict[str, Any] = {
        "teacher_weights": size_of(big),
        "student_weights": size_of(student_model),
    }
    for mode in ("teacher", "guided"):
        chain = GuidedKnowledgeTransferChain(
            teacher=teacher,
            student=student,
            guidance_tokens=GUIDANCE_TOKENS,
            max_tokens=tokens,
            mode=mode,
        )
        start = time.perf_counter()
        chain.invoke(question.text)
        found[f"{mode}_s"] = time.perf_counter() - start
    start = time.perf_counter()
    teacher.invoke(question.text, max_tokens=GUIDANCE_TOKENS)
    found["teacher_guidance_s"] = time.perf_counter() - start
    found["times_faster"] = found["teacher_s"] / found["guided_s"]
    # A student that took no time at all.
    found["bound"] = found["teacher_s"] / found["teacher_guidance_s"]
    teacher.close()
    student.close()
    return found


def table(results: dict[str, Any]) -> Table:
    """Lay the results out."""
    shown = Table(title="The student engine", show_lines=False)
    for name in ("what", "how", "result", "wanted"):
        shown.add_column(name, justify="right" if name == "result" else "left")
    for setting in ("zero-shot", "few-shot"):
        found = results[setting]
        for name in ("paper", "generate", "stock", "float32", "int8"):
            one, target = found[name], TARGETS.get((setting, name))
            label = {"float32": "ours, 16 rows", "int8": "ours, 16 rows, int8"}.get(name, name)
            cpu = one["cpu_s"]
            shown.add_row(
                setting,
                label,
                f"{one['times_faster_than_paper']:.1f}x  {cpu['median']:.2f} s "
                f"({cpu['min']:.2f}-{cpu['max']:.2f})",
                f">= {target:.0f}x" if target else "",
            )
        stock = found["stock"]["cpu_s"]["median"] / found["float32"]["cpu_s"]["median"]
        shown.add_row(setting, "ours over stock, 16 users", f"{stock:.1f}x", ">= 3x")
        same = found["int8"]["texts_agree"] / found["int8"]["texts"]
        shown.add_row(setting, "int8 texts as in float32", f"{same:.0%}", "")
    one = results["one_row_over_generate"]
    shown.add_row("batch of 1", "generate / ours", f"{one:.2f}x", ">= 0.97x")
    for setting, found in results["first_token_s"].items():
        for name, seconds in found.items():
            ratio = found["cold"] / seconds
            shown.add_row(
                f"first token, {setting}", name, f"{seconds * 1e3:.0f} ms  {ratio:.1f}x", ""
            )
    for users, found in results["growth"].items():
        text = f"{found['tokens_per_s']:.0f} tokens/s  {found['kv_mib']:.0f} MiB KV"
        shown.add_row("users at once, few-shot", users, text, "")
    for users, ms in results["chain_overhead_ms"].items():
        shown.add_row("chain around nothing", f"{users} calls", f"{ms:.2f} ms", "< 2 ms")
    for dtype, right in results["embedded_accuracy"].items():
        text = f"alone {right['alone']:.1%}, guided {right['guided']:.1%}"
        shown.add_row("embedded student right", dtype, text, "")
    head = results.get("headline")
    if head:
        text = f"{head['times_faster']:.2f}x ({head['teacher_s']:.1f} s / {head['guided_s']:.1f} s)"
        shown.add_row("guided over teacher alone", "10:1", text, f"bound {head['bound']:.2f}x")
    shown.add_row("peak memory", "whole process", f"{results['peak_memory_mib']:.0f} MiB", "")
    return shown


def one_row(model: Any, tokenizer: Any, questions: list[Question], repeats: int) -> float:
    """Return how many times as long `generate` takes for one row."""
    engine = Engine(model, tokenizer)
    warm_up(engine)
    generate, ours = baselines.Times(), baselines.Times()
    for at in range(repeats):
        question = sorted(questions, key=lambda q: q.length)[at]  # short ones: more pairs
        baselines.measure(generate, baselines.generate(model, tokenizer), [question], exact=True)
        baselines.measure(ours, baselines.ours(engine), [question], exact=True)
    engine.close()
    return median(a / b for a, b in zip(generate.cpu, ours.cpu, strict=True))


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("runs/bench.json"))
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--no-teacher", action="store_true", help="leave the 10:1 teacher out")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers_logging.set_verbosity_error()
    console = Console()
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer), **STUDENT)
    small = quantize(copy.deepcopy(model))
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, torch {torch.__version__}, {args.threads} thread(s)",
        "student_weights": size_of(model),
        "first_token_s": {},
    }
    for name, shared in (("zero-shot", False), ("few-shot", True)):
        console.log(f"{name}: the paper, generate, stock and ours, interleaved")
        found, questions = compare(
            model, small, tokenizer, shared=shared, count=args.questions, repeats=args.repeats
        )
        results[name] = found
        results["first_token_s"][name] = first_token(model, tokenizer, questions)
        if name == "zero-shot":
            results["one_row_over_generate"] = one_row(model, tokenizer, questions, 9)
    console.log("users, overhead and accuracy")
    results["growth"] = users_at_once(model, tokenizer, questions)
    results["chain_overhead_ms"] = chain_overhead()
    results["embedded_accuracy"] = embedded_accuracy(200)
    if not args.no_teacher:
        console.log("a teacher ten times as big")
        results["headline"] = guided_over_teacher(model, tokenizer, questions[0], tokens=140)
    results["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(table(results))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(results, indent=1) + "\n")
    console.log(f"written to {args.json}")


if __name__ == "__main__":
    main()
