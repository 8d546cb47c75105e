"""Many users of one engine: how rows end, wait and share it."""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.models.fakes import MODELS
from support.models.tiny import (
    TOKENIZER,
    Recorder,
    ids,
    make_model,
    run,
    tokens_of,
    wait_until,
    write_no_more,
)

from langchain_gkt import HuggingFaceStudent, StudentError
from langchain_gkt.students.engine.engine import Engine, EngineConfig, Request


def test_cancelling_stops_within_a_step_and_frees(engine) -> None:
    cancelled = threading.Event()
    pieces = engine.generate(Request(prompt=[5], answer_prefix=[], max_tokens=240), cancelled)
    next(pieces)
    cancelled.set()
    made = engine.scheduler.steps
    assert all(piece.finish_reason is None for piece in pieces)
    assert engine.scheduler.steps <= made + 1
    assert engine.scheduler.stats()["kv_tokens"] == 0


async def test_a_hundred_users_need_no_threads(engine) -> None:
    requests = [Request(prompt=ids(i, 4), answer_prefix=[], max_tokens=6) for i in range(100)]
    before = threading.active_count()
    most = 0

    async def one(request: Request) -> str:
        nonlocal most
        text = ""
        async for piece in engine.agenerate(request):
            most = max(most, threading.active_count())
            text += piece.text
        return text

    got = await asyncio.gather(*map(one, requests))
    assert most <= before + 1
    want = ["".join(p.text for p in run(engine, request)) for request in requests[:5]]
    assert got[:5] == want


async def test_a_cancelled_task_frees_its_row(engine) -> None:
    request = Request(prompt=[5], answer_prefix=[], max_tokens=240)

    async def one() -> None:
        async for _ in engine.agenerate(request):
            pass

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(one(), 0.03)
    made = engine.scheduler.steps
    await asyncio.sleep(0.1)
    assert engine.scheduler.steps <= made + 1
    assert engine.scheduler.stats()["kv_tokens"] == 0


def test_a_full_queue_refuses_and_order_is_kept(models) -> None:
    engine = Engine(models("llama"), TOKENIZER, EngineConfig(max_batch_size=1, max_queue=2))
    first = engine.generate(
        Request(prompt=[5], answer_prefix=[], max_tokens=240), threading.Event()
    )
    next(first)
    ended = []

    def wait(name: str) -> None:
        # The third takes much longer, so that its thread cannot overtake the second's.
        tokens = {"second": 20, "third": 240}[name]
        run(engine, Request(prompt=[6], answer_prefix=[], max_tokens=tokens))
        ended.append(name)

    threads = []
    for name in ("second", "third"):
        threads.append(threading.Thread(target=wait, args=(name,)))
        threads[-1].start()
        wait_until(lambda: engine.scheduler.stats()["waiting"] == len(threads))
    with pytest.raises(StudentError, match=r"2 requests already wait .* max_queue=2"):
        run(engine, Request(prompt=[6], answer_prefix=[], max_tokens=20))
    first.close()
    for thread in threads:
        thread.join(60)
    assert ended == ["second", "third"]
    engine.close()


def test_memory_bounds_who_runs(models) -> None:
    engine = Engine(models("llama"), TOKENIZER, EngineConfig(kv_tokens=60))
    most = 0
    step = engine.scheduler._decode

    def counted() -> None:
        nonlocal most
        most = max(most, engine.scheduler.stats()["rows"])
        step()

    engine.scheduler._decode = counted
    requests = [Request(prompt=ids(i, 10), answer_prefix=[], max_tokens=15) for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda request: run(engine, request), requests))
    assert most == 2  # 2 rows of 25 tokens fit, 3 do not
    with pytest.raises(StudentError, match=r"up to 70 tokens .* kv_tokens allows 60"):
        run(engine, Request(prompt=ids(1, 10), answer_prefix=[], max_tokens=60))
    with pytest.raises(StudentError, match=r"up to 260 tokens .* context holds 256"):
        run(engine, Request(prompt=ids(1, 10), answer_prefix=[], max_tokens=250))
    engine.close()


