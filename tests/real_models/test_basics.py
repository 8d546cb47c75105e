"""What every user does, on real models: ask, stream, ask many, count, and ask again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from langchain_gkt import HuggingFaceStudent

QUESTIONS = [
    "What is a black hole?",
    "Write a haiku about rain.",
    "List three uses of copper.",
    "What is 17 times 23?",
    "Tell a short story about a fox.",
    "What causes tides?",
]
BEGUN = [("human", "Name five birds."), ("ai", "Five birds are the sparrow, the")]


def ask(student: HuggingFaceStudent, messages) -> str:
    return str(student.invoke(messages, max_tokens=40).text)


def test_a_stream_is_the_whole_answer(real) -> None:
    for messages in (QUESTIONS[0], BEGUN):
        chunks = [str(chunk.text) for chunk in real.stream(messages, max_tokens=40)]
        assert len(chunks) > 5
        assert "".join(chunks) == ask(real, messages)


def test_a_batch_writes_what_each_question_gets_alone(real) -> None:
    assert real.repeatable == "always"
    batch = [str(answer.text) for answer in real.batch([*QUESTIONS, BEGUN], max_tokens=40)]
    assert batch == [ask(real, messages) for messages in [*QUESTIONS, BEGUN]]


def test_the_text_is_that_of_transformers(real) -> None:
    engine, prompts = real._engine, real._loader.load().prompts
    for question in QUESTIONS:
        chat = prompts.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            out = engine.model.generate(**chat, max_new_tokens=40, do_sample=False)
        new = out[0, chat["input_ids"].shape[1] :]
        assert ask(real, question) == prompts.tokenizer.decode(new, skip_special_tokens=True)


def test_usage_counts_the_tokens(real) -> None:
    answer = real.invoke(QUESTIONS[1], max_tokens=7)
    usage = answer.usage_metadata
    assert usage["output_tokens"] == 7
    assert usage["input_tokens"] > len(real.get_token_ids(QUESTIONS[1]))
    assert usage["total_tokens"] == usage["input_tokens"] + 7


@pytest.fixture(scope="module")
def bfloat16(smollm2_folder: Path):
    student = HuggingFaceStudent(model=smollm2_folder, dtype="bfloat16")
    yield student
    student.close()


def test_a_prompt_asked_again_alone_gets_the_same_answer_in_bfloat16(bfloat16) -> None:
    assert bfloat16.repeatable == "alone"
    asked = [*QUESTIONS, BEGUN]
    first = [ask(bfloat16, messages) for messages in asked]
    assert [ask(bfloat16, messages) for messages in asked] == first
    assert [ask(bfloat16, messages) for messages in reversed(asked)] == first[::-1]
