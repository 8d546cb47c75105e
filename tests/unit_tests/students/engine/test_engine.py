"""The engine: whatever runs beside a row, it gets the tokens it gets alone."""

from __future__ import annotations

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tiny import (
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
from langchain_gkt.students.engine.engine import Engine, Limits, Request
from langchain_gkt.students.engine.kv_cache import Batch, KeyValues
from langchain_gkt.students.engine.lookup import Lookup
from langchain_gkt.students.engine.model_runner import Forward
from langchain_gkt.students.engine.prefill import Filler
from langchain_gkt.students.engine.prefix_cache import PrefixCache

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "shared": st.sampled_from([0, 0, 20, 40, 70]),
            "own": st.integers(1, 30),
            "prefill": st.integers(0, 5),
            "new": st.integers(1, 25),
            "after_ms": st.integers(0, 30),
        }
    ),
    min_size=1,
    max_size=7,
)


@pytest.mark.filterwarnings("ignore:the student .* has no KV cache")
@pytest.mark.parametrize("kind", list(MAKERS))
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=ROWS, batch=st.integers(1, 5), prefix_bytes=st.sampled_from([0, 20_000, 10**7]))
def test_neighbours_change_no_token(kind, rows, batch, prefix_bytes, models) -> None:
    model = models(kind)
    limits = Limits(max_batch_size=batch, prefix_cache_bytes=prefix_bytes)
    engine = Engine(model, TOKENIZER, limits)
    requests = [
        Request(
            prompt=[*ids(0, row["shared"]), *ids(i + 1, row["own"])],
            prefill=ids(50 + i, row["prefill"]),
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
    stats = engine.worker.stats()
    assert stats["rows"] == stats["waiting"] == stats["kv_tokens"] == 0
    assert stats["prefix_bytes"] <= prefix_bytes
    engine.close()
    stats = engine.worker.stats()
    assert stats["kv_bytes"] == stats["prefix_bytes"] == 0
    assert engine.worker._thread is None


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
    run(engine, Request(prompt=[5], prefill=[], max_tokens=1))
    assert (engine.worker.forward.batches, engine.worker.forward.shares) == (batches, shares)
    engine.close()


def test_rows_are_decoded_together(engine) -> None:
    requests = [Request(prompt=ids(i, 9), prefill=[], max_tokens=30) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda request: run(engine, request), requests))
    assert engine.worker.steps < 3 * 30


def test_a_shared_beginning_is_computed_once(engine, monkeypatch) -> None:
    fed = []
    prefill = engine.worker.forward.prefill
    monkeypatch.setattr(
        engine.worker.forward,
        "prefill",
        lambda held, chunk: fed.append(len(chunk)) or prefill(held, chunk),
    )
    head = ids(0, 80)
    for i in range(3):
        run(engine, Request(prompt=[*head, *ids(i + 1, 6)], prefill=[], max_tokens=2))
    assert fed == [86, 6, 6]


def test_prompts_are_forgotten_least_recently_used_first(engine, models) -> None:
    per_token = 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, head size, bytes
    engine = Engine(models("grouped"), TOKENIZER, Limits(prefix_cache_bytes=50 * per_token))
    worker = engine.worker
    for seed in (1, 2, 1, 3):  # 3 has room only without 2
        run(engine, Request(prompt=ids(seed, 20), prefill=[], max_tokens=1))
    wait_until(lambda: worker.prefixes.match([*ids(3, 20), 9]).length)
    assert worker.stats()["prefix_bytes"] == 40 * per_token
    known = {seed: worker.prefixes.match([*ids(seed, 20), 9]).length for seed in (1, 2, 3)}
    assert known == {1: 20, 2: 0, 3: 20}
    engine.close()


def test_a_prompt_is_prefilled_ahead_of_its_guidance(engine, monkeypatch) -> None:
    prompt = ids(1, 60)
    with engine.prefill(prompt):
        wait_until(lambda: engine.worker.stats()["prefix_bytes"] > 0)
        fed = []
        prefill = engine.worker.forward.prefill
        monkeypatch.setattr(
            engine.worker.forward,
            "prefill",
            lambda held, chunk: fed.append(len(chunk)) or prefill(held, chunk),
        )
        request = Request(prompt=prompt, prefill=ids(2, 4), max_tokens=5)
        assert tokens_of(engine, request) == reference(engine.model, request)
    assert fed == [4]
    assert engine.worker.stats()["prefix_bytes"] > 0  # its request has come


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_prompt_prefilled_for_nothing_is_freed(when, engine) -> None:
    ahead = engine.prefill(ids(1, 60))
    if when == "later":
        wait_until(lambda: engine.worker.stats()["prefix_bytes"] > 0)
    ahead.close()
    ahead.close()
    wait_until(lambda: not engine.worker._busy())
    assert engine.worker.stats()["prefix_bytes"] == 0


def test_guidance_does_not_wait_for_a_neighbours_whole_answer(engine) -> None:
    long = engine.generate(Request(prompt=[5], prefill=[], max_tokens=200), threading.Event())
    next(long)
    run(engine, Request(prompt=[6], prefill=[], max_tokens=3))
    assert engine.worker.stats()["rows"] == 1
    long.close()


@pytest.mark.parametrize("kind", ["grouped", "gpt2", "sliding"])
def test_guessing_from_the_text_changes_nothing_but_the_steps(kind) -> None:
    model = make_model(kind)
    for name, weight in model.named_parameters():
        if "attn" in name and ("o_proj.weight" in name or "c_proj.weight" in name):
            weight.data *= 0.1  # what comes next is mostly up to the last token,
    model.get_output_embeddings().weight.data[45:] = 0  # and there are few: it goes round
    plain = Engine(model, TOKENIZER)
    guessing = Engine(model, TOKENIZER, Limits(prompt_lookup=8))
    ends, steps = set(), {plain: 0, guessing: 0}
    for seed in range(6):
        request = Request(prompt=ids(seed, 9), prefill=[], max_tokens=70 if seed else 1)
        # The prompt holds the answer to its last words, so that some of it is guessed.
        answer = tokens_of(plain, request)
        request = dataclasses.replace(request, prompt=[*request.prompt, *answer, *request.prompt])
        text = "".join(piece.text for piece in run(plain, request))
        if seed % 2:
            request = dataclasses.replace(request, stop=(text[len(text) // 2 :][:3],))
        last = {}
        for engine in (plain, guessing):
            before = engine.worker.steps
            last[engine] = run(engine, request, whole=True)
            steps[engine] += engine.worker.steps - before
        assert last[plain] == last[guessing]
        ends.add(last[plain][0].finish_reason)
    assert ends == {"stop", "length"}
    assert steps[guessing] < steps[plain]
    plain.close()
    guessing.close()


def test_a_run_that_occurred_before_is_continued_as_before() -> None:
    lookup = Lookup([1, 2, 3, 4, 5, 6, 1, 2])
    assert lookup.guess(4) == []
    lookup.add(3)
    assert lookup.guess(4) == [4, 5, 6, 1]
    assert lookup.guess(2) == [4, 5]
    assert lookup.guess(0) == []
    lookup.add(9)
    assert lookup.guess(4) == []


def test_seeds_belong_to_rows(engine) -> None:
    hot = Request(prompt=ids(1, 5), prefill=[], max_tokens=12, temperature=1.5, top_p=0.9)
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
    request = Request(prompt=[5, 6], prefill=[], max_tokens=9, constraint=recorder)
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
    good = Request(prompt=[5, 6, 7], prefill=[], max_tokens=20)
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

    request = Request(prompt=[5, 6], prefill=[], max_tokens=4)
    want = tokens_of(engine, request)
    for name in ("prefill", "decode"):
        with monkeypatch.context() as patch:
            patch.setattr(engine.worker.forward, name, fail)
            with pytest.raises(StudentError, match=r"RuntimeError: out of memory") as caught:
                run(engine, request)
            assert isinstance(caught.value.__cause__, RuntimeError)
    assert tokens_of(engine, request) == want


def test_a_rows_broken_numbers_do_not_reach_the_next_one_in_its_place(models) -> None:
    forward = Forward(models("grouped"), is_encoder_decoder=False)
    with torch.inference_mode():
        forward.try_out()
        long, short = KeyValues(2, 20), KeyValues(2, 20)
        forward.prefill(long, ids(1, 12))
        forward.prefill(short, ids(2, 3))
        batch = Batch(2, torch.device("cpu"))
        batch.join(long)
        batch.join(long)
        for layer in batch.layers:
            layer.keys[1], layer.values[1] = float("nan"), float("nan")
        batch.scrub(1)
        batch.leave(1)
        batch.join(short)
        got = forward.decode(batch, [7, 8])
        alone = Batch(2, torch.device("cpu"))
        alone.join(short)
        assert torch.allclose(got[1], forward.decode(alone, [8])[0], atol=1e-4)


def test_a_buffer_that_holds_a_part_is_filled_up_from_the_prefix_cache(models) -> None:
    forward = Forward(models("grouped"), is_encoder_decoder=False)
    known = ids(1, 40)
    with torch.inference_mode():
        forward.try_out()
        prefixes = PrefixCache(10**6)
        filler = Filler(forward, prefixes)
        cold = filler.begin(known)
        filler.feed(cold, 99)
        prefixes.insert(known, cold.held)
        filler.feed(filler.begin([*known[:10], 7, 8]), 99)  # and this is not inserted
        warm = filler.begin([*known, 9])
        assert warm.held.window.end == 40
        fresh = KeyValues(2, 40)
        forward.prefill(fresh, known)
        for got, want in zip(warm.held.segment(0, 40), fresh.segment(0, 40), strict=True):
            assert torch.allclose(got[0], want[0], atol=1e-5)
            assert torch.allclose(got[1], want[1], atol=1e-5)
