"""load_task(): the tasks that this package knows by name."""

from __future__ import annotations

import difflib
from os import PathLike

from pydantic import TypeAdapter

from langchain_gkt.evaluation.tasks import readers
from langchain_gkt.evaluation.tasks.benchmarks import BENCHMARKS
from langchain_gkt.evaluation.tasks.task import Count, Example, Natural, Style, Task
from langchain_gkt.evaluation.tasks.word_problems import GUIDANCE_TOKENS, drawn, sample
from langchain_gkt.evaluation.validation import check

_STYLE: TypeAdapter[Style] = TypeAdapter(Style)
_COUNT, _NATURAL = TypeAdapter(Count), TypeAdapter(Natural)
_STOP: dict[Style, tuple[str, ...]] = {"chat": (), "text": ("\nQ:",)}


def load_task(
    name: str,
    *,
    data: str | PathLike[str] | None = None,
    rows: int | None = None,
    seed: int | None = None,
    shots: int | None = None,
    style: Style = "chat",
    exemplars: str | PathLike[str] | None = None,
    reference: bool = False,
) -> Task:
    """Load a known task.

    Args:
        name: ``gsm8k``, ``csqa``, ``aqua`` or ``word_problems``.
        data: A file in the publisher's format: JSON lines, or a JSON list. With None, the
            ``datasets`` package downloads the usual test rows.
        rows: Maximum number of rows. None for all of them (``word_problems`` has 500).
        seed: Takes a random sample, always the same for the same seed, in the order of the file.
            None for the first rows.
        shots: How many worked examples to show. None: 8 (``gsm8k``), 7 (``csqa``) or 4
            (``aqua``), as in the paper. With 0, an instruction names the form of the answer.
        style: ``chat`` or ``text``. See `Task`.
        exemplars: A file of worked examples instead of the package's own. See
            `langchain_gkt.evaluation.tasks.readers.read_exemplars`.
        reference: Whether to judge as the paper's code does too, under ``reference``. For options
            it finds only "The answer is B", the form of the package's own examples.

    Raises:
        FileNotFoundError: If a file does not exist.
        ImportError: If ``data`` is None and the ``datasets`` package is missing.
        OSError: If ``data`` is None and the hub cannot deliver.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument or a row has a meaningless value.
    """
    known = [*BENCHMARKS, "word_problems"]
    wanted = str(name).strip().lower().replace("-", "_")
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no task {name!r} among {', '.join(known)}{hint}")
    check(_STYLE, style, "style")
    if rows is not None:
        check(_COUNT, rows, "rows")
    if shots is not None:
        check(_NATURAL, shots, "shots")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise TypeError(f"seed must be an int or None, not {type(seed).__name__}")
    if wanted == "word_problems":
        for argument, value in (("data", data), ("exemplars", exemplars), ("shots", shots or None)):
            if value is not None:
                raise ValueError(
                    f"word_problems brings its rows and shows no examples: drop {argument}"
                )
        return _word_problems(rows, seed, style, reference)
    benchmark = BENCHMARKS[wanted]
    pairs = (
        readers.own_exemplars(wanted) if exemplars is None else readers.read_exemplars(exemplars)
    )
    shots = benchmark.shots if shots is None else shots
    if shots > len(pairs):
        source = "the package brings" if exemplars is None else "the file of exemplars holds"
        raise ValueError(
            f"shots={shots} is too many: {source} {len(pairs)}; give shots={len(pairs)}"
        )
    published = readers.hub_rows(*benchmark.hub) if data is None else readers.read_rows(data)
    problems = drawn([benchmark.read(row) for row in published], seed, rows)
    others = ("strict", "flexible", "reference") if reference else ("strict", "flexible")
    return Task(
        wanted,
        problems,
        benchmark.metrics["answer"],
        more_metrics={other: benchmark.metrics[other] for other in others},
        leaks=benchmark.leaks,
        examples=[Example(*pair) for pair in pairs[:shots]],
        style=style,
        instruction=None if shots else benchmark.zero_shot,
        guidance_tokens=benchmark.guidance_tokens,
        max_tokens=benchmark.max_tokens,
        stop=_STOP[style],
        answer_of=benchmark.answer_of,
        source={
            "data": "hub" if data is None else str(data),
            "rows": rows,
            "seed": seed,
            "exemplars": None if exemplars is None else str(exemplars),
        },
    )


def _word_problems(rows: int | None, seed: int | None, style: Style, reference: bool) -> Task:
    problems, numbers = sample(seed, rows), BENCHMARKS["gsm8k"]
    return Task(
        "word_problems",
        [{"question": p.question, "answer": p.answer, "solution": p.solution} for p in problems],
        numbers.metrics["strict"],
        more_metrics={"reference": numbers.metrics["reference"]} if reference else {},
        leaks=numbers.leaks,
        style=style,
        guidance_tokens=GUIDANCE_TOKENS,
        max_tokens=120,
        stop=_STOP[style],
        answer_of="number",
        source={"rows": rows, "seed": seed},
    )
