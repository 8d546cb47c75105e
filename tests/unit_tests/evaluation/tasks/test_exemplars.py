from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from langchain_gkt.evaluation.tasks import Example, load_task
from langchain_gkt.evaluation.tasks.readers import own_exemplars, read_exemplars

# What the questions of our exemplars ask for, worked out apart from their answers.
GOLD: dict[str, list[Any]] = {
    "gsm8k": [
        38 - 15 + 9,
        50 - 3 * 4 - 11,
        Fraction(96) * (1 - Fraction(3, 8)) / 2,
        240 - 240 * Fraction(15, 100),
        125 % 12,
        18 * 5 + 12 * 7,
        next(n for n in range(99) if n + 6 + 3 * n + 6 == 52),
        Fraction("10.5") / 3 * 8,
    ],
    "aqua": [
        Fraction(92 - 80, 80) * 100,
        (7 * 9 + 4) % 8,
        1 / (Fraction(1, 6) + Fraction(1, 12)),
        next(x for x in range(99) if 5 * x - 7 == 3 * x + 11),
    ],
    "csqa": "hallway stand,anchor,better grip,fire station,telescope,risen,life ring".split(","),
}
NUMBER = r"(\d+(?:\.\d+)?)"
STEP = re.compile(rf"{NUMBER} ([-+*/]) {NUMBER} = {NUMBER}")
APPLY: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


def choices_of(question: str) -> dict[str, str]:
    return dict(re.findall(r"\(([A-E])\) ([^,]+)", question.split("Answer choices: ")[1]))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "e.json",
            '[{"question": "1 + 1?", "answer": "It is\\n2."}, {"question": "b?", "target": "c"}]',
        ),
        (
            "e.jsonl",
            '{"question": "1 + 1?", "target": "It is\\n2."}\n{"question": "b?", "answer": "c"}',
        ),
        ("e.txt", "Q: 1 + 1?\nA: It is\n2.\n\nQ: b?\nA: c\n"),
        (
            "e.txt",
            "\r\nQuestion: 1 + 1?\r\nAnswer: It is\r\n2.\r\n\r\n\r\nQuestion: b?\r\nAnswer:\r\nc",
        ),
    ],
)
def test_exemplars_of_ones_own(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    task = load_task("gsm8k", data=as_published(tmp_path, "gsm8k"), exemplars=path, shots=2)
    assert task.examples == (Example("1 + 1?", "It is\n2."), Example("b?", "c"))
    with pytest.raises(ValueError, match=r"shots=8 is too many: the file .* holds 2; give shots=2"):
        load_task("gsm8k", data=as_published(tmp_path, "gsm8k"), exemplars=path)


def test_questions_in_text_files_may_have_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "e.txt"
    path.write_text("Q: Which is odd?\n(A) 2\n(B) 3\nA: 3 is.\nAnswer: (B)", "utf-8")
    assert read_exemplars(path) == [("Which is odd?\n(A) 2\n(B) 3", "3 is.\nAnswer: (B)")]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("e.csv", "question,answer", "must be a .json, .jsonl or .txt file"),
        ("e.json", '[{"question": "a?"}]', "row 1: field 'answer' is missing, and so is 'target'"),
        ("e.jsonl", '\n{"answer": "a"}', "e.jsonl, line 2: field 'question' is missing"),
        ("e.jsonl", '{"question": "a?", "target": 4}', "'target' must be a text, not int"),
        ("e.jsonl", "", "exemplars='e.jsonl' holds no rows"),
        ("e.txt", "\n", "exemplars='e.txt' holds no 'Q:' blocks"),
        ("e.txt", "Add.\n\nQ: a?\nA: b", "e.txt, line 1: a block must begin with 'Q:'"),
        ("e.txt", "A: b", "e.txt, line 1: a block must begin with 'Q:'"),
        ("e.txt", "Q: a?\nA: b\n\nThe end.", "e.txt, line 4: a block must begin with 'Q:'"),
        ("e.txt", "Q: a?\nA: b\n\nQ: c?\n\nQ: d?\nA: e", r"line 4: the question has no answer"),
        ("e.txt", "Q: a?\nA:\n", r"line 1: the question has no answer \('A:'\)"),
        ("e.txt", "Q:\nA: b\n", r"line 1: the question has no text after 'Q:'"),
    ],
)
def test_broken_exemplars_are_named(tmp_path: Path, name: str, content: str, match: str) -> None:
    path = tmp_path / name
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match=match):
        read_exemplars(path)


def as_published(folder: Path, name: str) -> Path:
    """Write our exemplars in their publisher's form."""
    rows: list[dict[str, Any]] = []
    for (question, _), gold in zip(own_exemplars(name), GOLD[name], strict=True):
        if name == "gsm8k":
            rows.append({"question": question, "answer": f"#### {gold}"})
            continue
        stem, choices = question.split(" Answer choices: ")[0], choices_of(question)
        right = next(letter for letter, text in choices.items() if text == str(gold))
        if name == "aqua":
            options = [f"{letter}){text}" for letter, text in choices.items()]
            rows.append({"question": stem, "options": options, "correct": right})
        else:
            listed = {"label": list(choices), "text": list(choices.values())}
            rows.append({"question": stem, "choices": listed, "answerKey": right})
    path = folder / "rows.json"
    path.write_text(json.dumps(rows), "utf-8")
    return path


@pytest.mark.parametrize("name", ["gsm8k", "aqua"])
def test_our_exemplars_compute_right(name: str) -> None:
    seen = set()
    for (question, answer), gold in zip(own_exemplars(name), GOLD[name], strict=True):
        steps = STEP.findall(answer)
        assert len(steps) == answer.count("=") > 0
        for a, op, b, result in steps:
            assert APPLY[op](Fraction(a), Fraction(b)) == Fraction(result)
            seen.add(op)
        assert Fraction(steps[-1][3]) == gold
        if name == "aqua":
            letter = re.search(r"The answer is ([A-E])\.$", answer)
            assert letter
            assert Fraction(choices_of(question)[letter[1]]) == gold
        else:
            assert answer.endswith(f" The answer is {gold}.")
    assert seen == set("+-*/")


def test_our_choices_are_named_and_spread() -> None:
    letters: dict[str, list[str]] = {}
    for name in ("csqa", "aqua"):
        for (question, answer), gold in zip(own_exemplars(name), GOLD[name], strict=True):
            choices = choices_of(question)
            assert list(choices) == list("ABCDE")
            assert len(set(choices.values())) == 5
            right = next(letter for letter, text in choices.items() if text == str(gold))
            assert answer.endswith(f" The answer is {right}.")
            assert str(gold) in answer.split(" The answer is")[0]
            letters.setdefault(name, []).append(right)
    assert set(letters["csqa"]) == set("ABCDE")
    assert len(set(letters["aqua"])) == 4


@pytest.mark.parametrize("name", GOLD)
def test_our_exemplars_are_right_by_their_own_metrics(tmp_path: Path, name: str) -> None:
    task = load_task(name, data=as_published(tmp_path, name))
    assert len(task.rows) == len(task.examples)
    for example, row in zip(task.examples, task.rows, strict=True):
        assert example.question == row["question"]
        assert set(task.judge(example.answer, row).values()) == {True}
        assert task.leaked(example.answer, row)
        opening = re.split(r"[,=;]| is ", example.answer)[0]
        assert opening
        assert not task.leaked(opening, row)
