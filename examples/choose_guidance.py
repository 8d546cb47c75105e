"""Finds the number of guidance tokens for a pair, and saves it as a policy that a chain takes.

``pip install ".[cli,demo]"``, then ``python examples/choose_guidance.py``. Takes some
seconds. With a real provider it spends about what the teacher alone costs on these rows.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt.demo.pair import PRICE, STUDENT, demo_teacher
from langchain_gkt.evaluation import load_task, sweep


def main() -> None:
    """Sweep, choose, save, and use what was saved."""
    task = load_task("word_problems", rows=24)  # Task("mine", rows, metric) for your own rows
    with demo_teacher() as embedded, tempfile.TemporaryDirectory() as folder:
        teacher = embedded  # <- ChatOpenAI(model="gpt-4o-mini")
        student = STUDENT  # <- a Hugging Face model: a folder or hub id
        chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student)
        found = sweep(chain, task, lengths=[8, 14, 18], teacher_price=PRICE, out=f"{folder}/sweep")
        choice = found.choose(max_loss=0.05)
        policy = Path(folder) / "policy.json"
        choice.policy.save(policy)
        print(found)
        print(choice)
        print(policy.read_text())
        chosen = GuidedKnowledgeTransferChain(
            teacher=teacher, student=student, guidance=str(policy)
        )
        print(chosen.invoke(task.rows[0]["question"]).text)


if __name__ == "__main__":
    main()
