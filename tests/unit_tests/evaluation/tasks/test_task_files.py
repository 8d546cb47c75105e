from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from langchain_gkt.evaluation.tasks import Example, load_task

GSM8K = [
    {"question": "A crate of 9 figs and 4 more?", "answer": "9+4=<<9+4=13>>13 figs\n#### 13"},
    {"question": " Two silos of 600 tonnes? ", "answer": "2*600=1,200\n#### 1,200"},
    {"question": "From 3 degrees it falls by 8?", "answer": "3-8=-5\n#### -5"},
]
CSQA = [
    {
        "answerKey": "C",
        "id": "0a",
        "question": {
            "question_concept": "kettle",
            "choices": [
                {"label": label, "text": text}
                for label, text in zip("ABCDE", "drawer roof stove pond tent".split(), strict=True)
            ],
            "stem": "Where does a kettle boil?",
        },
    }
]
CSQA_HUB = [
    {
        "id": "0a",
        "question": "Where does a kettle boil?",
        "question_concept": "kettle",
        "choices": {
            "label": ["A", "B", "C", "D", "E"],
            "text": ["drawer", "roof", "stove", "pond", "tent"],
        },
        "answerKey": "C",
    }
]
AQUA = [
    {
        "question": "What is 30% of 70?",
        "options": ["A)18", "B)B) 2.1", "C)$1,021", "D)10 (ten)", "E)21"],
        "rationale": "0.3 * 70 = 21\nAnswer: E",
        "correct": "E",
    }
]
PUBLISHED = {"gsm8k": GSM8K, "csqa": CSQA, "aqua": AQUA}
KETTLE = (
    "Where does a kettle boil? Answer choices: (A) drawer, (B) roof, (C) stove, (D) pond, (E) tent"
)


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as JSON lines."""

    def write(rows: list[Any], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path

    return write


def test_gsm8k_from_a_file(lines: Callable[..., Path]) -> None:
    task = load_task("GSM8K", data=lines(GSM8K))
    assert [row["answer"] for row in task.rows] == ["13", "1200", "-5"]
    assert task.rows[0]["solution"] == "9+4=<<9+4=13>>13 figs"
    assert task.rows[1]["question"] == "Two silos of 600 tonnes?"
    assert (task.guidance_tokens, task.max_tokens) == (40, 340)
    prompt = task.prompt(task.rows[0])
    assert [message.type for message in prompt] == ["human", "ai"] * 8 + ["human"]
    assert prompt[-1].content == "A crate of 9 figs and 4 more?"
    assert task.judge("9 + 4 = 13. The answer is 13.", task.rows[0]) == {
        "answer": True,
        "strict": True,
        "flexible": True,
    }
    assert task.judge("The answer is $1,200.00.", task.rows[1])["answer"] is True
    assert task.judge("The answer is 5.", task.rows[2])["answer"] is False
    assert set(task.judge("I do not know.", task.rows[0]).values()) == {None}
    assert task.judge("There are 13 of them", task.rows[0])["strict"] is None


@pytest.mark.parametrize("rows", [CSQA, CSQA_HUB])
def test_csqa_from_either_form(lines: Callable[..., Path], rows: list[Any]) -> None:
    task = load_task("csqa", data=lines(rows))
    row = task.rows[0]
    assert row["question"] == KETTLE
    assert row["answer"] == "C"
    assert row["choices"]["C"] == "stove"
    assert (task.guidance_tokens, task.max_tokens, len(task.examples)) == (30, 130, 7)
    assert set(task.judge("It boils on a stove. The answer is (C).", row).values()) == {True}
    assert set(task.judge("The answer is (E).", row).values()) == {False}
    assert task.judge("Hard to say.", row)["answer"] is None
    assert task.leaked("It needs heat. The answer is (C).", row)
    assert not task.leaked("It needs heat.", row)


def test_aqua_from_a_json_list(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(AQUA, indent=2), "utf-8")
    task = load_task("aqua", data=path)
    row = task.rows[0]
    assert row["question"] == (
        "What is 30% of 70? Answer choices: (A) 18, (B) 2.1, (C) $1,021, (D) 10 (ten), (E) 21"
    )
    assert row["choices"]["B"] == "2.1"
    assert (row["answer"], row["solution"]) == ("E", "0.3 * 70 = 21\nAnswer: E")
    assert (task.guidance_tokens, task.max_tokens, len(task.examples)) == (20, 120, 4)
    assert set(task.judge("0.3 * 70 = 21. The answer is (E).", row).values()) == {True}


@pytest.mark.parametrize("name", PUBLISHED)
def test_text_style_stops_at_the_next_question(lines: Callable[..., Path], name: str) -> None:
    task = load_task(name, data=lines(PUBLISHED[name]), style="text")
    (message,) = task.prompt(task.rows[0])
    text = message.text
    assert text.startswith("Q: ")
    assert text.endswith(f"\n\nQ: {task.rows[0]['question']}\nA:")
    assert text.count("\nA:") == len(task.examples) + 1
    assert task.stop == ("\nQ:",)
    assert load_task(name, data=lines(PUBLISHED[name])).stop == ()


@pytest.mark.parametrize(
    ("name", "form"), [("gsm8k", "The answer is 27."), ("csqa", "is X."), ("aqua", "is X.")]
)
def test_without_shots_an_instruction_names_the_form(
    lines: Callable[..., Path], name: str, form: str
) -> None:
    task = load_task(name, data=lines(PUBLISHED[name]), shots=0)
    system, human = task.prompt(task.rows[0])
    assert system.type == "system"
    assert form in system.text
    assert human.text == task.rows[0]["question"]
    assert load_task(name, data=lines(PUBLISHED[name]), shots=1).instruction is None
    text = load_task(name, data=lines(PUBLISHED[name]), shots=0, style="text")
    assert text.prompt(text.rows[0])[0].text.startswith(f"{system.text}\n\nQ: ")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_papers_scoring_is_shown_when_asked_for(lines: Callable[..., Path], name: str) -> None:
    task = load_task(name, data=lines(PUBLISHED[name]), reference=True)
    row = task.rows[0]
    found = task.judge(f"The answer is {row['answer']}.", row)
    assert list(found) == ["answer", "strict", "flexible", "reference"]
    assert set(found.values()) == {True}
    assert "reference" not in load_task(name, data=lines(PUBLISHED[name])).more_metrics
    made = load_task("word_problems", rows=1, reference=True)
    assert set(made.judge(made.rows[0]["solution"], made.rows[0]).values()) == {True}


def test_the_papers_scoring_has_its_faults(lines: Callable[..., Path]) -> None:
    gsm8k = load_task("gsm8k", data=lines(GSM8K), reference=True)
    found = gsm8k.judge("The answer is -5.", gsm8k.rows[2])
    assert (found["answer"], found["reference"]) == (True, False)  # the sign is dropped
    e = {**CSQA[0], "answerKey": "E"}
    csqa = load_task("csqa", data=lines([e]), reference=True)
    aqua = load_task("aqua", data=lines(AQUA), reference=True)
    unread = [f"{i}: no idea" for i in range(60)]
    assert not any(csqa.judge(text, csqa.rows[0])["reference"] for text in unread)
    assert any(aqua.judge(text, aqua.rows[0])["reference"] for text in unread)


def many(count: int) -> list[dict[str, str]]:
    return [{"question": f"What is {i}?", "answer": f"It is {i}.\n#### {i}"} for i in range(count)]


def test_the_first_rows_or_a_sample_in_the_files_order(lines: Callable[..., Path]) -> None:
    path = lines(many(50))

    def numbers(**options: Any) -> list[int]:
        return [int(row["answer"]) for row in load_task("gsm8k", data=path, **options).rows]

    assert numbers() == list(range(50))
    assert numbers(rows=5) == [0, 1, 2, 3, 4]
    assert numbers(rows=51) == numbers(rows=50, seed=1) == numbers(seed=1) == list(range(50))
    drawn = numbers(rows=20, seed=0)
    assert drawn == numbers(rows=20, seed=0) == sorted(set(drawn))
    assert len(drawn) == 20
    assert drawn not in (list(range(20)), numbers(rows=20, seed=1))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"rows": 0}, ValueError, "rows must be 1 or more"),
        ({"rows": 2.0}, TypeError, "rows must be an int"),
        ({"shots": -1}, ValueError, "shots must be 0 or more"),
        ({"shots": 9}, ValueError, "shots=9 is too many.*give shots=8"),
        ({"seed": "1"}, TypeError, "seed must be an int or None, not str"),
        ({"style": "base"}, ValueError, "style must be 'chat' or 'text'"),
    ],
)
def test_bad_arguments_are_named(
    lines: Callable[..., Path], options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        load_task("gsm8k", data=lines(GSM8K), **options)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"gsm8k, csqa, aqua, word_problems; did you mean 'gsm8k'"):
        load_task("gsm")
    with pytest.raises(ValueError, match=r"gsm8k, csqa, aqua, word_problems$"):
        load_task("mmlu-pro")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data='.*none.jsonl': there is no such file"):
        load_task("gsm8k", data=tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="is a folder"):
        load_task("gsm8k", data=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"exemplars='.*none.txt': there is no such file"):
        load_task("gsm8k", exemplars=tmp_path / "none.txt")


def test_rows_in_memory_are_no_file() -> None:
    with pytest.raises(TypeError, match="data must be the path of a file, not list"):
        load_task("gsm8k", data=GSM8K)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="exemplars must be the path of a file, not list"):
        load_task("gsm8k", exemplars=[Example("a?", "b")])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ('\n{"question": "a?", "answer": "#### 1"}\n{"question": \n', "rows.jsonl, line 3: no val"),
        ('{"question": "a?", "answer": "#### 1"}\n\n[1]\n', "line 3: must be a JSON object, not"),
        ('[{"question": "a?", "answer": "#### 1"},\n 7]', "row 2: must be a JSON object, not int"),
        ('[{"question": "a?"},\n\n', "rows.jsonl, line 3: no valid JSON"),
        ("\n \n", "holds no rows"),
        ("[]", "holds no rows"),
        ('{"answer": "#### 1"}', "line 1: field 'question' is missing; the row has: answer"),
        ('{"question": "a?"}', "line 1: field 'answer' is missing"),
        ('{"question": "a?", "answer": 5}', "line 1: field 'answer' must be a text, not int"),
        ('{"question": "", "answer": "#### 1"}', "line 1: field 'question' is empty"),
        ('{"question": "a?", "answer": "it is 5"}', "field 'answer' must end in '#### '"),
        ('{"question": "a?", "answer": "5"}', "field 'answer' must end in '#### '"),
        ('{"question": "a?", "answer": "#### five"}', "field 'answer' must end in '#### '"),
        ('{"question": "a?", "answer": "#### nan"}', "field 'answer' must end in '#### '"),
        ('{"question": "a?", "answer": "####"}', "field 'answer' must end in '#### '"),
    ],
)
def test_broken_files_are_named_with_line_and_field(
    tmp_path: Path, content: str, match: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match=match):
        load_task("gsm8k", data=path)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"question": "\xff"}')
    with pytest.raises(ValueError, match=r"rows.jsonl' is no UTF-8 text"):
        load_task("gsm8k", data=path)


def test_a_byte_order_mark_and_unusual_line_ends_are_no_rows(tmp_path: Path) -> None:
    row = {"question": "a\u2028b\u0085c?", "answer": "#### 1"}
    text = json.dumps(row, ensure_ascii=False)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(f"\ufeff{text}\r\n{text}".encode())
    task = load_task("gsm8k", data=path)
    assert [one["question"] for one in task.rows] == ["a\u2028b\u0085c?"] * 2


def changed(rows: list[Any], **fields: Any) -> list[Any]:
    return [{**rows[0], **fields}]


def asked(**fields: Any) -> list[Any]:
    return changed(CSQA, question={**CSQA[0]["question"], **fields})


@pytest.mark.parametrize(
    ("name", "rows", "match"),
    [
        ("csqa", changed(CSQA, answerKey=""), "line 1: field 'answerKey' .* hides the answers"),
        ("csqa", [{"question": CSQA[0]["question"]}], "field 'answerKey' .* hides the answers"),
        ("csqa", changed(CSQA, answerKey="F"), "'answerKey' must be one of A, B, C, D, E, not 'F'"),
        ("csqa", asked(stem=" "), r"field 'question.stem' is empty"),
        ("csqa", asked(choices="ABC"), r"field 'question.choices' must be a list"),
        ("csqa", asked(choices=[]), r"'question.choices' must have two or more different"),
        ("csqa", asked(choices=[{"label": "A"}]), r"'question.choices.text' is missing"),
        ("csqa", changed(CSQA, question=5), "field 'question' must be a text"),
        ("csqa", changed(CSQA_HUB, choices={"label": ["A"], "text": []}), "1 labels for 0 texts"),
        ("csqa", changed(CSQA_HUB, choices={"label": 1, "text": 2}), "must hold two lists"),
        ("csqa", changed(CSQA_HUB, choices={"text": []}), "'choices.label' is missing"),
        ("aqua", changed(AQUA, options=["A)1", "2"]), r"'options\[1\]' must look like 'A\)21'"),
        ("aqua", changed(AQUA, options=["A)1", "A)2"]), "two or more different letters"),
        ("aqua", changed(AQUA, options=["E)1", "F)2"]), "different letters from A to E"),
        ("aqua", changed(AQUA, options="A)1"), "field 'options' must be a list, not str"),
        ("aqua", changed(AQUA, correct="Z"), "'correct' must be one of A, B, C, D, E, not 'Z'"),
        ("aqua", [{"question": "a?", "correct": "A"}], "field 'options' is missing"),
    ],
)
def test_broken_choices_are_named(
    lines: Callable[..., Path], name: str, rows: list[Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        load_task(name, data=lines(rows))


@pytest.mark.parametrize(
    ("name", "rows", "asked_for"),
    [
        ("gsm8k", GSM8K, ("openai/gsm8k", "main", "test")),
        ("csqa", CSQA_HUB, ("tau/commonsense_qa", None, "validation")),
        ("aqua", AQUA, ("deepmind/aqua_rat", "raw", "test")),
    ],
)
def test_without_a_file_the_hub_is_asked(
    monkeypatch: pytest.MonkeyPatch, name: str, rows: list[Any], asked_for: tuple[Any, ...]
) -> None:
    calls = []

    def load_dataset(path: str, name: str | None = None, *, split: str) -> Any:
        calls.append((path, name, split))
        return iter(rows)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert len(load_task(name).rows) == len(rows)
    assert calls == [asked_for]
    broken = [{key: value for key, value in rows[0].items() if key != "question"}]
    rows = broken
    with pytest.raises(ValueError, match=rf"{asked_for[0]} \({asked_for[2]}\), row 1: field 'que"):
        load_task(name)


def test_a_missing_package_or_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install datasets, or give data= the path"):
        load_task("gsm8k")

    def load_dataset(*args: Any, **options: Any) -> Any:
        raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(
        OSError, match=r"openai/gsm8k .*no route.* or give data= the path"
    ) as caught:
        load_task("gsm8k")
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_word_problems_need_no_file() -> None:
    task = load_task("word-problems", rows=30)
    assert len(task.rows) == 30
    assert (task.name, task.guidance_tokens, task.max_tokens) == ("word_problems", 18, 120)
    for row in task.rows:
        assert isinstance(row["answer"], int)
        assert task.prompt(row) == [HumanMessage(row["question"])]
        assert task.judge(row["solution"], row) == {"answer": True}
        assert task.judge(f"The answer is {row['answer'] + 1}.", row) == {"answer": False}
        work = row["solution"].rsplit(" The answer is", 1)[0]
        assert task.judge(work, row) == {"answer": None}
        assert task.leaked(work, row)
        assert not task.leaked(row["solution"].split("=")[0].rsplit(".", 1)[0] + ".", row)
    assert len(load_task("word_problems").rows) == 500


def test_word_problems_differ_by_seed_and_zero_is_a_seed() -> None:
    drawn = [load_task("word_problems", rows=20, seed=seed) for seed in (None, 0, 1, 0)]
    assert drawn[1].rows == drawn[3].rows
    assert len({task.row_key(0) for task in drawn}) == 3


@pytest.mark.parametrize("options", [{"data": "x"}, {"exemplars": "x.txt"}, {"shots": 1}])
def test_word_problems_take_no_files(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"word_problems .* drop {next(iter(options))}"):
        load_task("word_problems", **options)
    assert load_task("word_problems", rows=1, shots=0).instruction is None
