"""How often a student goes on as if it had written the teacher's beginning itself.

Teacher and student are the same model, decoding greedily in float32: the model writes a text,
the text is cut after so many of its tokens, and the model goes on from there. What it then
writes should be what it wrote before. The old way is measured beside: the beginning without the
blanks at its end, tokenised as it is.

    python -m benchmarks.seams FOLDER [FOLDER ...] --output table.md
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_gkt import GuidancePolicy, HuggingFaceStudent

PROMPTS = {
    "prose": "Describe a morning in a small harbour town in one paragraph.",
    "lists": "List five facts about the Moon as bullet points with numbers.",
    "tables": "What is the temperature in Paris in spring? Answer with a markdown table.",
    "code": "Write a Python function that reverses the words in a sentence, with a docstring.",
    "JSON": "Give a JSON object with name, age and three hobbies of a made-up person.",
    "LaTeX": "Write the quadratic formula in LaTeX and explain its parts.",
    "URLs": "Give three links to pages about Python on docs.python.org, with descriptions.",
    "numbers": "Multiply 1,234 by 5,678 and show the intermediate sums with commas.",
    "Chinese": "用中文简单解释什么是机器学习。",
    "Japanese": "日本の首都について日本語で三つの文を書いてください。",
    "Thai": "เขียนเกี่ยวกับอาหารไทยเป็นภาษาไทยสามประโยค",
    "emoji": "Describe a birthday party with many emoji 🎉🎂👨‍👩‍👧.",
    "right-to-left": "اكتب ثلاث جمل عن البحر باللغة العربية.",
}
CUTS = (1, 2, 3, 5, 8, 12, 17, 23, 30, 38, 47, 60)


@dataclass
class Counts:
    """What was seen at the seams of some texts.

    Attributes:
        cuts: How many seams there were.
        equal: How often the model wrote its own text again.
        blank_faults: How often the texts differ in blanks alone near the seam.
        differences: Both texts around each difference, for a look.
    """

    cuts: int = 0
    equal: int = 0
    blank_faults: int = 0
    differences: list[str] = field(default_factory=list)

    def add(self, guidance: str, joined: str, own: str) -> None:
        """Count one seam.

        Args:
            guidance: The beginning.
            joined: The beginning with what the model wrote behind it.
            own: What the model had written by itself, as long or longer unless it ended.
        """
        self.cuts += 1
        size = min(len(joined), len(own))
        if joined[:size] == own[:size]:
            self.equal += 1
            return
        at = next(at for at in range(size) if joined[at] != own[at])
        # The same characters but for blanks: those of the next dozen behind the difference.
        near = ("".join(text[at:].split())[:12] for text in (joined, own))
        self.blank_faults += at <= len(guidance) + 1 and len(set(near)) == 1
        here = slice(max(0, at - 20), at + 20)
        self.differences.append(f"{guidance[-12:]!r}: {joined[here]!r}, alone {own[here]!r}")


def compare(
    student: HuggingFaceStudent,
    prompts: Sequence[str],
    cuts: Sequence[int],
    *,
    tokens: int = 30,
    healing: bool = True,
) -> Counts:
    """Count seams at which a model writes its own text again.

    Args:
        student: The model.
        prompts: What it is asked.
        cuts: After how many of its own tokens its text is cut.
        tokens: How many tokens it writes behind each cut.
        healing: False for the old way, without blanks and without healing.

    Returns:
        The counts of all prompts and cuts together.
    """
    builder = student._loader.load().prompts
    tokenizer, policy, counts = builder.tokenizer, GuidancePolicy(), Counts()
    chat = bool(tokenizer.chat_template)
    questions = [[HumanMessage(p if chat else f"Q: {p}\nA:")] for p in prompts]
    longest = max(cuts) + tokens + 10
    begun: list[tuple[list[BaseMessage], str, str]] = []
    for question, own in zip(questions, _texts(student, questions, longest), strict=True):
        # The model's own tokens, so that a cut falls where a teacher's limit would fall.
        ids = tokenizer(own, add_special_tokens=False)["input_ids"]
        for cut in (cut for cut in cuts if cut < len(ids)):
            guidance = policy.trim(tokenizer.decode(ids[:cut]))
            begun.append((question, guidance if healing else guidance.rstrip(), own))
    messages = [[*question, AIMessage(guidance)] for question, guidance, _ in begun]
    texts = _texts(student, messages, tokens, healing=healing)
    for (_, guidance, own), text in zip(begun, texts, strict=True):
        counts.add(guidance, guidance + text, own)
    return counts


def _texts(
    student: HuggingFaceStudent,
    conversations: Sequence[list[BaseMessage]],
    tokens: int,
    *,
    healing: bool = True,
) -> list[str]:
    """Return what a model writes in each conversation; they are decoded together."""

    def text(messages: list[BaseMessage]) -> str:
        engine, request = student._request(messages, None, {"max_tokens": tokens})
        if not healing:
            request = replace(request, seam=None)
        chunks: Any = engine.generate(request, threading.Event(), stream=False)
        return "".join(chunk.text for chunk in chunks)

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(text, conversations))


def table(folder: Path, cuts: Sequence[int], tokens: int) -> tuple[str, list[str]]:
    """Measure one model.

    Args:
        folder: Its folder.
        cuts: After how many tokens texts are cut.
        tokens: How many tokens are written behind each cut.

    Returns:
        A Markdown table, and the differences that healing leaves.
    """
    student = HuggingFaceStudent(model=folder, dtype="float32")
    rows, left, sums = [], [], [Counts(), Counts()]
    for name, prompt in PROMPTS.items():
        old, new = (
            compare(student, [prompt], cuts, tokens=tokens, healing=healing)
            for healing in (False, True)
        )
        for total, counts in zip(sums, (old, new), strict=True):
            total.cuts += counts.cuts
            total.equal += counts.equal
            total.blank_faults += counts.blank_faults
        rows.append(_row(name, old, new))
        left += [f"{name}: {difference}" for difference in new.differences]
    student.close()
    head = [
        f"| {folder.name} | cuts | equal, old way | equal | blank faults, old way | blank faults |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, _row("**all**", *sums)]), left


def _row(name: str, old: Counts, new: Counts) -> str:
    return (
        f"| {name} | {new.cuts} | {old.equal} | {new.equal} | "
        f"{old.blank_faults} | {new.blank_faults} |"
    )


def main() -> None:
    """Measure the models named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--cuts", type=int, nargs="+", default=CUTS)
    parser.add_argument("--tokens", type=int, default=30, help="tokens behind each cut")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="a Markdown file for the tables")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    tables = []
    for folder in given.folders:
        made, left = table(folder, given.cuts, given.tokens)
        sys.stdout.write("\n".join([made, *left, ""]))
        sys.stdout.flush()
        tables.append(made)
    if given.output:
        given.output.write_text("\n\n".join(tables) + "\n")


if __name__ == "__main__":
    main()
