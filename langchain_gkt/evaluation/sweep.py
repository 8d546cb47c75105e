"""sweep(): accuracy and cost by guidance length, for the price of one teacher-only run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.costs.prices import MachineTime, Prices
from langchain_gkt.costs.scenarios import BillingScenario
from langchain_gkt.evaluation.results.sweep_result import Sweep
from langchain_gkt.evaluation.running.async_to_sync import async_to_sync
from langchain_gkt.evaluation.running.progress import ProgressBar
from langchain_gkt.evaluation.running.recorded import recorded_splitter, require_recorded
from langchain_gkt.evaluation.running.records import SWEPT
from langchain_gkt.evaluation.running.run_settings import Billing, described
from langchain_gkt.evaluation.running.run_store import RunStore
from langchain_gkt.evaluation.running.sweep_runner import SweepRunner
from langchain_gkt.evaluation.running.teacher_pass import teacher_pass
from langchain_gkt.evaluation.tasks.task import Task
from langchain_gkt.gates import Gate
from langchain_gkt.prompts.base import for_tokens
from langchain_gkt.students.protocol import student_of
from langchain_gkt.teachers.token_cuts import TokenSplitter, token_splitter
from langchain_gkt.teachers.wrappers import models_of, resolve

_DEFAULT_LENGTHS = 12


ReusedRun: TypeAlias = tuple[RunStore, Sequence[str]]
"""A sweep, and the modes whose answers to reuse: ``teacher`` only if it got the same prompt."""


@dataclass(frozen=True, kw_only=True)
class SweepSettings(Billing):
    """Arguments of `asweep` that several sweeps may share. See there."""

    lengths: Sequence[int] | int | None = None
    teacher_tokenizer: Any = None
    check_lengths: Sequence[int] = ()
    check_rows: int = 20
    concurrency: int = 8
    progress: bool | None = None
    teacher_from: str | Path | None = None
    gates: Sequence[Gate] = ()


async def asweep(
    chain: GuidedKnowledgeTransferChain,
    task: Task,
    *,
    lengths: Sequence[int] | int | None = None,
    teacher_price: Prices = None,
    student_price: Prices | MachineTime = None,
    tier: str | None = None,
    scenario: BillingScenario | None = None,
    teacher_tokenizer: Any = None,
    check_lengths: Sequence[int] = (),
    check_rows: int = 20,
    out: str | Path | None = None,
    concurrency: int = 8,
    progress: bool | None = None,
    teacher_from: str | Path | None = None,
    gates: Sequence[Gate] = (),
) -> Sweep:
    """Answer the same questions with guidance of many lengths, from one answer of the teacher.

    The teacher answers each question once, to the end. Every shorter guidance is cut from that
    answer at the boundaries of the teacher's own tokens. So a sweep costs one teacher-only run, and
    the student's time. The tokens are those that the provider reports (``logprobs``), else those of
    the teacher's tokenizer, else approximate. The result says which. A second request would give
    the cut guidance only if the teacher repeats itself, at temperature 0.

    The teacher gets the chain's ``teacher_prompt``, also where it answers alone. If that prompt
    names a number of tokens, it is the chain's ``guidance_tokens`` for all lengths.

    If a sweep was interrupted, even by ``kill -9``, the same call continues it.

    Args:
        chain: The guided pair. Its ``guidance`` policy says where guidance is cut.
            If it has no ``max_tokens`` or ``stop``, the task's are used.
        task: The questions. See `load_task` and `Task`.
        lengths: Guidance lengths in the teacher's tokens. A number for every length from 0 up to
            it. None for a dozen up to the chain's ``guidance_tokens``. 0 is always included.
        teacher_price: As for `CostTracker`.
        student_price: As for `CostTracker`.
        tier: As for `CostTracker`, such as ``batch`` for calls at that price.
        scenario: As for `CostTracker`. The common beginning of all prompts is measured.
        teacher_tokenizer: The teacher's Hugging Face tokenizer, or a function from a text to its
            tokens' texts. None if the teacher reports its tokens or is a local model.
        check_lengths: Lengths at which to really ask the teacher again, to check that it writes the
            cut guidance. This costs money.
        check_rows: For how many questions to check.
        out: The run's folder. None to keep nothing.
        concurrency: Maximum number of questions at the same time.
        progress: Whether to show a progress bar. None to show it in a terminal only.
        teacher_from: The folder of another sweep whose teacher got the same questions in the same
            way, such as one with another student. Its answers are reused. You pay only for rows
            that it lacks.
        gates: Gates whose signals to measure for each question, besides the student's first tokens.
            ``Sweep.choose(gate=...)`` then finds the threshold of one.

    Returns:
        The sweep. Its `Sweep.choose` names the cheapest length that is good enough.

    Raises:
        ValueError: If an argument makes no sense, or ``out`` holds a run of other settings.
        RuntimeError: If every question fails, or another process writes to ``out``.
    """
    settings = SweepSettings(
        lengths=lengths,
        teacher_price=teacher_price,
        student_price=student_price,
        tier=tier,
        scenario=scenario,
        teacher_tokenizer=teacher_tokenizer,
        check_lengths=check_lengths,
        check_rows=check_rows,
        concurrency=concurrency,
        progress=progress,
        teacher_from=teacher_from,
        gates=gates,
    )
    return await sweep_from((), chain, task, out, settings)


async def sweep_from(
    reused: Sequence[ReusedRun],
    chain: GuidedKnowledgeTransferChain,
    task: Task,
    out: str | Path | None,
    settings: SweepSettings,
) -> Sweep:
    """Do what `asweep` does, and reuse the answers of sweeps of the same questions and models."""
    chosen = _lengths(settings.lengths, chain.guidance_tokens)
    if bad := [length for length in settings.check_lengths if length < 1]:
        raise ValueError(f"check_lengths must be 1 or more, not {bad[0]}")
    answer_of = chain.answer_of
    if "answer_of" not in chain.model_fields_set and task.answer_of is not None:
        answer_of = task.answer_of
    gates = [gate.reading(answer_of) for gate in settings.gates]
    _refuse_alike(gates)
    for gate in gates:
        gate.require(student_of(chain.student))
    chain = _to_sweep(chain, chosen)
    folder = RunStore(out)
    # Replies that are not streamed report their tokens more reliably.
    chain = chain.model_copy(update={"disable_streaming": True})
    runner = SweepRunner(chain, task, folder, settings, settings.concurrency, gates=gates)
    require_recorded(chain, runner.prompts, check_lengths=settings.check_lengths)
    made_with = runner.settings
    made_with["chain"].pop("guidance_tokens")  # a sweep varies it
    if settings.teacher_from is not None:
        known_pass = teacher_pass(settings.teacher_from, made_with, runner.keys)
        if known_pass is not None:
            reused = [*reused, (known_pass, ["teacher"])]
    if settings.gates:
        made_with["gates"] = [described(gate) for gate in gates]
    runner.splitter = _splitter(settings.teacher_tokenizer, chain.teacher)
    with (
        folder.writing("sweep", made_with, runner.questions, runner.about),
        ProgressBar(settings.progress) as bar,
    ):
        runner.load()
        for run, modes in reused:
            for mode in modes:
                runner.reuse(run, mode=mode)
                if mode == "student":
                    for gate in gates:
                        runner.reuse(run, mode=gate.shown_as or mode)
        # New rows of the run get the lengths that the others have.
        known = {key.length for key in runner.answers if key.length}
        runner.lengths = sorted(known.union(chosen))
        await runner.run("teacher", await runner.teacher_jobs(), bar)
        await runner.run("student", runner.missing("student"), bar)
        await runner.run(SWEPT, runner.guided_jobs(), bar)
        if checks := runner.check_jobs(settings.check_lengths, settings.check_rows):
            await runner.run("check", checks, bar, gives_up=False)
    return replace(Sweep.of(folder), teacher_prompt=chain.teacher_prompt)


def _refuse_alike(gates: Sequence[Gate]) -> None:
    """Refuse two gates that have the student answer and use the same signal names."""
    kinds = Counter(gate.kind for gate in gates if gate.shown_as is not None)
    if twice := [kind for kind, count in kinds.items() if count > 1]:
        raise ValueError(
            f"gates holds {kinds[twice[0]]} gates of the kind {twice[0]!r}, whose signals have the "
            "same names; sweep with one of them, and with the other into another folder"
        )


def _to_sweep(
    chain: GuidedKnowledgeTransferChain, lengths: Sequence[int]
) -> GuidedKnowledgeTransferChain:
    """Make a chain always ask, and its teacher prompt name one number of tokens.

    One reply serves all lengths, so the prompt cannot name each of them.
    """
    prompt, update = chain.teacher_prompt, dict[str, Any]()
    if chain.guidance is not None:
        prompt = chain.guidance.teacher_prompt or prompt
        # The sweep finds out whether to ask.
        asking: dict[str, Any] = {"ask": "always", "predictor": None, "gate": None, "ladder": None}
        update["guidance"] = replace(chain.guidance, **asking, teacher_prompt=None)
    update["teacher_prompt"] = for_tokens(prompt, chain.guidance_tokens or max(1, *lengths))
    return chain.model_copy(update=update)


def _lengths(lengths: Sequence[int] | int | None, longest: int) -> list[int]:
    if lengths is None:
        count = min(_DEFAULT_LENGTHS, longest)
        lengths = [round(longest * i / max(1, count)) for i in range(count + 1)]
    elif isinstance(lengths, int):
        lengths = range(lengths + 1)
    bad = [n for n in lengths if not isinstance(n, int) or isinstance(n, bool) or n < 0]
    if bad or not lengths:
        raise ValueError(f"lengths must be whole numbers, 0 or more, not {bad or lengths!r}")
    return sorted({0, *lengths})


def _splitter(tokenizer: Any, teacher: Any) -> TokenSplitter | None:
    if tokenizer is None:
        from langchain_gkt.students.huggingface import HuggingFaceStudent  # imports torch

        # A local teacher has its own.
        first, *others = models_of(resolve(teacher, None))
        if isinstance(first, HuggingFaceStudent) and not others:
            tokenizer = first._loader.load().prompts.tokenizer
    if tokenizer is None:
        return recorded_splitter(teacher)
    if hasattr(tokenizer, "decode") and callable(tokenizer):
        return token_splitter(tokenizer)
    if callable(tokenizer):
        return lambda text: list(tokenizer(text))
    raise TypeError(
        "teacher_tokenizer must be a Hugging Face tokenizer or a function from a text to its "
        f"tokens' texts, not {type(tokenizer).__name__}"
    )


sweep = async_to_sync(asweep, "sweep")
