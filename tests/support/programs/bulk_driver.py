"""A driver of its own, to be killed: ``python bulk_driver.py ADDRESS FOLDER ROWS``."""

from __future__ import annotations

import sys

import ray

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt.bulk import guide_dataset
from support.bulk import PRICE, BilledTeacher, LoggedStudent

if __name__ == "__main__":
    address, folder, rows = sys.argv[1:]
    ray.init(address=address, log_to_driver=False)
    chain = GuidedKnowledgeTransferChain(
        teacher=BilledTeacher(ledger=f"{folder}/ledger", seconds=0.2),
        student=LoggedStudent(log=f"{folder}/log"),
        guidance_tokens=4,
    )
    questions = ray.data.from_items([{"id": i, "q": f"question {i}"} for i in range(int(rows))])
    guide_dataset(
        questions,
        chain,
        prompt_column="q",
        teacher_price=PRICE,
        calls_in_flight=4,
        rows_per_block=4,
        checkpoint=f"{folder}/checkpoint",
    ).write_parquet(f"{folder}/answers")
