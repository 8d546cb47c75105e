"""The engine's limits: memory, time to end, contexts, and requests that nobody waits for."""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from support.models.tiny import (
    GPT,
    LLAMA,
    SIZE,
    TOKENIZER,
    Recorder,
    ids,
    reference,
    run,
    tokens_of,
    wait_until,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
)

from langchain_gkt import HuggingFaceStudent, StudentError
from langchain_gkt.students.engine import request_queue
from langchain_gkt.students.engine.engine import Engine, EngineConfig, Request


@pytest.fixture(scope="module")
def long():
    """A model with a long context."""
    torch.manual_seed(7)
    fields = {**LLAMA, "max_position_embeddings": 8192, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**fields)).eval()
    model.generation_config.eos_token_id = None
    return model


def asked(seed: int, length: int, tokens: int) -> Request:
    return Request(prompt=ids(seed, length), answer_prefix=[], max_tokens=tokens)


@pytest.mark.slow
def test_buffers_do_not_keep_room_for_rows_that_left(long) -> None:
    engine = Engine(long, TOKENIZER, EngineConfig(kv_tokens=2048, prefix_cache_bytes=0))
    most = 0
    step = engine.scheduler._decode

    def noting() -> None:
        nonlocal most
        step()
        most = max(most, engine.scheduler.stats()["kv_bytes"])

    engine.scheduler._decode = noting
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: run(engine, asked(i, 10, 40)), range(16)))
    run(engine, asked(99, 10, 400))
    engine.close()
    # Slack is 128 columns for each of 16 rows, more where they come one by one.
    assert most / engine.scheduler.model_runner.bytes_per_token < 2 * 2048


@pytest.mark.slow
def test_a_buffer_that_grows_with_several_rows_changes_no_token(long) -> None:
    engine = Engine(long, TOKENIZER)
    requests = [asked(seed, 5 + seed, 140) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda request: tokens_of(engine, request), requests))
    engine.close()
    assert together == [reference(long, request) for request in requests]
    assert engine.scheduler.model_runner.can_batch  # else nothing has grown


def test_prompts_of_several_chunks_change_no_token(long) -> None:
    engine = Engine(long, TOKENIZER)
    neighbour = engine.generate(asked(1, 9, 400), threading.Event())
    next(neighbour)
    request = asked(2, 1300, 6)
    assert tokens_of(engine, request) == reference(long, request)
    neighbour.close()
    engine.close()


@pytest.mark.parametrize("length", [60, 600, 1200])
def test_what_was_read_ahead_for_nothing_is_freed(long, length) -> None:
    engine = Engine(long, TOKENIZER)
    ahead = engine.prefill(ids(3, length))
    wait_until(lambda: ahead.done)
    assert engine.scheduler.prefix_cache.nbytes > 0
    ahead.close()
    wait_until(lambda: engine.scheduler.prefix_cache.nbytes == 0)
    engine.close()


def test_what_a_request_has_left_stays_when_it_was_read_ahead_again(long) -> None:
    engine = Engine(long, TOKENIZER)
    run(engine, asked(3, 700, 1))
    wait_until(lambda: engine.scheduler.prefix_cache.nbytes > 0)  # after the answer is delivered
    held = engine.scheduler.prefix_cache.nbytes
    ahead = engine.prefill(ids(3, 700))
    wait_until(lambda: ahead.done)
    ahead.close()
    wait_until(lambda: not engine.scheduler.queue.discarded)
    time.sleep(0.1)
    assert engine.scheduler.prefix_cache.nbytes == held > 0
    engine.close()


def test_reading_ahead_keeps_to_the_budget(long) -> None:
    engine = Engine(long, TOKENIZER, EngineConfig(kv_tokens=100))
    assert engine.prefill(ids(3, 400)).done
    assert engine.scheduler.stats()["kv_bytes"] == 0
    engine.close()


