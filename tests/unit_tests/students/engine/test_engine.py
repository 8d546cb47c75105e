"""The engine: a request gets the same tokens beside others as alone."""

from __future__ import annotations

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.models.tiny import (
    MAKERS,
    TOKENIZER,
    Recorder,
    ids,
    make_model,
    reference,
    run,
    tokens_of,
    wait_until,
)

from langchain_gkt import StudentError
from langchain_gkt.students.engine.engine import Engine, EngineConfig, Request
from langchain_gkt.students.engine.kv.kv_cache import BatchKVCache, KVCache
from langchain_gkt.students.engine.kv.prefix_cache import PrefixCache
from langchain_gkt.students.engine.model_runner import ModelRunner
from langchain_gkt.students.engine.prefill import Prefiller

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "shared": st.sampled_from([0, 0, 20, 40, 70]),
            "own": st.integers(1, 30),
            "prefill": st.integers(0, 5),
            "new": st.integers(1, 16),
            "after_ms": st.integers(0, 30),
        }
    ),
    min_size=1,
    max_size=7,
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the student .* has no KV cache")
@pytest.mark.parametrize("kind", list(MAKERS))
@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(rows=ROWS, batch=st.integers(1, 5), prefix_bytes=st.sampled_from([0, 20_000, 10**7]))
def test_neighbours_change_no_token(kind, rows, batch, prefix_bytes, models) -> None:
    model = models(kind)
    limits = EngineConfig(max_batch_size=batch, prefix_cache_bytes=prefix_bytes)
    engine = Engine(model, TOKENIZER, limits)
    requests = [
        Request(
            prompt=[*ids(0, row["shared"]), *ids(i + 1, row["own"])],
            answer_prefix=ids(50 + i, row["prefill"]),
            max_tokens=row["new"],
        )
        for i, row in enumerate(rows)
    ]

    def one(at: int) -> list[int]:
        time.sleep(rows[at]["after_ms"] / 1000)
        return tokens_of(engine, requests[at])

    with ThreadPoolExecutor(len(rows)) as pool:
        got = list(pool.map(one, range(len(rows))))
    assert got == [reference(model, request) for request in requests]
    stats = engine.scheduler.stats()
    assert stats["rows"] == stats["waiting"] == stats["kv_tokens"] == 0
    assert stats["prefix_bytes"] <= prefix_bytes
    engine.close()
    stats = engine.scheduler.stats()
    assert stats["kv_bytes"] == stats["prefix_bytes"] == 0
    assert engine.scheduler.queue.thread is None


@pytest.mark.parametrize(
    ("kind", "batches", "shares"),
    [
        ("llama", True, True),
        ("grouped", True, True),
        ("gpt2", True, True),
        ("sliding", True, False),
        ("mixed", True, False),
        ("bloom", True, False),
        ("t5", False, False),
    ],
)
def test_models_take_the_path_they_can(kind, batches, shares, models) -> None:
    engine = Engine(models(kind), TOKENIZER)
    run(engine, Request(prompt=[5], answer_prefix=[], max_tokens=1))
    assert (
        engine.scheduler.model_runner.can_batch,
        engine.scheduler.model_runner.can_share_prefixes,
    ) == (batches, shares)
    engine.close()


def test_rows_are_decoded_together(engine) -> None:
    requests = [Request(prompt=ids(i, 9), answer_prefix=[], max_tokens=30) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda request: run(engine, request), requests))
    assert engine.scheduler.steps < 3 * 30


def test_a_shared_beginning_is_computed_once(engine, monkeypatch) -> None:
    fed = []
    prefill = engine.scheduler.model_runner.prefill
    monkeypatch.setattr(
        engine.scheduler.model_runner,
        "prefill",
        lambda cache, chunk: fed.append(len(chunk)) or prefill(cache, chunk),
    )
    head = ids(0, 80)
    for i in range(3):
        run(engine, Request(prompt=[*head, *ids(i + 1, 6)], answer_prefix=[], max_tokens=2))
    assert fed == [86, 6, 6]