def test_a_closed_student_says_so() -> None:
    student = HuggingFaceStudent(model=MODELS / "student")
    write_no_more(student._engine.scheduler)
    stream = student.stream("What is 3 plus 4?", max_tokens=400, temperature=0)
    next(stream)
    thread = student._engine.scheduler.queue.thread
    student.close()
    assert not thread.is_alive()
    with pytest.raises(StudentError, match="closed"):
        list(stream)
    with pytest.raises(StudentError, match="closed"):
        student.invoke("What is 3 plus 4?")
    assert student._engine.scheduler.queue.thread is None


def test_a_pickled_or_forked_engine_starts_anew(engine) -> None:
    request = Request(prompt=[5, 6], answer_prefix=[], max_tokens=5)
    want = tokens_of(engine, request)
    again = pickle.loads(pickle.dumps(engine))
    assert tokens_of(again, request) == want
    again.close()
    child = os.fork()
    if child == 0:  # while the parent's thread lingers
        os._exit(0 if tokens_of(engine, request) == want else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_users_threads_stay_theirs(engine) -> None:
    before, seen = torch.get_num_threads(), []

    class Looks(Recorder):
        def choose(self, logits: torch.Tensor, pick) -> int:
            seen.append(torch.get_num_threads())
            return super().choose(logits, pick)

    run(engine, Request(prompt=[5], answer_prefix=[], max_tokens=2, constraint=Looks()))
    assert torch.get_num_threads() == before
    assert set(seen) == {before}


def test_the_number_of_threads_can_be_given() -> None:
    before, seen = torch.get_num_threads(), []

    class Looks(Recorder):
        def restrict(self, logits):
            seen.append(torch.get_num_threads())
            return logits

    engine = Engine(make_model("llama"), TOKENIZER, EngineConfig(threads=before + 1))
    try:
        run(engine, Request(prompt=[5], answer_prefix=[], max_tokens=2, constraint=Looks()))
    finally:
        engine.close()
        torch.set_num_threads(before)
    assert set(seen) == {before + 1}


def test_a_model_without_cache_is_named_once(models) -> None:
    with pytest.warns(UserWarning, match=r"OpenAIGPTLMHeadModel\) has no KV cache"):
        engine = Engine(models("no cache"), TOKENIZER)
    run(engine, Request(prompt=[5], answer_prefix=[], max_tokens=3))
    engine.close()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_batch_size": 0}, "max_batch_size=0 must be at least 1"),
        ({"kv_tokens": 0}, "kv_tokens=0 must be at least 1, or None"),
        ({"prefix_cache_bytes": -1}, "prefix_cache_bytes=-1"),
        ({"threads": 0}, "threads=0 must be at least 1, or None"),
    ],
)
def test_bad_settings_are_named(settings, says) -> None:
    with pytest.raises(ValueError, match=says):
        EngineConfig(**settings)


def test_a_prompt_that_is_asked_again_alone_runs_through_the_same_last_pass(monkeypatch) -> None:
    engine = Engine(make_model("llama").to(torch.bfloat16), TOKENIZER)
    assert engine.repeatable == "alone"
    passes: list[int] = []
    feed = engine.scheduler.model_runner.prefill
    monkeypatch.setattr(
        engine.scheduler.model_runner,
        "prefill",
        lambda cache, chunk: passes.append(len(chunk)) or feed(cache, chunk),
    )
    prompt = ids(1, 70)
    first = Request(prompt=prompt, answer_prefix=[], max_tokens=4)
    begun = Request(prompt=prompt, answer_prefix=ids(2, 6), max_tokens=4)
    longer = Request(prompt=[*prompt, *ids(3, 9)], answer_prefix=[], max_tokens=4)
    last: dict[int, set[int]] = {}
    for request in (first, begun, longer, first, begun, longer, begun, first):
        run(engine, request)
        last.setdefault(id(request), set()).add(passes[-1])
    assert last == {id(first): {1}, id(begun): {1 + 6}, id(longer): {1}}
    assert passes[:4] == [69, 1, 7, 9]  # what is before the last pass is computed once
    engine.close()
    assert Engine(make_model("llama"), TOKENIZER).repeatable == "always"