def test_closing_does_not_wait_for_a_whole_prefill(long) -> None:
    engine = Engine(long, TOKENIZER)
    feed = engine.scheduler._prefiller.advance

    pieces = []

    def slow(filling, most, split):
        pieces.append(most)
        time.sleep(0.1)
        return feed(filling, 64, split=split)

    engine.scheduler._prefiller.advance = slow
    errors = []

    def ask() -> None:
        try:
            run(engine, asked(1, 8000, 1))
        except StudentError as error:
            errors.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: engine.scheduler.stats()["rows"] == 1)
    engine.close()
    thread.join()
    assert len(pieces) < 100  # the whole prefill takes 125
    assert "closed before the answer was finished" in errors[0]


@pytest.mark.slow
def test_many_requests_that_never_fit_are_refused_one_by_one(long) -> None:
    engine = Engine(long, TOKENIZER, EngineConfig(kv_tokens=300, max_queue=2000))
    blocker = engine.generate(asked(1, 5, 290), threading.Event())
    next(blocker)

    async def everybody():
        async def one(request):
            return [piece async for piece in engine.agenerate(request, stream=False)]

        # The first one fits, but not beside the blocker: all the others queue up behind it.
        requests = [asked(0, 3, 200), *(asked(i, 1, 400) for i in range(1100))]
        requests += [asked(i, 3, 2) for i in range(3)]
        tasks = [asyncio.create_task(one(request)) for request in requests]
        await asyncio.sleep(0.2)
        blocker.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(asyncio.wait_for(everybody(), 60))
    engine.close()
    assert all(isinstance(one, StudentError) and "kv_tokens" in str(one) for one in found[1:1101])
    assert [one[-1].finish_reason for one in (found[0], *found[1101:])] == ["length"] * 4


def test_a_machine_out_of_threads_strands_nobody(long, monkeypatch) -> None:
    engine = Engine(long, TOKENIZER)

    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(request_queue.threading, "Thread", NoThread)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run(engine, asked(1, 4, 2))
    assert engine.scheduler.queue.thread is None
    assert engine.scheduler.stats()["waiting"] == 0
    monkeypatch.undo()
    assert run(engine, asked(1, 4, 2))[-1].tokens == 2
    engine.close()


def test_the_thread_is_no_daemon_whoever_asks_first(long) -> None:
    engine = Engine(long, TOKENIZER)
    asker = threading.Thread(target=run, args=(engine, asked(1, 4, 2)), daemon=True)
    asker.start()
    asker.join(30)
    assert engine.scheduler.queue.thread.daemon is False  # it lingers
    engine.close()


# What transformers calls the argument that takes a KV cache: before version 5.24, and since.
OLD, NEW = "past_key_values", "cache"
OWN = NEW if NEW in inspect.signature(GPT2LMHeadModel.forward).parameters else OLD


class OldName(GPT2LMHeadModel):
    def forward(self, *args, past_key_values=None, **kwargs):
        return super().forward(*args, **{OWN: past_key_values}, **kwargs)


class NewName(GPT2LMHeadModel):
    def forward(self, *args, cache=None, **kwargs):
        return super().forward(*args, **{OWN: cache}, **kwargs)


def small_gpt(kind: type[GPT2LMHeadModel]) -> GPT2LMHeadModel:
    torch.manual_seed(7)
    model = kind(GPT2Config(**GPT, initializer_range=0.3)).eval()
    model.generation_config.eos_token_id = None
    return model


@pytest.mark.parametrize("kind", [OldName, NewName])
def test_the_cache_is_found_by_either_name(kind) -> None:
    engine = Engine(small_gpt(kind), TOKENIZER)
    want = reference(small_gpt(GPT2LMHeadModel), asked(1, 6, 4))
    assert tokens_of(engine, asked(1, 6, 4)) == want
    assert engine.scheduler.model_runner.can_batch
    engine.close()