def test_prompts_are_forgotten_least_recently_used_first(engine, models) -> None:
    per_token = 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, head size, bytes
    engine = Engine(models("grouped"), TOKENIZER, EngineConfig(prefix_cache_bytes=50 * per_token))
    scheduler = engine.scheduler
    for seed in (1, 2, 1, 3):  # 3 has room only without 2
        run(engine, Request(prompt=ids(seed, 20), answer_prefix=[], max_tokens=1))
    wait_until(lambda: scheduler.prefix_cache.match([*ids(3, 20), 9]).length)
    assert scheduler.stats()["prefix_bytes"] == 40 * per_token
    known = {seed: scheduler.prefix_cache.match([*ids(seed, 20), 9]).length for seed in (1, 2, 3)}
    assert known == {1: 20, 2: 0, 3: 20}
    engine.close()


def test_a_prompt_is_prefilled_ahead_of_its_guidance(engine, monkeypatch) -> None:
    prompt = ids(1, 60)
    with engine.prefill(prompt):
        wait_until(lambda: engine.scheduler.stats()["prefix_bytes"] > 0)
        fed = []
        prefill = engine.scheduler.model_runner.prefill
        monkeypatch.setattr(
            engine.scheduler.model_runner,
            "prefill",
            lambda cache, chunk: fed.append(len(chunk)) or prefill(cache, chunk),
        )
        request = Request(prompt=prompt, answer_prefix=ids(2, 4), max_tokens=5)
        assert tokens_of(engine, request) == reference(engine.model, request)
    assert fed == [4]
    assert engine.scheduler.stats()["prefix_bytes"] > 0  # its request has come


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_prompt_prefilled_for_nothing_is_freed(when, engine) -> None:
    ahead = engine.prefill(ids(1, 60))
    if when == "later":
        wait_until(lambda: engine.scheduler.stats()["prefix_bytes"] > 0)
    ahead.close()
    ahead.close()
    wait_until(lambda: not engine.scheduler.queue.has_work)
    assert engine.scheduler.stats()["prefix_bytes"] == 0


def test_guidance_does_not_wait_for_a_neighbours_whole_answer(engine) -> None:
    long = engine.generate(Request(prompt=[5], answer_prefix=[], max_tokens=200), threading.Event())
    next(long)
    run(engine, Request(prompt=[6], answer_prefix=[], max_tokens=3))
    wait_until(lambda: engine.scheduler.stats()["rows"] < 2)  # a row goes after its last piece
    assert engine.scheduler.stats()["rows"] == 1
    long.close()


def test_seeds_belong_to_rows(engine) -> None:
    hot = Request(prompt=ids(1, 5), answer_prefix=[], max_tokens=12, temperature=1.5, top_p=0.9)
    seeds = [1, 2, 3, 1, 2, 3]
    alone = [tokens_of(engine, dataclasses.replace(hot, seed=seed)) for seed in seeds]
    with ThreadPoolExecutor(6) as pool:
        together = list(
            pool.map(lambda s: tokens_of(engine, dataclasses.replace(hot, seed=s)), seeds)
        )
    assert together == alone
    assert len({tuple(tokens) for tokens in alone}) == 3
    assert tokens_of(engine, hot) != tokens_of(engine, hot)  # no seed: fresh chance


def test_a_constraint_is_obeyed_and_may_end_the_answer(engine) -> None:
    recorder = Recorder(complete_after=4, allow=[11, 12])
    request = Request(prompt=[5, 6], answer_prefix=[], max_tokens=9, constraint=recorder)
    last = run(engine, request)[-1]
    assert (last.tokens, last.finish_reason) == (4, "stop")
    assert set(recorder.tokens) <= {11, 12}
    nothing = dataclasses.replace(request, constraint=Recorder(allow=[]))
    with pytest.raises(StudentError, match="forbids every token"):
        run(engine, nothing)


