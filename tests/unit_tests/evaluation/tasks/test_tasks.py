from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from support.programs.processes import run_python

from langchain_gkt import mark_exemplars
from langchain_gkt.evaluation.tasks.task import Example, Task

ROWS = [{"question": "2 + 2?", "answer": "4"}, {"question": "3 + 4?", "answer": "7"}]


def contains(text: str, row: Any) -> bool:
    return row["answer"] in text


def test_a_task_of_ones_own_is_three_lines() -> None:
    rows = [{"question": "2 + 2?", "answer": "4"}]
    task = Task("mine", rows, lambda text, row: row["answer"] in text)
    assert task.prompt(rows[0]) == [HumanMessage("2 + 2?")]
    assert task.judge("It is 4.", rows[0]) == {"answer": True}
    assert task.judge("It is 5.", rows[0]) == {"answer": False}


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"name": " "}, ValueError, "Task.name must not be blank"),
        ({"name": 3}, TypeError, "Task.name must be a text, not int"),
        ({"rows": []}, ValueError, "Task.rows is empty"),
        ({"rows": ROWS[0]}, TypeError, "Task.rows must be a list .*, not dict"),
        ({"rows": None}, TypeError, "Task.rows must be a list .*, not NoneType"),
        ({"rows": [ROWS[0], "2 + 2?"]}, TypeError, r"rows\[1\] must be a mapping, not str"),
        ({"rows": [*ROWS, {"q": "x"}]}, ValueError, r"rows\[2\] has no 'question'; it has: q"),
        ({"rows": [{"question": " "}]}, ValueError, r"rows\[0\]\['question'\] must not be blank"),
        ({"rows": [{"question": []}]}, ValueError, r"rows\[0\]\['question'\] is empty"),
        ({"rows": [{"question": 4}]}, TypeError, r"rows\[0\]\['question'\] must be a text or"),
        ({"rows": [{"question": ["x"]}]}, TypeError, r"rows\[0\]\['question'\] must be a text or"),
        ({"metric": "exact"}, TypeError, "Task.metric must be a function .*, not str"),
        ({"more_metrics": [contains]}, TypeError, "Task.more_metrics must map"),
        ({"more_metrics": {"in": 1}}, TypeError, r"more_metrics\['in'\] must be a function"),
        ({"more_metrics": {"answer": contains}}, ValueError, "'answer' is the name of the main"),
        ({"leaks": True}, TypeError, "Task.leaks must be a function"),
        ({"style": "base"}, ValueError, "Task.style must be 'chat' or 'text', not 'base'"),
        ({"examples": [("q", "a")]}, TypeError, r"Task.examples\[0\] must be Example"),
        ({"instruction": ""}, ValueError, "Task.instruction must not be blank"),
        ({"guidance_tokens": -1}, ValueError, "Task.guidance_tokens must be 0 or more, not -1"),
        ({"guidance_tokens": True}, TypeError, "Task.guidance_tokens must be an int, not bool"),
        ({"max_tokens": 0}, ValueError, "Task.max_tokens must be 1 or more, not 0"),
        ({"max_tokens": 1.5}, TypeError, "Task.max_tokens must be an int, not float"),
        ({"stop": "\nQ:"}, TypeError, "Task.stop must be a list of texts, not str"),
        ({"stop": ["\nQ:", ""]}, TypeError, r"Task.stop\[1\] must be a text that is not empty"),
    ],
)
def test_bad_fields_are_named_at_once(
    change: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        Task(**({"name": "mine", "rows": ROWS, "metric": contains} | change))


def test_async_metrics_are_refused() -> None:
    async def metric(text: str, row: Any) -> bool:
        return True

    with pytest.raises(TypeError, match=r"Task.metric must be a plain function"):
        Task("mine", ROWS, metric)  # type: ignore[arg-type]


@pytest.mark.parametrize(("question", "answer"), [("", "4"), ("2 + 2?", " "), ("2 + 2?", 4)])
def test_examples_have_two_texts(question: str, answer: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"Example\.(question|answer) must"):
        Example(question, answer)


def test_rows_may_come_from_a_generator_and_stay() -> None:
    rows = list(ROWS)
    task = Task("mine", (row for row in rows), contains)  # type: ignore[arg-type]
    assert len(task.rows) == 2
    other = Task("mine", rows, contains)
    rows.append({"question": "late"})
    assert len(other.rows) == 2


@pytest.mark.parametrize("instruction", [None, "Be brief."])
def test_chat_prompts_take_turns(instruction: str | None) -> None:
    task = Task("mine", ROWS, contains, examples=[Example("1 + 1?", "2.")], instruction=instruction)
    turns: list[BaseMessage] = [HumanMessage("1 + 1?"), AIMessage("2."), HumanMessage("3 + 4?")]
    first = [SystemMessage("Be brief.")] if instruction else []
    assert task.prompt(ROWS[1]) == [*first, *mark_exemplars(turns[:-1]), turns[-1]]


def test_text_prompts_are_one_message_that_ends_open() -> None:
    task = Task(
        "mine",
        ROWS,
        contains,
        style="text",
        examples=[Example("1 + 1?", "2."), Example("1 + 2?", "3.")],
        instruction="Add.",
    )
    assert task.prompt(ROWS[0]) == [
        HumanMessage("Add.\n\nQ: 1 + 1?\nA: 2.\n\nQ: 1 + 2?\nA: 3.\n\nQ: 2 + 2?\nA:")
    ]
    bare = Task("mine", ROWS, contains, style="text")
    assert bare.prompt(ROWS[0]) == [HumanMessage("Q: 2 + 2?\nA:")]


def test_a_question_may_be_messages_in_chat_style_only() -> None:
    talk = [HumanMessage("2 + 2?"), AIMessage("5."), HumanMessage("Really?")]
    row = {"question": talk, "answer": "4"}
    task = Task("mine", [row], contains, examples=[Example("1 + 1?", "2.")])
    examples = mark_exemplars([HumanMessage("1 + 1?"), AIMessage("2.")])
    assert task.prompt(row) == [*examples, *talk]
    with pytest.raises(ValueError, match=r"Task.rows\[1\]\['question'\].*style='chat'"):
        Task("mine", [ROWS[0], row], contains, style="text")
    with pytest.raises(ValueError, match=r"row\['question'\].*style='chat'"):
        Task("mine", ROWS, contains, style="text").prompt(row)


def test_prompts_share_no_messages() -> None:
    task = Task("mine", ROWS, contains, examples=[Example("1 + 1?", "2.")])
    task.prompt(ROWS[0])[0].content = "spoiled"
    assert task.prompt(ROWS[1])[0].content == "1 + 1?"


@pytest.mark.parametrize(
    ("returned", "verdict"),
    [
        (True, True),
        (False, False),
        (None, None),
        (1, True),
        (0, False),
        (np.bool_(True), True),
        (np.array([False]).all(), False),
        (np.array(True), True),
        (np.int64(1), True),
    ],
)
def test_verdicts_are_bool_or_none(returned: Any, verdict: bool | None) -> None:
    task = Task("mine", ROWS, contains, more_metrics={"other": lambda text, row: returned})
    found = task.judge("4", ROWS[0])
    assert list(found) == ["answer", "other"]
    assert found["other"] is verdict


@pytest.mark.parametrize("returned", ["yes", 1.0, 0.5, 2, [], np.array([True, False])])
def test_other_results_name_the_metric(returned: Any) -> None:
    side = Task("mine", ROWS, contains, more_metrics={"other": lambda text, row: returned})
    with pytest.raises(TypeError, match="metric 'other' must return True, False or None"):
        side.judge("4", ROWS[0])
    main = Task("mine", ROWS, lambda text, row: returned)
    with pytest.raises(TypeError, match="metric 'answer' must return"):
        main.leaked("4", ROWS[0])
    leaky = Task("mine", ROWS, contains, leaks=lambda guidance, row: returned)
    with pytest.raises(TypeError, match="leaks must return"):
        leaky.leaked("4", ROWS[0])


def test_guidance_leaks_where_the_metric_already_holds() -> None:
    task = Task("mine", ROWS, lambda text, row: contains(text, row) if text[-1] == "." else None)
    assert task.leaked("So it is 4.", ROWS[0])
    assert not task.leaked("So it is 5.", ROWS[0])
    assert not task.leaked("So it is 4", ROWS[0])
    assert not task.leaked(" ", ROWS[0])


def test_leaks_has_the_last_word_but_empty_guidance_never_leaks() -> None:
    task = Task("mine", ROWS, contains, leaks=lambda guidance, row: "!" in guidance or not guidance)
    assert task.leaked("5!", ROWS[0])
    assert not task.leaked("4", ROWS[0])
    assert not task.leaked("", ROWS[0])


def test_keys_do_not_change() -> None:
    # Written down: another value here means that no run in progress can be resumed.
    task = Task("mine", ROWS, contains, examples=[Example("1 + 1?", "2.")])
    assert [task.row_key(i) for i in (0, 1, -1)] == [
        "0000-625b3c456b2b",
        "0001-8ebf233cee03",
        "0001-8ebf233cee03",
    ]
    with pytest.raises(IndexError):
        task.row_key(2)


@pytest.mark.slow
def test_keys_are_the_same_in_another_process() -> None:
    code = (
        "from langchain_core.messages import HumanMessage\n"
        "from langchain_gkt.evaluation.tasks.task import Task\n"
        "rows = [{'question': [HumanMessage('a?', id='1')], 'tags': {'x', 'y', 'z', 'w'}}]\n"
        "print(Task('mine', rows, print).row_key(0))"
    )
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"  # another than ours
    done = run_python("-c", code, env={"PYTHONHASHSEED": seed, "PATH": ""})
    assert done.returncode == 0, done.stderr
    rows = [{"question": [HumanMessage("a?", id="2")], "tags": {"x", "y", "z", "w"}}]
    assert done.stdout.strip() == Task("mine", rows, print).row_key(0)
    assert done.stdout.startswith("0000-")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(
    st.dictionaries(st.text().filter(lambda name: name != "question"), JSON, max_size=4),
    st.text().filter(str.strip),
)
def test_keys_follow_the_content_of_rows(fields: dict[str, Any], question: str) -> None:
    row = {"question": question, **fields}
    read_back = json.loads(json.dumps(dict(reversed(row.items()))))
    changed = {**row, "question": question + "?"}
    more = {**row, "more": [fields.get("more")]}
    rows = [row, read_back, changed, more]
    hashes = [Task("mine", [one], contains).row_key(0) for one in rows]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_keys_follow_the_prompt() -> None:
    tasks = [
        Task("mine", ROWS, contains),
        Task("mine", ROWS, contains, style="text"),
        Task("mine", ROWS, contains, instruction="Add."),
        Task("mine", ROWS, contains, examples=[Example("1 + 1?", "2.")]),
    ]
    assert len({task.row_key(0) for task in tasks}) == len(tasks)


def test_fields_without_names_are_named_too() -> None:
    with pytest.raises(TypeError, match=r"^Task.rows\[1\] must be a mapping, not str$"):
        Task("mine", [ROWS[0], "2 + 2?"], contains)  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"^Task.metric is missing$"):
        Task("mine", ROWS)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^Task.metrics is not a field of Task$"):
        Task("mine", ROWS, contains, metrics={})  # type: ignore[call-arg]
