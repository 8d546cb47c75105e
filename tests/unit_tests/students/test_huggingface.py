"""One student: its text, its limits and its errors."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading

import pytest
import torch
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
)
from support.models.fakes import MODELS
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
)

from langchain_gkt import (
    HuggingFaceStudent,
    StudentError,
)
from langchain_gkt.students.engine.engine import Engine, Request
from langchain_gkt.students.prompting import PromptBuilder


def reference(model, tokenizer, prompt: list[int], count: int, **extra) -> str:
    """What transformers itself generates, greedily."""
    out = model.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False, **extra)
    new = out[0] if model.config.is_encoder_decoder else out[0, len(prompt) :]
    return tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.slow
def test_greedy_text_is_what_transformers_generates(student, problem) -> None:
    model = AutoModelForCausalLM.from_pretrained(MODELS / "student", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student")
    prompt, _ = PromptBuilder(tokenizer).build([HumanMessage(problem.question)])
    assert student.invoke(problem.question).text == reference(model, tokenizer, prompt, 120)


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_models_without_a_template(name, plain_folders) -> None:
    student = HuggingFaceStudent(model=plain_folders[name], max_tokens=12)
    engine, prompts = student._engine, student._loader.load().prompts
    prompt, prefill = prompts.build([HumanMessage("Q: 1 + 1?\nA:"), AIMessage("The sum")])
    assert engine.tokenizer.decode(prompt) == "Q: 1 + 1?\nA:"
    assert engine.tokenizer.decode(prefill) == " The sum"
    got = student.invoke([("human", "Q: 1 + 1?\nA:"), ("ai", "The sum")])
    if name == "gpt2":
        want = reference(engine.model, engine.tokenizer, prompt + prefill, 12)
    else:
        start = torch.tensor([[0, *prefill]])
        whole = reference(engine.model, engine.tokenizer, prompt, 12, decoder_input_ids=start)
        want = whole.removeprefix(engine.tokenizer.decode(prefill))
    assert got.text == want
    assert got.usage_metadata["input_tokens"] == len(prompt) + len(prefill)


@pytest.mark.slow
def test_the_seam_loses_and_repeats_nothing(student, problem) -> None:
    whole = student.invoke([("human", problem.question), ("ai", problem.plan)]).text
    assert problem.plan + whole == problem.solution
    for size in range(1, len(problem.plan)):
        begun = problem.plan[:size]
        if begun == begun.rstrip():
            rest = student.invoke([("human", problem.question), ("ai", begun)], max_tokens=8).text
            assert "  " not in begun + rest


def test_streamed_text_is_the_invoked_one(student, problem) -> None:
    chunks = list(student.stream(problem.question))
    message = student.invoke(problem.question)
    assert len(chunks) > 10
    assert "".join(chunk.text for chunk in chunks) == message.text
    assert chunks[-1].usage_metadata == message.usage_metadata
    assert message.response_metadata["finish_reason"] == "stop"


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["answer is", "wer", " = ", "T"])
def test_stop_strings_are_trimmed_wherever_tokens_split(stop, student, problem) -> None:
    whole = student.invoke(problem.question).text
    message = student.invoke(problem.question, stop=[stop, "never"])
    assert message.text == whole.split(stop)[0]
    assert message.response_metadata["finish_reason"] == "stop"
    chunks = student.stream(problem.question, stop=[stop])
    assert "".join(chunk.text for chunk in chunks) == message.text


def test_max_tokens_and_context(student, problem) -> None:
    message = student.invoke(problem.question, max_tokens=7)
    assert message.usage_metadata["output_tokens"] == 7
    assert message.response_metadata["finish_reason"] == "length"
    with pytest.raises(ValueError, match=r"prompt of \d+ tokens, but .* context holds 512"):
        student.invoke("1 " * 600)


@pytest.mark.slow
def test_seeds_make_samples_repeat(student, problem) -> None:
    def draw(seed: int) -> str:
        return student.invoke(problem.question, temperature=5.0, seed=seed, max_tokens=20).text

    with torch.random.fork_rng():
        first = draw(1)
        torch.manual_seed(99)  # the global generator has no say
        assert draw(1) == first
    assert len({draw(seed) for seed in range(4)}) > 1
    narrow = student.invoke(problem.question, temperature=5.0, top_p=1e-6, seed=3)
    assert narrow.text == student.invoke(problem.question).text


def test_weights_that_are_not_numbers_are_named(student) -> None:
    model = copy.deepcopy(student._engine.model)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    broken = Engine(model, student._engine.tokenizer)
    with pytest.raises(StudentError, match="not numbers"):
        list(
            broken.generate(Request(prompt=[2], answer_prefix=[], max_tokens=1), threading.Event())
        )


def test_bad_calls_are_named(student) -> None:
    with pytest.raises(TypeError, match="did you mean 'max_tokens'"):
        student.invoke("x", max_token=3)
    with pytest.raises(ValueError, match="prompt is empty"):
        student.invoke([("ai", "only an answer")])
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}, {"type": "text", "text": "x"}]
    with pytest.raises(ValueError, match=r"messages\[1\].*'image_url'.*text only"):
        student.invoke([("system", "s"), HumanMessage(image)])


def test_copies_and_pickles(student, problem) -> None:
    assert copy.deepcopy(student)._engine is student._engine
    again = pickle.loads(pickle.dumps(student))
    assert len(pickle.dumps(student)) < 10_000
    assert again.invoke(problem.question).text == student.invoke(problem.question).text
    assert "Tensor" not in repr(student)


@pytest.mark.slow
async def test_async_is_sync(student, problem) -> None:
    message = await student.ainvoke(problem.question)
    assert message.text == student.invoke(problem.question).text
    chunks = [chunk.text async for chunk in student.astream(problem.question)]
    assert "".join(chunks) == message.text


async def test_a_closed_stream_stops_within_a_step(problem) -> None:
    student = HuggingFaceStudent(model=MODELS / "student")
    scheduler = student._engine.scheduler

    async def ends_soon(made: int) -> None:
        await asyncio.sleep(0.2)
        assert scheduler.steps <= made + 1
        assert scheduler.stats()["rows"] == scheduler.stats()["kv_tokens"] == 0

    stream = student.stream(problem.question)
    next(stream)
    stream.close()
    made = scheduler.steps
    assert made < 20
    await ends_soon(made)
    astream = student.astream(problem.question)
    await anext(astream)
    await astream.aclose()
    await ends_soon(scheduler.steps)


def test_a_cancelled_request_yields_nothing_more(student) -> None:
    cancelled = threading.Event()
    pieces = student._engine.generate(
        Request(prompt=[2, 70, 3], answer_prefix=[], max_tokens=9), cancelled
    )
    cancelled.set()
    assert list(pieces) == []
