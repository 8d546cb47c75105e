"""A student over llama.cpp: what is special to that engine, over a stand-in for it."""

from __future__ import annotations

import os
import threading
import time

import pytest
import torch
from langchain_core.messages import AIMessage, HumanMessage
from support.models.fake_llamacpp import write_gguf
from support.models.tiny import wait_until

from langchain_gkt import HuggingFaceStudent, StudentError
from langchain_gkt.students.backends import choosing
from langchain_gkt.students.backends.gguf import read_header
from langchain_gkt.students.backends.llamacpp.answer import AnswerText, completion_request
from langchain_gkt.students.engine.request_state import RequestState
from langchain_gkt.students.engine.requests.request import Request, TokenChunk
from langchain_gkt.students.engine.token_healing import Seam

SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}, "ok": {"type": "boolean"}},
    "required": ["sum", "ok"],
}
FORMAT = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}


@pytest.fixture
def make(fake_llamacpp, pair, gguf, monkeypatch):
    monkeypatch.setattr(choosing, "find_spec", lambda name: True)
    made = []

    def student(**fields) -> HuggingFaceStudent:
        made.append(HuggingFaceStudent(**{"model": gguf, "tokenizer": pair[1], **fields}))
        return made[-1]

    yield student
    for one in made:
        one.close()


@pytest.mark.slow
@pytest.mark.parametrize("begun", ["", '{"sum": 1', '{"sum": 12, "o'])
@pytest.mark.parametrize("max_tokens", [45, 30])
def test_schemas_hold_an_answer_as_torch_holds_it(make, pair, begun, max_tokens) -> None:
    messages = [HumanMessage("What is 3 plus 4?"), *([AIMessage(begun)] if begun else [])]
    options = {"response_format": FORMAT, "max_tokens": max_tokens}
    expected = HuggingFaceStudent(model=pair[0], tokenizer=pair[1])
    wanted = expected.invoke(messages, **options)
    found = make().invoke(messages, **options)
    expected.close()
    assert found.content == wanted.content
    assert found.usage_metadata == wanted.usage_metadata


def test_the_request_says_how_tokens_are_drawn() -> None:
    seam = Seam(kept=[1], spelled=b'a"\\\n', opened=1, shown=4)
    request = Request(prompt=[5], answer_prefix=[1, 2], max_tokens=3, seed=2**40, seam=seam)
    body = completion_request(request, [(9, "<x>"), (8, 'a"\\\n!')])
    assert body["prompt"] == [5, 1]
    assert body["n_predict"] == 3 + 1  # the end of the beginning is no new token
    assert body["grammar"] == r'root ::= "a\x22\x5c\x0a" [^\x00]*'
    assert body["logit_bias"] == [[8, False]]
    assert body["seed"] < 2**32
    assert "grammar" not in completion_request(
        Request(prompt=[5], answer_prefix=[], max_tokens=3), []
    )


def test_text_that_was_there_before_is_neither_shown_nor_counted() -> None:
    seam = Seam(kept=[], spelled=b"abc", opened=1, shown=3)
    chunks: list[TokenChunk] = []
    state = RequestState(
        request=Request(prompt=[1], answer_prefix=[2], max_tokens=2, seam=seam),
        ids=[1],
        deliver=chunks.append,
        cancelled=threading.Event(),
        detokenizer=None,
    )
    answer = AnswerText(state)

    def chunk(text: str, tokens: int, reason: str | None = None) -> dict:
        choice = {"text": text, "finish_reason": reason}
        return {"choices": [choice], "__verbose": {"tokens_predicted": tokens}}

    assert [answer.read(chunk(*part)) for part in (("a", 1), ("bcd", 2), ("e", 3))] == [0, 0, 1]
    found = [(one.text, one.tokens, one.finish_reason) for one in chunks]
    assert found == [("d", 1, None), ("e", 2, "length")]


def test_a_float32_file_is_float32_throughout(make, fake_llamacpp, gguf, tmp_path) -> None:
    values = read_header(str(gguf)).metadata
    exact = write_gguf(
        tmp_path / "exact.gguf",
        **{key.replace(".", "__"): value for key, value in values.items()},
        general__file_type=0,
    )
    for file in (gguf, exact):
        make(model=file).invoke("Hi.", max_tokens=2)
    as_it_comes, told = (vars(server.parameters) for server in fake_llamacpp[1].made)
    float32 = fake_llamacpp[1].ggml_type.GGML_TYPE_F32
    assert told["cache_type_k"] == told["cache_type_v"] == float32
    assert "flash_attn_type" in told
    assert not {"cache_type_k", "cache_type_v", "flash_attn_type"} & set(as_it_comes)


def test_an_answer_that_nobody_reads_is_stopped(make, fake_llamacpp) -> None:
    student = make()
    (server,) = fake_llamacpp[1].made
    chunks = student.stream("What is 3 plus 4?")
    next(chunks)
    chunks.close()
    wait_until(lambda: not student._engine._slots._threads)
    assert len(server.computed) < 30


