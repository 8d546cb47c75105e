"""How often a student goes on as if it had written the teacher's beginning itself.

Teacher and student are the same model, decoding greedily in float32: the model writes a text,
the text is cut after so many of its tokens, and the model goes on from there. What it then
writes should be what it wrote before. The old way is measured beside: the beginning without the
blanks at its end, tokenised as it is. The same is done with objects held to a schema.

    python -m benchmarks.seams FOLDER [FOLDER ...] --output table.md
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_gkt import GuidancePolicy, HuggingFaceStudent
from langchain_gkt.structured_output.schema import json_edge
from langchain_gkt.students.settings import GenerationSettings

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
_DEFAULT_POLICY = GuidancePolicy()
CUTS = (1, 2, 3, 5, 8, 12, 17, 23, 30, 40, 50, 60)

_TEXTS = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 6}
OBJECTS = {
    "a person": (
        "Give a JSON object with name, age and three hobbies of a made-up person.",
        {"name": {"type": "string"}, "age": {"type": "integer"}, "hobbies": _TEXTS},
    ),
    "a recipe": (
        "Give a recipe of pancakes as a JSON object with title, minutes, ingredients and steps.",
        {
            "title": {"type": "string"},
            "minutes": {"type": "number"},
            "ingredients": _TEXTS,
            "steps": _TEXTS,
        },
    ),
    "a Chinese text": (
        "用中文解释什么是机器学习, 以 JSON 回答: title, text, keywords。",
        {"title": {"type": "string"}, "text": {"type": "string"}, "keywords": _TEXTS},
    ),
    "a sum": (
        "Tom has 14 pens and gives away 5. How many has he? Answer as JSON: steps, answer.",
        {
            "steps": {
                "type": "array",
                "minItems": 1,
                "maxItems": 4,
                "items": {
                    "type": "object",
                    "properties": {"text": {"type": "string"}, "value": {"type": "integer"}},
                    "required": ["text", "value"],
                },
            },
            "answer": {"type": "integer"},
        },
    ),
}


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

    def __add__(self, other: Counts) -> Counts:
        """Return the counts of both together."""
        return Counts(
            self.cuts + other.cuts,
            self.equal + other.equal,
            self.blank_faults + other.blank_faults,
            self.differences + other.differences,
        )

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


@dataclass(frozen=True)
class OwnText:
    """What a model writes by itself.

    Attributes:
        question: What it was asked.
        text: What it wrote.
        arguments: The arguments of the call.
    """

    question: list[BaseMessage]
    text: str
    arguments: dict[str, Any]


def own_texts(
    student: HuggingFaceStudent, prompts: Sequence[str], tokens: int, schemas: Sequence[Any] = ()
) -> list[OwnText]:
    """Have a model write its own texts.

    Args:
        student: The model.
        prompts: What it is asked.
        tokens: The longest text, in tokens.
        schemas: The properties of the object that each prompt asks for. None for free text.

    Returns:
        A text for each prompt.
    """
    chat = bool(student._loader.load().prompts.tokenizer.chat_template)
    questions: list[list[BaseMessage]] = [
        [HumanMessage(prompt if chat else f"Q: {prompt}\nA:")] for prompt in prompts
    ]
    arguments: list[dict[str, Any]] = [_response_format(schema) for schema in schemas]
    arguments = arguments or [{} for _ in prompts]
    calls = list(zip(questions, arguments, strict=True))
    texts = _texts(student, calls, tokens)
    return [OwnText(q, text, given) for (q, given), text in zip(calls, texts, strict=True)]


def compare(
    student: HuggingFaceStudent,
    own: Sequence[OwnText],
    cuts: Sequence[int],
    *,
    tokens: int = 30,
    healing: bool = True,
    trim: Callable[[str], str] = _DEFAULT_POLICY.trim,
    characters: int | None = None,
) -> list[Counts]:
    """Count seams at which a model writes its own text again.

    Args:
        student: The model.
        own: Its own texts.
        cuts: After how many of its own tokens its text is cut.
        tokens: How many tokens it writes behind each cut.
        healing: False for the old way, without blanks and without healing.
        trim: Cuts the text back to an edge.
        characters: How much of what it writes is compared. None for all.

    Returns:
        The counts of each text, all its cuts together.
    """
    tokenizer = student._loader.load().prompts.tokenizer
    begun: list[tuple[int, str]] = []
    for at, one in enumerate(own):
        # The model's own tokens, so that a cut falls where a teacher's limit would fall.
        ids = tokenizer(one.text, add_special_tokens=False)["input_ids"]
        for cut in (cut for cut in cuts if cut < len(ids)):
            guidance = trim(tokenizer.decode(ids[:cut]))
            if guidance:
                begun.append((at, guidance if healing else guidance.rstrip()))
    calls = [([*own[at].question, AIMessage(text)], own[at].arguments) for at, text in begun]
    counts = [Counts() for _ in own]
    texts = _texts(student, calls, tokens, healing=healing, characters=characters)
    for (at, guidance), text in zip(begun, texts, strict=True):
        counts[at].add(guidance, guidance + text, own[at].text)
    return counts


def _response_format(properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


def _texts(
    student: HuggingFaceStudent,
    calls: Iterable[tuple[list[BaseMessage], dict[str, Any]]],
    tokens: int,
    *,
    healing: bool = True,
    characters: int | None = None,
) -> list[str]:
    """Return what a model writes in each call; they are decoded together."""
    requests = student._loader.load()

    def text(call: tuple[list[BaseMessage], dict[str, Any]]) -> str:
        settings = GenerationSettings.of_call(student, None, max_tokens=tokens, **call[1])
        request = requests.build(call[0], settings, heal=healing)
        chunks: Any = requests.engine.generate(request, threading.Event())
        written = ""
        with closing(chunks):
            for chunk in chunks:
                written += chunk.text
                if characters is not None and len(written) >= characters:
                    return written[:characters]
        return written

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(text, calls))


def table(
    student: HuggingFaceStudent, name: str, cuts: Sequence[int], tokens: int
) -> tuple[str, list[str]]:
    """Measure one model with free text.

    Args:
        student: The model.
        name: Its name in the table.
        cuts: After how many tokens texts are cut.
        tokens: How many tokens are written behind each cut.

    Returns:
        A Markdown table, and the differences that healing leaves.
    """
    own = own_texts(student, list(PROMPTS.values()), max(cuts) + tokens + 10)
    old, new = (
        compare(student, own, cuts, tokens=tokens, healing=healing) for healing in (False, True)
    )
    return _table(name, list(PROMPTS), old, new)


def object_table(
    student: HuggingFaceStudent, name: str, cuts: Sequence[int]
) -> tuple[str, list[str]]:
    """Measure one model with objects held to a schema; the arguments are those of `table`."""
    prompts, schemas = zip(*OBJECTS.values(), strict=True)
    tokens = 2 * max(cuts)
    own = own_texts(student, prompts, tokens, schemas)
    old, new = (
        # Not to the end, which depends on how many tokens are left.
        compare(student, own, cuts, tokens=tokens, healing=healing, trim=json_edge, characters=40)
        for healing in (False, True)
    )
    return _table(name, list(OBJECTS), old, new)


def _table(
    name: str, kinds: Sequence[str], old: Sequence[Counts], new: Sequence[Counts]
) -> tuple[str, list[str]]:
    rows = [*zip(kinds, old, new, strict=True), ("**all**", sum_of(old), sum_of(new))]
    lines = [
        f"| {name} | cuts | equal, old way | equal | blank faults, old way | blank faults |",
        "|---|---|---|---|---|---|",
        *(
            f"| {kind} | {now.cuts} | {before.equal} | {now.equal} | "
            f"{before.blank_faults} | {now.blank_faults} |"
            for kind, before, now in rows
        ),
    ]
    left = [
        f"{kind}: {text}" for kind, one in zip(kinds, new, strict=True) for text in one.differences
    ]
    return "\n".join(lines), left


def sum_of(counts: Sequence[Counts]) -> Counts:
    """Return the counts of several texts together.

    Args:
        counts: The counts of each.
    """
    return sum(counts, Counts())


def main() -> None:
    """Measure the models named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--cuts", type=int, nargs="+", default=CUTS)
    parser.add_argument("--tokens", type=int, default=16, help="tokens behind each cut")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--objects", action="store_true", help="measure objects of a schema")
    parser.add_argument("--output", type=Path, help="a Markdown file for the tables")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    tables = []
    for folder in given.folders:
        began = time.process_time()
        student = HuggingFaceStudent(model=folder, dtype="float32")
        if given.objects:
            made, left = object_table(student, folder.name, given.cuts)
        else:
            made, left = table(student, folder.name, given.cuts, given.tokens)
        student.close()
        seconds = f"{time.process_time() - began:.0f} processor seconds"
        sys.stdout.write("\n".join([made, *left, seconds, ""]))
        sys.stdout.flush()
        tables.append(made)
    if given.output:
        given.output.write_text("\n\n".join(tables) + "\n")


if __name__ == "__main__":
    main()
