"""Answer a hundred questions on Ray Data with the embedded models, and read the bill.

``pip install ".[ray,demo]"``, then ``python examples/bulk.py``.
"""

from __future__ import annotations

import tempfile

import ray
from langchain_openai import ChatOpenAI

from langchain_gkt import Budget, GuidedKnowledgeTransferChain, Price
from langchain_gkt.bulk import guide_dataset, read_report
from langchain_gkt.demo.cloud import LocalCloud
from langchain_gkt.demo.pair import STUDENT, TEACHER
from langchain_gkt.evaluation.tasks.word_problems import sample

if __name__ == "__main__":
    ray.init(num_cpus=2, object_store_memory=200 * 2**20, include_dashboard=False)
    try:
        with LocalCloud(TEACHER) as cloud, tempfile.TemporaryDirectory() as folder:
            local = {"base_url": cloud.base_url, "api_key": "local", "model": cloud.name}

            def make() -> GuidedKnowledgeTransferChain:
                """Make the chain in an actor, because a key does not travel in a chain."""
                teacher = ChatOpenAI(**local, temperature=0)  # <- ChatOpenAI(model="gpt-4o-mini")
                student = str(STUDENT)  # <- a Hugging Face model: a folder or hub id
                return GuidedKnowledgeTransferChain(
                    teacher=teacher, student=student, guidance_tokens=20
                )

            questions = ray.data.from_items([{"question": p.question} for p in sample(7, 100)])
            answered = guide_dataset(
                questions,
                make,
                prompt_column="question",
                teacher_price=Price(input_mtok="0.15", output_mtok="0.60"),
                budget=Budget(usd="0.01"),
                checkpoint=f"{folder}/checkpoint",
            )
            answered.write_parquet(f"{folder}/answers")
            table = ray.data.read_parquet(f"{folder}/answers").to_pandas()
            print(table[["question", "answer", "finished_by", "cost"]].head())
            print(f"{len(table)} rows, ${table['cost'].sum():f} by the column")
            print(f"${read_report(f'{folder}/checkpoint')['teacher']['cost']} by the ledger")
    finally:
        ray.shutdown()