@pytest.mark.parametrize("refusal", [AssertionError, KeyError, NotImplementedError])
def test_a_model_may_refuse_a_foreign_cache_in_any_way(refusal) -> None:
    class Picky(OldName):
        def forward(self, *args, past_key_values=None, **kwargs):
            if type(past_key_values).__name__ == "Cache":
                raise refusal("not mine")
            return super().forward(*args, past_key_values=past_key_values, **kwargs)

    engine = Engine(small_gpt(Picky), TOKENIZER)
    want = reference(small_gpt(GPT2LMHeadModel), asked(1, 6, 4))
    assert tokens_of(engine, asked(1, 6, 4)) == want
    assert not engine.scheduler.model_runner.can_batch
    engine.close()


def test_rows_whose_positions_depend_on_the_longest_run_apart() -> None:
    torch.manual_seed(7)
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [1.0, 2.0, 8.0, 16.0],
        "original_max_position_embeddings": 64,
        "factor": 4.0,
    }
    config = Phi3Config(
        **LLAMA,
        num_key_value_heads=2,
        original_max_position_embeddings=64,
        rope_parameters=rope,
        pad_token_id=0,
        eos_token_id=None,
    )
    model = Phi3ForCausalLM(config).eval()
    model.generation_config.eos_token_id = None
    want = reference(model, asked(1, 10, 30))  # such a model has one state for all threads
    engine = Engine(model, TOKENIZER)
    neighbour = engine.generate(asked(2, 100, 120), threading.Event())
    next(neighbour)
    assert tokens_of(engine, asked(1, 10, 30)) == want
    neighbour.close()
    engine.close()


def test_a_beginning_that_ends_in_a_replacement_character_is_not_repeated(student) -> None:
    begun = "Plan: 3 plus 4 \ufffd"
    text = student.invoke([("human", "What is 3 plus 4?"), ("ai", begun)], max_tokens=8).text
    assert begun not in text


def test_no_whole_character_is_lost_at_the_end(long) -> None:
    # Trained on runs of emoji, so that some tokens are a whole one and half of the next.
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator(["😀😀🎉é数ñ" * 5], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    texts = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    joined = [i for i, text in enumerate(texts) if text.endswith("\ufffd") and text.strip("\ufffd")]
    halves = [i for i, text in enumerate(texts) if set(text) == {"\ufffd"}]
    assert joined
    engine = Engine(long, tokenizer)
    chance = random.Random(5)

    class Dictated(Recorder):
        def choose(self, logits, pick):
            self.tokens.append(told[len(self.tokens)])
            return self.tokens[-1]

    for last in joined:
        told = [*chance.choices([*joined, *halves], k=chance.randint(0, 5)), last]
        request = replace(asked(1, 3, len(told)), constraint=Dictated())
        text = "".join(piece.text for piece in run(engine, request))
        assert text.rstrip("\ufffd") == tokenizer.decode(told).rstrip("\ufffd")
    engine.close()


def bart():
    torch.manual_seed(0)
    sizes = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in LAYERS.items()}
    config = BartConfig(
        vocab_size=SIZE,
        d_model=32,
        max_position_embeddings=64,
        decoder_start_token_id=0,
        pad_token_id=0,
        forced_eos_token_id=None,
        **sizes,
    )
    model = BartForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = None
    return model


LAYERS = {"layers": 1, "attention_heads": 4, "ffn_dim": 64}


def test_encoders_and_decoders_with_a_limit_say_both_numbers() -> None:
    engine = Engine(bart(), TOKENIZER)
    with pytest.raises(
        StudentError, match=r"prompt of 100 tokens, but the student.s encoder reads 64"
    ):
        run(engine, asked(1, 100, 5))
    with pytest.raises(StudentError, match=r"up to 101 tokens .* holds 64"):
        run(engine, asked(1, 10, 100))
    engine.close()
    student = HuggingFaceStudent(model=bart(), tokenizer=TOKENIZER)
    reply = student.invoke("hi")  # max_tokens is 512, and the room less
    assert reply.usage_metadata["output_tokens"] == 63
    with pytest.raises(ValueError, match="encoder reads 64"):
        student.invoke("word " * 100)
    student.close()
