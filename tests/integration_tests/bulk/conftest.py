"""A small Ray on this machine, for all tests of this folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.bulk import BilledTeacher, LoggedStudent, read_lines

from langchain_gkt import GuidedKnowledgeTransferChain

ray = pytest.importorskip(
    "ray.data", reason='bulk inference needs Ray Data: pip install "langchain-gkt[ray]"'
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.filterwarnings("ignore"))  # Ray's own, of many kinds


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    import ray

    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # so that actors find `support`
    ray.init(
        num_cpus=2,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="warning",
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.default_hash_shuffle_parallelism = 2
    yield ray
    ray.shutdown()


@dataclass
class Job:
    """A chain whose models write into a folder."""

    folder: Path

    @property
    def asked(self) -> list[str]:
        """Prompts that the teacher billed, in order."""
        return [line["prompt"] for line in read_lines(self.folder / "ledger")]

    @property
    def finished(self) -> list[str]:
        """Prompts that the student saw."""
        return [line["prompt"] for line in read_lines(self.folder / "log")]

    def chain(
        self, *, seconds: float = 0.05, student_seconds: float = 0.0, **fields: Any
    ) -> GuidedKnowledgeTransferChain:
        return GuidedKnowledgeTransferChain(
            teacher=BilledTeacher(ledger=str(self.folder / "ledger"), seconds=seconds),
            student=LoggedStudent(log=str(self.folder / "log"), seconds=student_seconds),
            **{"guidance_tokens": 4, **fields},
        )


@pytest.fixture
def job(tmp_path: Path, cluster: Any) -> Job:
    return Job(tmp_path)
