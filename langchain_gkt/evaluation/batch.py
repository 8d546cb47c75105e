"""A sweep's teacher-only pass through the batch endpoint, at the batch price."""

from __future__ import annotations

from pathlib import Path

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.chain.steps.batch_request import teacher_request
from langchain_gkt.evaluation.tasks.task import Task
from langchain_gkt.teachers.batch_files import write_requests
from langchain_gkt.teachers.wrappers import models_of


def write_batch(chain: GuidedKnowledgeTransferChain, task: Task, path: str | Path) -> list[Path]:
    """Write the teacher requests of a `sweep`, a whole answer per question, to a batch file.

    Read the results with ``RecordedTeacher.from_file(results, requests=path)``. Give that teacher
    to the chain and ``tier="batch"`` to `sweep`.

    Args:
        chain: The guided pair. If it has no ``max_tokens`` or ``stop``, the task's are used.
        task: The questions.
        path: The file, of JSON lines. Further files are written beside it if one is too small.

    Raises:
        ValueError: If the file already exists.
        NotSupportedError: If the teacher does not speak OpenAI's chat completions.
    """
    stop = chain.stop if chain.stop is not None else list(task.stop) or None
    chain = chain.model_copy(
        update={"max_tokens": chain.max_tokens or task.max_tokens, "stop": stop}
    )
    arguments = {"mode": "teacher", "teacher_prompt": chain.teacher_prompt}
    settings = CallSettings.of(chain, None, None, arguments, set())
    models = list(models_of(settings.teacher))
    asks = all("logprobs" in type(model).model_fields for model in models)
    further = {"logprobs": True} if asks and getattr(models[0], "logprobs", None) is None else {}
    rows = enumerate(task.rows)
    return write_requests(
        path,
        (
            (task.row_key(i), teacher_request(settings, task.prompt(row), **further))
            for i, row in rows
        ),
    )
