"""Conversations: histories, begun answers, long ones, and what is no text."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from support.models.fakes import MODELS, make
from transformers import AutoTokenizer

from langchain_gkt import HuggingFaceStudent
from langchain_gkt.students.prompting import PromptBuilder


def test_a_conversation_that_ends_in_an_answer_is_continued(
    teacher, whole_student, problem
) -> None:
    begun, rest = problem.solution[:9], problem.solution[9:]
    teacher.answer = rest
    chain = make(teacher, whole_student, guidance_tokens=len(problem.plan) - 6)
    messages = [HumanMessage(problem.question), AIMessage(begun)]
    message = chain.invoke(messages)
    assert teacher.asked[0]["messages"] == messages
    assert begun + message.text == problem.solution
    student_alone = chain.invoke(messages, mode="student")
    assert not student_alone.text.startswith(begun)


def test_histories_reach_both(teacher, student, problem) -> None:
    history = [
        SystemMessage("You solve problems."),
        HumanMessage("1 + 1?"),
        AIMessage("2"),
        HumanMessage(problem.question),
    ]
    message = make(teacher, student, guidance_tokens=len(problem.plan) + 3).invoke(history)
    assert teacher.asked[0]["messages"] == history
    used = message.response_metadata["gkt"]["student_usage"]["input_tokens"]
    short = make(teacher, student, guidance_tokens=len(problem.plan) + 3).invoke(problem.question)
    assert used > short.response_metadata["gkt"]["student_usage"]["input_tokens"] + 8


def test_images_are_refused_by_place(teacher, student) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    messages = [HumanMessage("a"), AIMessage("b"), HumanMessage([image])]
    with pytest.raises(ValueError, match=r"messages\[2\] \(human\).*'image_url'.*text only"):
        make(teacher, student).invoke(messages)
    assert not teacher.asked


@pytest.mark.slow
def test_a_long_conversation_is_shortened_where_that_is_wanted(
    teacher, student, monkeypatch
) -> None:
    turns: list[Any] = [SystemMessage("Keep this.")]
    for number in range(60):
        turns += [HumanMessage(f"What is {number} plus {number}?"), AIMessage(f"{number + number}")]
    turns.append(HumanMessage("What is 3 plus 4?"))
    with pytest.raises(ValueError, match=r"prompt of \d+ tokens.*holds 512.*on_long_prompt"):
        student.invoke(turns)
    build, built = PromptBuilder.build_truncated, []

    def note(*args, **kwargs):
        written = build(*args, **kwargs)
        built.append((written.ids, written.answer_prefix))
        return written

    monkeypatch.setattr(PromptBuilder, "build_truncated", note)
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student")
    forgetful = HuggingFaceStudent(model=MODELS / "student", on_long_prompt="truncate")
    reply = forgetful.invoke([*turns, AIMessage("The sum")], max_tokens=64)
    prompt, prefill = built[-1]
    text = tokenizer.decode(prompt)
    assert reply.usage_metadata["input_tokens"] == len(prompt) + len(prefill)
    assert len(prompt) + len(prefill) <= 512 - 64
    assert len(prompt) + len(prefill) > 512 - 64 - 40  # no more is forgotten than must be
    assert text.startswith("<|system|>Keep this.<|end|><|user|>What is")
    assert text.endswith("<|user|>What is 3 plus 4?<|end|><|assistant|>")
    huge = HumanMessage("old words " * 400 + "the end of it?")
    reply = forgetful.invoke([huge], max_tokens=64)
    assert reply.usage_metadata["input_tokens"] <= 512 - 64
    assert "the end of it?" in tokenizer.decode(built[-1][0])
    chain = make(teacher, str(MODELS / "student"), student_kwargs={"on_long_prompt": "truncate"})
    assert chain.invoke(turns).text


def test_blocks_that_are_no_text_are_refused(teacher, student) -> None:
    for block in ({"type": "document", "source": {}}, {"type": "media", "data": "aa"}):
        with pytest.raises(ValueError, match=rf"messages\[0\].*'{block['type']}'"):
            make(teacher, student).invoke([HumanMessage([{"type": "text", "text": "x"}, block])])
    assert not teacher.asked