def test_a_request_comes_after_the_prefill_of_its_prompt(make, fake_llamacpp) -> None:
    student = make()
    (server,) = fake_llamacpp[1].made
    with student.prefill([HumanMessage("What is 3 plus 4?")]) as ahead:
        wait_until(lambda: ahead.done)
        assert student.invoke("What is 3 plus 4?").text
    assert [body["n_predict"] > 0 for body in server.bodies] == [False, True]


@pytest.mark.slow
def test_a_request_waits_while_its_prompt_is_read_ahead(make, fake_llamacpp, monkeypatch) -> None:
    monkeypatch.setattr(fake_llamacpp[0], "PREFILL_DELAY_SECONDS", 0.0)
    student = make()
    (server,) = fake_llamacpp[1].made
    reading, go_on, complete = threading.Event(), threading.Event(), server.handle_completions

    def slow(body, callback=None):
        if body["n_predict"] == 0:
            reading.set()
            assert go_on.wait(60)
        return complete(body, callback)

    monkeypatch.setattr(server, "handle_completions", slow)
    with student.prefill([HumanMessage("What is 3 plus 4?")]):
        assert reading.wait(60)
        asking = threading.Thread(target=student.invoke, args=["What is 3 plus 4?"])
        asking.start()
        (ahead,) = student._engine.prefills
        assert ahead.claimed.wait(60)
        time.sleep(0.1)
        assert server.bodies == []
        go_on.set()
        asking.join(60)
    assert [body["n_predict"] > 0 for body in server.bodies] == [False, True]


def test_a_request_that_comes_at_once_reads_its_prompt_itself(
    make, fake_llamacpp, monkeypatch
) -> None:
    monkeypatch.setattr(fake_llamacpp[0], "PREFILL_DELAY_SECONDS", 30.0)
    student = make()
    (server,) = fake_llamacpp[1].made
    with student.prefill([HumanMessage("What is 3 plus 4?")]) as ahead:
        assert student.invoke("What is 3 plus 4?").text
        assert ahead.done
    assert [body["n_predict"] > 0 for body in server.bodies] == [True]


def test_a_request_that_waits_for_the_slot_of_its_prefill_reads_its_prompt_itself(
    make, fake_llamacpp, monkeypatch
) -> None:
    monkeypatch.setattr(fake_llamacpp[0], "PREFILL_DELAY_SECONDS", 30.0)
    student = make(max_batch_size=1)
    (server,) = fake_llamacpp[1].made
    with student.prefill([HumanMessage("What is 3 plus 4?")]):
        assert student.invoke("What is 3 plus 4?").text
    assert len(server.bodies) == 1


def test_nothing_is_prefilled_ahead_without_a_slot_to_spare(make, fake_llamacpp) -> None:
    student = make(max_batch_size=1)
    (server,) = fake_llamacpp[1].made
    server.gate.clear()
    asking = threading.Thread(target=student.invoke, args=["What is 3 plus 4?"])
    asking.start()
    wait_until(lambda: server.bodies)
    with student.prefill([HumanMessage("What is 5 plus 2?")]) as ahead:
        assert ahead.done
        server.gate.set()
        asking.join(60)
    assert len(server.bodies) == 1
    with student.prefill([HumanMessage("What is 5 plus 2?")]) as ahead:
        wait_until(lambda: ahead.done)
    assert len(server.bodies) == 2


def test_closing_ends_what_runs_and_what_waits(make, fake_llamacpp) -> None:
    student = make(max_batch_size=1)
    (server,) = fake_llamacpp[1].made
    server.gate.clear()
    failed: list[StudentError] = []

    def ask() -> None:
        try:
            student.invoke("What is 3 plus 4?")
        except StudentError as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(student._engine._slots._waiting) == 1)
    closing = threading.Thread(target=student.close)
    closing.start()
    wait_until(lambda: student._engine.closed)
    server.gate.set()
    for thread in [*threads, closing]:
        thread.join(60)
    assert ["closed" in str(error) for error in failed] == [True, True]


def test_errors_name_the_field_and_the_mend(make, tmp_path, gguf) -> None:
    with pytest.raises(ValueError, match=r"dtype='int8' is not supported by llama\.cpp"):
        make(dtype="int8")
    with pytest.raises(ValueError, match="device='cuda' needs a build"):
        make(device="cuda")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(gguf.read_bytes())
    with pytest.raises(StudentError, match=r"llama\.cpp could not load .*architecture llama"):
        make(model=broken)
    student = make()
    with pytest.raises(ValueError, match="context holds"):
        student.check([HumanMessage("x " * 5000)])


def test_slots_share_a_pool_where_whole_contexts_do_not_fit(make, fake_llamacpp) -> None:
    context = make()._engine.window.size
    make(kv_tokens=2 * context)
    own, shared = (server.parameters for server in fake_llamacpp[1].made)
    assert own.cpuparams.n_threads == torch.get_num_threads()
    assert (own.kv_unified, own.n_ctx) == (False, 16 * context)
    assert (shared.kv_unified, shared.n_ctx) == (True, 2 * context)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_what_to_do(make) -> None:
    student = make()
    child = os.fork()
    if child == 0:
        try:
            student.invoke("What is 3 plus 4?")
        except StudentError as error:
            os._exit(7 if "spawn" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
