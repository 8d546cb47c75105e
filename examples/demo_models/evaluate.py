"""Measure the embedded pair over guidance lengths, on problems of a seed of your choice.

    python examples/demo_models/evaluate.py --seed 1 --rows 500

Greedy, in batches, without the HTTP server: what it prints is accuracy, not speed. The
guidance is cut and handed over by the package's own code.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest
from transformers import AutoModelForCausalLM, AutoTokenizer

from langchain_gkt.evaluation.word_problems import WordProblem, sample
from langchain_gkt.guidance import GuidancePolicy

MODELS = Path(__file__).parents[2] / "langchain_gkt" / "demo" / "models"
LENGTHS = (4, 8, 10, 12, 14, 16, 17, 18, 20, 25, 30, 40)
BATCH = 50


class Model:
    """A model that answers in batches."""

    def __init__(self, folder: Path) -> None:
        """Load a folder in float32."""
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.padding_side = "left"
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(
        self, problems: Sequence[WordProblem], begun: Sequence[str]
    ) -> tuple[list[str], float]:
        """Continue answers; return the whole answers and the mean number of new tokens."""
        texts, tokens = [""] * len(problems), 0
        # Alike lengths side by side: padding is computed like everything else.
        order = sorted(range(len(problems)), key=lambda i: len(problems[i].question + begun[i]))
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            prompts = [
                self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": problems[i].question}],
                    tokenize=False,
                    add_generation_prompt=True,
                )
                + begun[i]
                for i in rows
            ]
            inputs = self.tokenizer(
                prompts, return_tensors="pt", padding=True, return_token_type_ids=False
            )
            with torch.inference_mode():
                out = self.model.generate(**inputs, max_new_tokens=120, do_sample=False)
            for i, row in zip(rows, out[:, inputs["input_ids"].shape[1] :], strict=True):
                tokens += int((row != self.tokenizer.pad_token_id).sum())
                text = self.tokenizer.decode(row, skip_special_tokens=True)
                texts[i] = begun[i] + text
        return texts, tokens / len(problems)


def right(text: str, problem: WordProblem) -> bool:
    """Whether the text states the problem's answer."""
    said = re.findall(r"answer is (-?\d+)", text)
    return bool(said) and int(said[-1]) == problem.answer


def line(name: str, hits: Sequence[bool], *cells: str) -> str:
    """Format a row of the table, with a Wilson interval of 95%."""
    share = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    mean = sum(hits) / len(hits)
    return f"| {name} | {mean:.1%} ({share.low:.1%}-{share.high:.1%}) | " + " | ".join(cells) + " |"


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rows", type=int, default=500)
    args = parser.parse_args()
    problems = sample(args.seed, args.rows)
    nothing = [""] * len(problems)
    teacher, student = Model(MODELS / "teacher"), Model(MODELS / "student")
    whole, length = teacher.answer(problems, nothing)
    print("| guidance tokens | accuracy (95% interval) | share of teacher's tokens | leak |")
    print("| ---: | ---: | ---: | ---: |")
    alone, _ = student.answer(problems, nothing)
    hits = [right(text, problem) for text, problem in zip(alone, problems, strict=True)]
    print(line("0 (student alone)", hits, "0%", "0.0%"), flush=True)
    policy = GuidancePolicy()
    for limit in LENGTHS:
        begun, spent = [], 0
        for text in whole:
            ids = teacher.tokenizer(text, add_special_tokens=False)["input_ids"]
            # The end-of-turn token is one of the teacher's tokens.
            finished = len(ids) + 1 <= limit
            spent += min(len(ids) + 1, limit)
            cut = teacher.tokenizer.decode(ids[:limit])
            begun.append(cut if finished else policy.trim(cut))
        texts, _ = student.answer(problems, begun)
        hits = [right(text, problem) for text, problem in zip(texts, problems, strict=True)]
        # Strictly: the final number anywhere in the guidance counts as given away.
        leaks = sum(
            str(problem.answer) in re.findall(r"\d+", text)
            for text, problem in zip(begun, problems, strict=True)
        )
        share = f"{spent / len(problems) / length:.0%}"
        print(line(str(limit), hits, share, f"{leaks / len(problems):.1%}"), flush=True)
    hits = [right(text, problem) for text, problem in zip(whole, problems, strict=True)]
    print(line("all (teacher alone)", hits, "100%", "-"))


if __name__ == "__main__":
    main()
