"""A student behind vLLM, SGLang or llama-server: what is special to servers, over a stand-in."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import threading

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from support.models.tiny import wait_until

from langchain_gkt import StudentError
from langchain_gkt.students.backends.server import SERVER_NAMES, samples
from langchain_gkt.students.backends.server import backend as server_backend
from langchain_gkt.students.backends.server import sessions as server_sessions
from langchain_gkt.students.backends.server.dialects import VLLM, Ask, LlamaServer, SGLang
from langchain_gkt.students.backends.server.prefix_blocks import PrefixBlocks
from langchain_gkt.students.backends.server.sessions import Sessions
from langchain_gkt.students.settings import GenerationSettings

QUESTION = [HumanMessage("What is 3 plus 4?")]
BEGUN = [*QUESTION, AIMessage("The sum of 3 and")]
SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}, "ok": {"type": "boolean"}},
    "required": ["sum", "ok"],
}
FORMAT = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SERVER_NAMES)
@pytest.mark.parametrize("begun", ["", '{"sum": 1'])
def test_a_schema_holds_an_answer_as_torch_holds_it(served, local, kind, begun) -> None:
    messages = [*QUESTION, *([AIMessage(begun)] if begun else [])]
    options = {"response_format": FORMAT, "max_tokens": 30}
    far, _ = served(kind)
    wanted, found = local.invoke(messages, **options), far.invoke(messages, **options)
    assert found.content == wanted.content
    assert found.usage_metadata == wanted.usage_metadata


def test_a_call_does_not_write_out_the_tokenizer(served) -> None:
    far, _ = served()
    once = far._engine.fingerprint  # takes 80 ms with a vocabulary of 50,000
    far.invoke(BEGUN)
    assert far._engine.fingerprint is once


@pytest.mark.slow
def test_more_tokens_than_may_be_named_are_told_by_what_they_are_not(
    served, local, monkeypatch
) -> None:
    far, server = served()
    monkeypatch.setattr(VLLM, "most_allowed", 1)
    object_begun = [*QUESTION, AIMessage('{"sum": 1')]
    options = {"response_format": FORMAT, "max_tokens": 12}
    wanted = local.invoke(object_begun, **options).content
    assert far.invoke(object_begun, **options).content == wanted
    assert any(body.get("logit_bias") for body in server.asked())


def test_a_request_says_how_tokens_are_chosen() -> None:
    drawn = Ask(ids=[1], max_tokens=3, temperature=0.5, top_p=0.9, end_ids=[2])
    body = VLLM().body(drawn, "m")
    assert (body["model"], body["top_k"], body["repetition_penalty"]) == ("m", 0, 1.0)
    assert "seed" not in body  # vLLM's CPU engine dies of it
    for dialect, place in (
        (VLLM(), "seed"),
        (SGLang(), "sampling_seed"),
        (LlamaServer(list), "seed"),
    ):
        body = dialect.body(Ask(ids=[1], max_tokens=3, seed=2**32 - 1), "m")
        assert body.get("sampling_params", body)[place] in (0, 2**32 - 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SERVER_NAMES)
def test_a_stop_string_across_tokens_ends_the_stream(served, local, kind) -> None:
    whole = local.invoke(QUESTION).content
    far, server = served(kind)
    stop = whole[4:9]
    assert far.invoke(QUESTION, stop=[stop]).content == whole[: whole.index(stop)]
    wait_until(lambda: server.dropped == 1)


def test_llama_server_leaves_out_tokens_of_half_characters() -> None:
    read = LlamaServer(lambda text: [7, 8, 9]).reader(Ask(ids=[1], max_tokens=9, stream=True))
    events = [
        {"content": "a", "tokens": [5], "tokens_predicted": 1},
        {"content": "\U0001f389", "tokens": [9], "tokens_predicted": 4},
        {"content": "", "tokens": [], "tokens_predicted": 5, "stop": True, "stop_type": "eos"},
    ]
    replies = [reply for event in events for reply in read(event)]
    assert [reply.ids for reply in replies] == [[5], [7, 8, 9], []]
    assert replies[-1].finish_reason == "stop"


def test_sglang_may_repeat_its_ids_or_not() -> None:
    for sent in ([[5], [5, 6]], [[5], [6]]):
        read = SGLang().reader(Ask(ids=[1], max_tokens=9, stream=True))
        events = [
            {"output_ids": ids, "text": "", "meta_info": {"completion_tokens": count}}
            for count, ids in enumerate(sent, 1)
        ]
        assert [reply.ids for event in events for reply in read(event)] == [[5], [6]]


@pytest.mark.parametrize("stream", [True, False])
def test_a_lost_connection_is_made_again(served, local, stream) -> None:
    far, server = served()
    broken = 3 if stream else httpx.ReadError("reset")
    server.faults.extend([httpx.ConnectError("refused"), broken])
    texts = [chunk.text for chunk in far.stream(BEGUN)] if stream else [far.invoke(BEGUN).text]
    assert "".join(texts) == local.invoke(BEGUN).text


def test_a_server_that_stays_away_is_named_and_refused_before_the_teacher(served) -> None:
    far, server = served(max_retries=1)
    server.is_up = False
    with pytest.raises(StudentError, match=r"no server answers at base_url='http://student.test'"):
        far.invoke(QUESTION)
    with pytest.raises(StudentError, match="start the server") as refused:
        far.check(QUESTION)
    assert refused.value.retryable
    server.is_up, server.name = True, "another"
    with pytest.raises(StudentError, match="no longer has the model 'tiny'"):
        far.check(QUESTION)
    server.name = "tiny"
    assert far.check(QUESTION) == 0


def test_errors_of_a_server_are_said(served) -> None:
    far, server = served(max_retries=0)
    server.faults.append(httpx.Response(400, json={"error": {"message": "too long"}}))
    with pytest.raises(StudentError, match="answers 400: too long"):
        far.invoke(QUESTION)
    server.faults.append(httpx.Response(503, text="loading"))
    with pytest.raises(StudentError, match="ask again later") as busy:
        far.invoke(QUESTION)
    assert (busy.value.status, busy.value.retryable) == (503, True)
    server.faults.append(httpx.ReadTimeout(""))
    with pytest.raises(StudentError, match="raise request_timeout"):
        far.invoke(QUESTION)


def test_a_prompt_is_read_ahead_and_its_request_waits(served, monkeypatch) -> None:
    monkeypatch.setattr(server_backend, "PREFILL_DELAY_SECONDS", 0.0)
    far, server = served()
    server.gate = asyncio.Event()
    with far.prefill(QUESTION) as ahead:
        wait_until(lambda: server.asked())
        asking = threading.Thread(target=far.invoke, args=[QUESTION])
        asking.start()
        assert ahead.claimed.wait(60)
        assert not ahead.done
        far._engine._thread.loop.call_soon_threadsafe(server.gate.set)
        asking.join(60)
    ahead, answer = server.asked()
    assert (ahead["max_tokens"], ahead["prompt"]) == (1, answer["prompt"])
    assert len(set(server.sessions[4:])) == 1


def test_the_turns_of_a_conversation_keep_to_one_replica(served) -> None:
    far, server = served()
    asked, other = [*QUESTION], [HumanMessage("What is 3 plus 5?")]
    for _ in range(3):
        answer = far.invoke(asked, max_tokens=4)
        asked += [AIMessage(answer.text or "7"), HumanMessage("And one more?")]
    far.invoke(other, max_tokens=4)
    *talk, apart = server.sessions[4:]
    assert (len(talk), len({*talk})) == (3, 1)
    assert apart not in talk


def test_a_conversation_is_known_without_the_header_of_its_answer() -> None:
    end, header, reasoning = 9, [1, 2], [5, 6]
    sessions = Sessions({end})
    first, second = [3, 4, end, *header], [3, 8, end, *header]
    key = sessions.key_of([*first, *reasoning])
    assert sessions.key_of([*first, 7, end, 4, end, *header, *reasoning]) == key
    assert sessions.key_of(second) != key
    # An end far away is that of an earlier message, which other conversations may share.
    question = list(range(20, 40))
    key = sessions.key_of([30, end, *question])
    assert sessions.key_of([30, end, *question, 3, end, 21]) == key
    assert sessions.key_of([30, end, *question[1:]]) != key
    assert len(sessions.key_of([])) == 32


def test_old_conversations_are_forgotten_first(monkeypatch) -> None:
    monkeypatch.setattr(server_sessions, "_MOST_SESSIONS", 2)
    sessions = Sessions({9})
    keys = [sessions.key_of([n, 9]) for n in (1, 2, 3)]
    assert sessions.key_of([1, 9, 4, 9]) != keys[0]
    assert sessions.key_of([3, 9, 4, 9]) == keys[2]


def test_a_prompt_is_not_read_ahead_for_nothing(served, monkeypatch) -> None:
    monkeypatch.setattr(server_backend, "PREFILL_DELAY_SECONDS", 30.0)
    far, server = served()
    with far.prefill(QUESTION):
        assert far.invoke(QUESTION).text  # comes at once, and does not wait
    far.prefill(QUESTION).close()
    wait_until(lambda: not far._engine._prefills)
    assert [body["max_tokens"] > 1 for body in server.asked()] == [True]
    without, _ = served(prefix_cache_bytes=0)
    assert without.prefill(QUESTION).done


METRICS = """# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
vllm:cache_config_info{block_size="8",cache_dtype="auto",engine="0",num_gpu_blocks="64"} 1.0
"""


def test_only_whole_blocks_that_are_new_are_read_ahead(served, monkeypatch) -> None:
    monkeypatch.setattr(server_backend, "PREFILL_DELAY_SECONDS", 0.0)
    far, server = served(server={"metrics": METRICS}, max_retries=0)
    longer = [HumanMessage(f"{QUESTION[0].text} And 12 pens and 30 pens, if 4 of them are lost?")]
    with far.prefill(QUESTION) as ahead:
        ahead.wait()
    far.invoke(QUESTION)
    first, answer = server.asked()
    assert first["prompt"] == answer["prompt"][: len(answer["prompt"]) // 8 * 8 + 1]
    assert far.prefill(QUESTION).done  # the server holds its blocks
    with far.prefill(longer) as ahead:
        ahead.wait()
    assert len(server.asked()) == 3
    server.faults.append(httpx.ConnectError("gone"))
    with pytest.raises(StudentError):
        far.invoke(QUESTION)
    asked = len(server.asked())
    with far.prefill(QUESTION) as ahead:
        ahead.wait()
    assert len(server.asked()) == asked + 1  # what is started anew holds nothing


def test_old_blocks_are_forgotten_first() -> None:
    blocks = PrefixBlocks.of_metrics(METRICS)
    assert (blocks.size, blocks.most) == (8, 64)
    blocks.add(range(8 * 40))
    blocks.add(range(1000, 1000 + 8 * 40))
    assert not blocks.holds(range(8))
    assert blocks.holds(range(1000, 1000 + 8 * 40 + 7))
    assert not blocks.holds([*range(1000, 1008), *range(8)])
    assert blocks.holds(range(7))  # there is no whole block
    assert PrefixBlocks.of_metrics("vllm:num_requests_running 0.0") is None


@pytest.mark.parametrize("kind", SERVER_NAMES)
async def test_samples_of_one_question_are_one_request(served, kind, monkeypatch) -> None:
    monkeypatch.setattr(
        samples, "_GATHER_SECONDS", 60.0
    )  # a thread may come late on a busy machine
    far, server = served(kind)
    answers = far.sample(QUESTION, 3, temperature=0.7, max_tokens=4)
    answers += await far.asample(QUESTION, 3, temperature=0.7, max_tokens=4)
    assert {answer.usage_metadata["output_tokens"] for answer in answers} == {4}
    counts = [body.get("n") or body["sampling_params"]["n"] for body in server.asked()]
    assert counts == [3, 3]
    far.sample(QUESTION, 2, temperature=0.7, max_tokens=4, seed=5)
    assert len(server.asked()) == 2 + 2


@pytest.mark.slow
def test_a_server_may_hold_a_whole_schema_itself(served, local) -> None:
    far, server = served()
    options = {"response_format": FORMAT, "max_tokens": 19}
    server.faults.append(httpx.Response(400, json={"error": {"message": "unsupported"}}))
    assert far.invoke(QUESTION, **options).content == local.invoke(QUESTION, **options).content
    first, second = server.asked()[:2]
    assert first["structured_outputs"] == {"json": SCHEMA}
    assert "structured_outputs" not in second
    far.invoke([*QUESTION, AIMessage('{"sum": 1')], **options)
    assert not any("json" in body.get("structured_outputs", ()) for body in server.asked()[2:])


def test_an_answer_that_nobody_reads_is_dropped(served) -> None:
    far, server = served()
    chunks = far.stream(QUESTION)
    next(chunks)
    chunks.close()
    wait_until(lambda: server.dropped == 1 and not far._engine._tasks)


async def test_on_an_event_loop_there_is_no_thread_and_nothing_is_left_open(served, local) -> None:
    far, server = served()
    wanted = local.invoke(BEGUN, max_tokens=6).content
    settings = GenerationSettings.of_call(far, max_tokens=6)
    request = far._loader.load().build(BEGUN, settings)
    before = set(threading.enumerate())

    async def ask() -> str:
        return "".join([chunk.text async for chunk in far._engine.agenerate(request)])

    assert await asyncio.gather(*[ask() for _ in range(3)]) == [wanted] * 3
    assert set(threading.enumerate()) <= before
    chunks = far._engine.agenerate(request)
    await anext(chunks)
    await chunks.aclose()
    for _ in range(1000):
        await asyncio.sleep(0)
    assert server.dropped == 1
    pools = far._engine._connection._pools

    def elsewhere() -> None:
        assert asyncio.run(ask()) == wanted

    await asyncio.to_thread(elsewhere)
    assert asyncio.get_running_loop() in pools
    assert not [loop for loop in pools if loop.is_closed()]


def test_certificates_are_read_once_for_all_event_loops(served, monkeypatch) -> None:
    read = []
    create = httpx.create_ssl_context
    monkeypatch.setattr(httpx, "create_ssl_context", lambda: read.append(1) or create())
    far, _ = served()
    for _ in range(2):
        asyncio.run(far.ainvoke(QUESTION, max_tokens=2))
    assert len(read) == 1


def test_closing_ends_what_runs(served) -> None:
    far, server = served()
    server.gate = asyncio.Event()
    failed: list[StudentError] = []

    def ask() -> None:
        try:
            far.invoke(QUESTION)
        except StudentError as error:
            failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: server.asked())
    far.close()
    asking.join(60)
    assert "closed before the answer was finished" in str(failed[0])
    with pytest.raises(StudentError, match="the student is closed"):
        far.check(QUESTION)


def test_a_student_that_is_forgotten_leaves_no_thread_and_no_connection(served) -> None:
    far, _ = served()
    thread, loop = far._engine._thread.thread, far._engine._thread.loop
    pool = far._engine._connection._pools[loop][1]
    engine = far._loader._loaded.engine
    far._loader._loaded = None
    ring = [engine]
    ring.append(ring)  # the collector of garbage finds all of it at once
    del engine, ring
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()
    assert pool.is_closed


def test_it_can_be_pickled_and_asks_the_server_again(served) -> None:
    far, server = served()
    again = pickle.loads(pickle.dumps(far))
    assert again.invoke(QUESTION, max_tokens=3).text
    assert len(server.bodies) == 2 * 4 + 1
    again.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_what_to_do(served) -> None:
    far, _ = served()
    child = os.fork()
    if child == 0:
        try:
            far.invoke(QUESTION)
        except StudentError as error:
            os._exit(7 if "spawn" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
