"""A job: Ray itself, the job's actor, and its bill."""

from __future__ import annotations

import uuid
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from langchain_gkt.bulk.controller import JobController, JobSettings, bill_of
from langchain_gkt.bulk.options import BulkOptions
from langchain_gkt.bulk.store import FILE, GuidanceStore
from langchain_gkt.costs.totals import UsageTotals


def import_ray() -> Any:
    """Import Ray with its data library, or say how to install it."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(
            f'bulk inference needs Ray Data: pip install "langchain-gkt[ray]" ({error})'
        ) from error
    return ray


def actor_name(job: str) -> str:
    """Return the name of a job's actor."""
    return f"langchain_gkt.bulk:{job}"


def job_report(job: str) -> dict[str, Any]:
    """Return the bill of a job of this driver, which may be running.

    Args:
        job: The name in ``guide_dataset(..., job=)``.

    Returns:
        See `JobController.report`.

    Raises:
        ValueError: If there is no such job. It ends with the last of its datasets.
    """
    ray = import_ray()
    try:
        controller: Any = ray.get_actor(actor_name(job))
    except ValueError:
        raise ValueError(
            f"no job={job!r} is alive: it ends with its datasets. Of a job with a checkpoint, "
            "read_report(folder) returns the bill"
        ) from None
    report: dict[str, Any] = ray.get(controller.report.remote())
    return report


def read_report(checkpoint: str | Path) -> dict[str, Any]:
    """Return the bill of all sessions of a job, running or not.

    Returns:
        ``teacher``, ``student``, ``in_flight`` and ``lost_calls`` of `JobController.report`.

    Raises:
        FileNotFoundError: If it is not such a folder.
    """
    if not (Path(checkpoint) / FILE).is_file():
        raise FileNotFoundError(
            f"checkpoint={str(checkpoint)!r} holds no {FILE}: it is not the folder of a bulk job"
        )
    totals = {"teacher": UsageTotals(), "student": UsageTotals()}
    with closing(GuidanceStore(checkpoint, run=None)) as store:
        for role, bill in store.bills():
            totals[role].add(bill)
        return bill_of(store, totals)


def start_controller(options: BulkOptions) -> Any:
    """Start the job's actor, or find that of the same job.

    Returns:
        The handle of its `JobController`.

    Raises:
        RuntimeError: If the checkpoint cannot be opened.
        ValueError: If the job is running with other settings.
    """
    ray = import_ray()
    checkpoint = str(Path(options.checkpoint).resolve()) if options.checkpoint else None
    job = options.job or checkpoint or uuid.uuid4().hex
    settings = JobSettings(
        budget=options.budget,
        requests_per_minute=options.requests_per_minute,
        tokens_per_minute=options.tokens_per_minute,
        checkpoint=checkpoint,
        stable_rows=options.id_column is not None,
        run=uuid.uuid4().hex,
    )
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    # Without a folder a restarted actor would have forgotten what was paid for.
    retries = -1 if checkpoint else 0
    controller = (
        ray.remote(JobController)
        .options(
            name=actor_name(job),
            get_if_exists=True,
            num_cpus=0,
            max_restarts=retries,
            max_task_retries=retries,
            scheduling_strategy=here,  # the folder is on this machine
        )
        .remote(settings)
    )
    try:
        begun_with = ray.get(controller.settings.remote())
    except ray.exceptions.RayActorError as error:
        # The actor's own error from opening the checkpoint.
        lines = [line for line in str(error).splitlines() if "checkpoint=" in line]
        raise RuntimeError((lines or [str(error)])[0].strip()) from error
    if replace(settings, run=begun_with.run) != begun_with:
        raise ValueError(
            f"job={job!r} is running with other limits, budget or checkpoint; give the same, or "
            "another job="
        )
    return controller
