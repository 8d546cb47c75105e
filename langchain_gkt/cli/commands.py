"""The work of each command, once its options are read."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from langchain_gkt import AgreementGate, evaluation, track_costs
from langchain_gkt.cli.errors import existing_file, naming, writable_folder
from langchain_gkt.cli.models import open_chain, prices, read_price
from langchain_gkt.cli.options import (
    EvaluationModelOptions,
    ModelOptions,
    SweepOptions,
    TaskOptions,
)
from langchain_gkt.cli.recorded import RecordedOptions, read_recorded
from langchain_gkt.costs import scenarios_of
from langchain_gkt.demo import pair
from langchain_gkt.evaluation.results.base import EvaluationResult
from langchain_gkt.evaluation.tasks.word_problems import GUIDANCE_TOKENS, is_word_problem
from langchain_gkt.modes import Mode


def answer(question: str, models: ModelOptions, *, mode: Mode) -> None:
    """Answer one question, and print the answer and its costs."""
    if question == "-":
        question = sys.stdin.read()
    if not question.strip():
        raise ValueError("QUESTION is empty; give a question, or - and one on standard input")
    model_prices = prices(models)
    with open_chain(models) as chain, track_costs(**model_prices) as costs:
        gkt: dict[str, Any] = {}
        for chunk in chain.stream(question, mode=mode):
            sys.stdout.write(str(chunk.text))
            sys.stdout.flush()
            gkt = chunk.response_metadata.get("gkt", gkt)
    sys.stdout.write("\n\n")
    if gkt["guidance"]:
        sys.stdout.write(f"guidance ({gkt['guidance_tokens']} tokens): {gkt['guidance']}\n\n")
    sys.stdout.write(f"{costs.report()}\n")
    if "demo" in (models.teacher, models.student) and not is_word_problem(question):
        sys.stdout.write(f"\n{pair.TOYS} Try: {pair.QUESTION}\n")


def demo(models: EvaluationModelOptions, task: TaskOptions, *, out: Path) -> None:
    """Show a pair at work."""
    from langchain_gkt.demo.run import run_demo, show_demo  # needs the extra 'demo'

    writable_folder(out)
    embedded = models == EvaluationModelOptions(guidance_tokens=models.guidance_tokens)
    if embedded and task == TaskOptions(rows=task.rows, seed=task.seed):
        tokens, seed = models.guidance_tokens, task.seed
        run_demo(
            rows=60 if task.rows is None else task.rows,
            guidance_tokens=GUIDANCE_TOKENS if tokens is None else tokens,
            seed=7 if seed is None else seed,
            out=out,
        )
        return
    loaded = _load_task(replace(task, rows=20 if task.rows is None else task.rows))
    model_prices = prices(models)
    with open_chain(models, task_guidance_tokens=loaded.guidance_tokens) as chain:
        show_demo(chain, loaded, out=out, **model_prices)


def compare(
    models: ModelOptions, task: TaskOptions, *, modes: str, out: Path, concurrency: int
) -> None:
    """Run a comparison, print its report and write it."""
    writable_folder(out)
    loaded, model_prices = _load_task(task), prices(models)
    chosen: Any = [mode.strip() for mode in modes.split(",") if mode.strip()]
    with open_chain(models, task_guidance_tokens=loaded.guidance_tokens) as chain:
        comparison = evaluation.compare(
            chain, loaded, modes=chosen, out=out, concurrency=concurrency, **model_prices
        )
    _save_and_print(comparison)


def sweep(
    options: SweepOptions,
    models: ModelOptions,
    task: TaskOptions,
    recorded: RecordedOptions,
    *,
    out: Path,
    concurrency: int,
) -> None:
    """Run a sweep, print its report, and write it and its choices as policies."""
    writable_folder(out)
    live = {"--check-lengths": options.check_lengths}
    live |= {"--teacher-tokenizer": options.teacher_tokenizer or ""}
    teacher = read_recorded(recorded, models, **live)
    loaded, model_prices, tokenizer = _load_task(task), prices(models, teacher), None
    lengths = _numbers(options.lengths, "--lengths") if options.lengths else None
    if options.teacher_tokenizer or (models.teacher == "demo" and teacher is None):
        from transformers import AutoTokenizer

        with naming(teacher_tokenizer=options.teacher_tokenizer):
            tokenizer = AutoTokenizer.from_pretrained(
                options.teacher_tokenizer or pair.TEACHER, trust_remote_code=False
            )
    policies = _policies(options.policies) if options.policies else None
    if policies is not None and (models.guidance or models.teacher_prompt):
        raise ValueError("--policies takes the place of --guidance and --teacher-prompt; drop them")
    gates = []
    if samples := options.agreement:
        gates.append(AgreementGate(samples=samples, at_least=samples // 2 + 1))
    arguments: dict[str, Any] = {
        "lengths": lengths[0] if lengths and len(lengths) == 1 else lengths,
        "teacher_tokenizer": tokenizer,
        "check_lengths": _numbers(options.check_lengths, "--check-lengths"),
        "gates": gates,
        "out": out,
        "concurrency": concurrency,
        **model_prices,
    }
    result: evaluation.Sweep | evaluation.PolicySweep
    tokens = loaded.guidance_tokens
    with open_chain(models, task_guidance_tokens=tokens, teacher=teacher) as chain:
        if policies is None:
            result = evaluation.sweep(chain, loaded, **arguments)
        else:
            result = evaluation.sweep_policies(chain, loaded, policies, **arguments)
    result = replace(result, max_loss=options.max_loss)
    _save_and_print(result)
    files = {"fixed length": "policy.json", "gated length": "policy-gated.json"}
    chosen: dict[str, Any] = {
        files.get(name, f"policy-{name}.json"): choice for name, choice in result.choices().items()
    }
    if not chosen:
        sys.stdout.write("\nNo policy was written: choosing takes 4 rows or more.\n")
    elif isinstance(result, evaluation.Sweep):
        if not isinstance(result.per_question, str):
            chosen["policy-predictor.json"] = result.per_question
        chosen["policy-any.json"] = result.any_way
    for name, choice in chosen.items():
        choice.policy.save(out / name)
        sys.stdout.write(f"\n{out / name}: {choice}\n")


def report(
    run: Path,
    *,
    format: str,
    max_loss: float,
    out: Path | None,
    bill: tuple[str | None, bool, bool] = (None, False, False),
) -> None:
    """Rebuild the report of a run, and print it.

    ``bill`` is the teacher's price, and whether to assume a cached prefix, and a batch.
    """
    writable_folder(out)
    result = evaluation.load_run(str(run))
    if isinstance(result, evaluation.Sweep | evaluation.PolicySweep):
        result = replace(result, max_loss=max_loss)
    shown: Any = result
    if price := read_price(bill[0], "--prices"):
        with naming(prices=bill[0]):
            ways = scenarios_of(price, cached_prefix=bill[1], batch=bill[2])
        shown = evaluation.ScenarioReport.of(result, ways)
    files = shown.save(out or run)
    if format == "html":
        text = _html_page(files).read_text(encoding="utf-8")
    else:
        text = shown.markdown() if format == "markdown" else str(shown)
    sys.stdout.write(f"{text}\n")


def _save_and_print(run: EvaluationResult) -> None:
    sys.stdout.write(f"{run}\n\nReport: {_html_page(run.save())}\n")


def _html_page(files: list[Path]) -> Path:
    return next(file for file in files if file.suffix == ".html")


def _load_task(options: TaskOptions) -> evaluation.Task:
    for name in ("data", "exemplars"):
        if (path := getattr(options, name)) is not None:
            existing_file(path, f"--{name}")
    arguments = asdict(options)
    with naming(data=options.data, exemplars=options.exemplars):
        return evaluation.load_task(arguments.pop("task"), **arguments)


def _policies(file: Path) -> dict[str, Any]:
    try:
        policies = json.loads(existing_file(file, "--policies").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--policies {file} is no JSON: {error}") from error
    if not isinstance(policies, dict):
        raise ValueError(f"--policies {file} must hold an object that maps names to policies")
    return policies


def _numbers(text: str, name: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ValueError(f"{name} must be numbers such as 8,16,24, not {text!r}") from error
