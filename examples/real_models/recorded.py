r"""Make docs/measurements/recorded-teachers.md: what a student saves on answers of cloud models.

Each run is a sweep over recorded answers, named TASK-TEACHER-STUDENT, such as

    langchain-gkt sweep --recorded gpt-4.jsonl --task gsm8k --data test.jsonl --student FOLDER \
        --agreement 5 --lengths 20,40 --out runs/recorded/gsm8k-gpt-4-qwen15
    python examples/real_models/recorded.py

The figures of the runs are kept in examples/real_models/recorded, from which the page is written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from recorded_figures import condense
from recorded_page import write

from langchain_gkt.evaluation import Sweep, load_run

DOCS = Path(__file__).parents[2] / "docs"
SUMMARIES = Path(__file__).parent / "recorded"


def main() -> None:
    """Condense the runs, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/recorded"))
    parser.add_argument("--summaries", type=Path, default=SUMMARIES)
    parser.add_argument("--docs", type=Path, default=DOCS)
    args = parser.parse_args()
    args.summaries.mkdir(parents=True, exist_ok=True)
    for manifest in sorted(args.runs.glob("*/manifest.json")):
        found = load_run(str(manifest.parent))
        if isinstance(found, Sweep):
            text = json.dumps(condense(found), indent=1)
            name = f"{manifest.parent.name}.json"
            (args.summaries / name).write_text(f"{text}\n", encoding="utf-8")
    files = sorted(args.summaries.glob("*.json"))
    if not files:
        parser.error(f"there is no run in {args.runs}; --runs names the folder of the sweeps")
    write({file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}, args.docs)


if __name__ == "__main__":
    main()
