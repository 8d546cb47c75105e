"""A bulk job whose student is vLLM on this processor: ``python bulk_vllm.py FOLDER MODEL ROWS``.

Killed and started again with the same folder it goes on. At its end it writes ``result.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import ray
from ray.data.checkpoint import CheckpointConfig
from ray.data.llm import vLLMEngineProcessorConfig

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt.bulk import guide_dataset, read_report
from support.bulk import PRICE, BilledTeacher, LoggedStudent

_ENGINE = {"enforce_eager": True, "max_model_len": 512, "max_num_seqs": 8, "dtype": "bfloat16"}


def _prompt(number: int) -> str:
    return f"Tell me of the number {number}." + (" Then finish." if number % 4 == 3 else "")


def main(folder: Path, model: str, count: int) -> None:
    """Run the job to its end.

    Args:
        folder: Where it keeps everything.
        model: The folder of the student.
        count: How many rows.
    """
    ray.init(num_cpus=4, object_store_memory=200 * 2**20, include_dashboard=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.checkpoint_config = CheckpointConfig(
        id_column="id", checkpoint_path=str(folder / "written"), delete_checkpoint_on_success=False
    )
    if not (folder / "questions").exists():
        (folder / "questions").mkdir()
        rows = [{"id": n, "prompt": _prompt(n), "model": "gpt-4o"} for n in range(count)]
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, folder / "questions" / "all.parquet")
    chain = GuidedKnowledgeTransferChain(
        teacher=BilledTeacher(
            ledger=str(folder / "ledger"), seconds=1.0, held_by=str(folder / "answers")
        ),
        student=LoggedStudent(log=str(folder / "log")),
        guidance_tokens=4,
        max_tokens=40,
    )
    guide_dataset(
        ray.data.read_parquet(str(folder / "questions")),
        chain,
        prompt_column="prompt",
        teacher_price=PRICE,
        calls_in_flight=4,
        rows_per_block=4,
        checkpoint=folder / "checkpoint",
        id_column="id",
        processor=vLLMEngineProcessorConfig(
            model_source=model,
            batch_size=4,
            max_concurrent_batches=1,
            log_engine_metrics=False,
            placement_group_config={"bundle_per_worker": {"CPU": 1}},
            engine_kwargs=_ENGINE,
        ),
    ).write_parquet(str(folder / "answers"))
    ray.shutdown()
    answers = pyarrow.parquet.read_table(folder / "answers").to_pylist()
    result = {"rows": answers, "report": read_report(folder / "checkpoint")}
    (folder / "result.json").write_text(json.dumps(result, default=str))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