def test_numbers_that_are_none_end_their_row_alone(models) -> None:
    model = make_model("llama")
    model.config.tie_word_embeddings = False
    with torch.no_grad():
        model.model.embed_tokens.weight[9] = float("nan")
    engine = Engine(model, TOKENIZER)
    good = Request(prompt=[5, 6, 7], answer_prefix=[], max_tokens=20)
    want = tokens_of(engine, good)
    assert 9 not in want

    class ToNine(Recorder):
        """Chooses 9 at the fifth token, whose keys and values are no numbers."""

        def restrict(self, logits: torch.Tensor) -> torch.Tensor:
            return logits.index_fill(0, torch.tensor([9]), 1e9) if len(self.tokens) == 4 else logits

    bad = dataclasses.replace(good, constraint=ToNine())
    with ThreadPoolExecutor(3) as pool:
        sound = [pool.submit(tokens_of, engine, good) for _ in range(2)]
        with pytest.raises(StudentError, match="not numbers"):
            run(engine, bad)
        assert [future.result() for future in sound] == [want, want]
    assert tokens_of(engine, good) == want  # and nothing of it is left behind
    engine.close()


def test_what_a_model_raises_reaches_its_callers_and_no_later_one(engine, monkeypatch) -> None:
    def fail(*args):
        raise RuntimeError("out of memory")

    request = Request(prompt=[5, 6], answer_prefix=[], max_tokens=4)
    want = tokens_of(engine, request)
    for name in ("prefill", "decode"):
        with monkeypatch.context() as patch:
            patch.setattr(engine.scheduler.model_runner, name, fail)
            with pytest.raises(StudentError, match=r"RuntimeError: out of memory") as caught:
                run(engine, request)
            assert isinstance(caught.value.__cause__, RuntimeError)
    assert tokens_of(engine, request) == want


def test_a_rows_broken_numbers_do_not_reach_the_next_one_in_its_place(models) -> None:
    runner = ModelRunner(models("grouped"), is_encoder_decoder=False)
    with torch.inference_mode():
        runner.detect_capabilities()
        long, short = KVCache(2, 20), KVCache(2, 20)
        runner.prefill(long, ids(1, 12))
        runner.prefill(short, ids(2, 3))
        batch = BatchKVCache(2, torch.device("cpu"))
        batch.add(long)
        batch.add(long)
        for layer in batch.layers:
            layer.keys[1], layer.values[1] = float("nan"), float("nan")
        batch.clear_row(1)
        batch.remove(1)
        batch.add(short)
        got = runner.decode(batch, [7, 8])
        alone = BatchKVCache(2, torch.device("cpu"))
        alone.add(short)
        assert torch.allclose(got[1], runner.decode(alone, [8])[0], atol=1e-4)


def test_a_buffer_that_holds_a_part_is_filled_up_from_the_prefix_cache(models) -> None:
    runner = ModelRunner(models("grouped"), is_encoder_decoder=False)
    known = ids(1, 40)
    with torch.inference_mode():
        runner.detect_capabilities()
        prefix_cache = PrefixCache(10**6)
        prefiller = Prefiller(runner, prefix_cache)
        cold = prefiller.start(known, len(known))
        prefiller.advance(cold, 99)
        prefix_cache.insert(known, cold.cache)
        prefiller.advance(prefiller.start([*known[:10], 7, 8], 12), 99)  # and this is not inserted
        warm = prefiller.start([*known, 9], 41)
        assert warm.cache.window.end == 40
        fresh = KVCache(2, 40)
        runner.prefill(fresh, known)
        for got, want in zip(warm.cache.segment(0, 40), fresh.segment(0, 40), strict=True):
            assert torch.allclose(got[0], want[0], atol=1e-5)
            assert torch.allclose(got[1], want[1], atol=1e-5)
