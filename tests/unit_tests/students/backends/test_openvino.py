"""A student over OpenVINO: what is special to that engine, over a stand-in for it."""

from __future__ import annotations

import os
import sys
import threading
import types

import pytest
import regex
from langchain_core.messages import AIMessage, HumanMessage
from support.models.tiny import wait_until

from langchain_gkt import HuggingFaceStudent, StudentError
from langchain_gkt.students.backends import choosing
from langchain_gkt.students.backends.openvino.regex import ANY, beginnings_pattern, words_pattern
from langchain_gkt.students.engine.requests.request import Request
from langchain_gkt.time_limit import OutOfTime, limited_to

SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}, "ok": {"type": "boolean"}},
    "required": ["sum", "ok"],
}
FORMAT = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
QUESTION = "What is 3 plus 4?"
LONG = "What is 3 plus 4 plus 5 plus 6 plus 7 plus 8 plus 9 plus 1 plus 2 plus 3 plus 4 plus 5?"


@pytest.fixture
def make(fake_openvino, openvino_folder, monkeypatch):
    monkeypatch.setattr(choosing, "find_spec", lambda name: True)
    made = []

    def student(**fields) -> HuggingFaceStudent:
        made.append(HuggingFaceStudent(**{"model": openvino_folder, **fields}))
        return made[-1]

    yield student
    for one in made:
        one.close()


@pytest.mark.slow
@pytest.mark.parametrize(("begun", "max_tokens"), [("", 30), ('{"sum": 1', 30), ('{"sum": 1', 45)])
def test_schemas_hold_an_answer_as_torch_holds_it(make, pair, begun, max_tokens) -> None:
    messages = [HumanMessage(QUESTION), *([AIMessage(begun)] if begun else [])]
    options = {"response_format": FORMAT, "max_tokens": max_tokens}
    expected = HuggingFaceStudent(model=pair[0], tokenizer=pair[1])
    wanted = expected.invoke(messages, **options)
    found = make().invoke(messages, **options)
    expected.close()
    assert found.content == wanted.content
    assert found.usage_metadata == wanted.usage_metadata


def test_the_type_it_computes_in_can_be_said(make, fake_openvino) -> None:
    student = make(dtype="float32")
    assert student.invoke(QUESTION).content
    assert fake_openvino[1].made[0].properties["INFERENCE_PRECISION_HINT"] == "f32"
    assert fake_openvino[1].made[0].properties["ENABLE_CPU_PINNING"] is False
    assert "computing in f32" in student.backend_reason


def test_keys_and_values_are_bfloat16_where_it_computes_so(
    make, fake_openvino, monkeypatch
) -> None:
    able = {"OPTIMIZATION_CAPABILITIES": ["FP32", "BF16"]}
    core = types.SimpleNamespace(
        available_devices=["CPU"], get_property=lambda device, name: able[name]
    )
    monkeypatch.setattr(sys.modules["openvino"], "Core", lambda: core)
    make(dtype="bfloat16")
    make(dtype="float32")
    kept = [one.properties.get("KV_CACHE_PRECISION") for one in fake_openvino[1].made]
    assert kept == ["bf16", None]


def test_few_words_are_spelled_out() -> None:
    pattern = words_pattern({b"a.", b'"'})
    assert [bool(regex.fullmatch(pattern, t)) for t in ("a.", '"', "ab", '".')] == [1, 1, 0, 0]
    assert words_pattern({b"\xc3"}) is None
    assert words_pattern({bytes([n]) for n in range(65)}) is None


def test_what_was_refused_cannot_come_again() -> None:
    pattern = beginnings_pattern([b"ab", b"]", b"\xc3\xa9"], [b"abc", b"]"], may_end=False)
    fits = {t: bool(regex.fullmatch(pattern, t)) for t in ("ab", "abd", "a", "é!", "", "x", "]")}
    assert fits == {"ab": 1, "abd": 1, "a": 1, "é!": 1, "": 0, "x": 0, "]": 0}
    assert not regex.fullmatch(pattern, "abcd")
    assert regex.fullmatch(beginnings_pattern([b"a"], [], may_end=True), "")


@pytest.mark.slow
def test_the_seam_is_asked_for_as_an_expression(make, fake_openvino) -> None:
    make().invoke([HumanMessage(QUESTION), AIMessage("The sum of 3.")])
    (pipeline,) = fake_openvino[1].made
    assert pipeline.patterns[0].endswith(ANY)


def test_an_answer_that_nobody_reads_is_stopped(make, fake_openvino) -> None:
    student = make()
    (pipeline,) = fake_openvino[1].made
    chunks = student.stream(QUESTION)
    next(chunks)
    chunks.close()
    wait_until(lambda: not student._engine._scheduler._running)
    assert pipeline.steps < 30


def scheduler_module(student) -> types.ModuleType:
    return sys.modules[type(student._engine._scheduler).__module__]


def test_a_request_waits_for_the_prefill_of_its_prompt(make, fake_openvino) -> None:
    student = make()
    (pipeline,) = fake_openvino[1].made
    pipeline.prefill_steps = 2
    pipeline.gate.clear()
    answers: list[str] = []
    with student.prefill([HumanMessage(LONG)]) as ahead:
        wait_until(lambda: pipeline.handles)
        asking = threading.Thread(target=lambda: answers.append(student.invoke(LONG).text))
        asking.start()
        wait_until(lambda: len(student._engine._scheduler.queue.waiting) == 1)
        pipeline.gate.set()
        asking.join(60)
    assert pipeline.added == [0, 3], "two steps without a token and one with it"
    assert ahead.done
    assert answers


def test_a_prompt_whose_blocks_are_known_is_not_read_ahead(make, fake_openvino) -> None:
    student = make()
    (pipeline,) = fake_openvino[1].made
    assert student.invoke(LONG).text
    with student.prefill([HumanMessage(LONG)]) as ahead:
        assert ahead.done
    assert len(pipeline.added) == 1
    with student.prefill([HumanMessage(f"{LONG} {LONG}")]) as ahead:
        ahead.wait()
    assert len(pipeline.added) == 2


def test_guidance_that_comes_at_once_is_read_with_its_prompt(
    make, fake_openvino, monkeypatch
) -> None:
    monkeypatch.setattr(scheduler_module(make()), "PREFILL_DELAY_SECONDS", 30.0)
    student = make()
    pipeline = fake_openvino[1].made[-1]
    with student.prefill([HumanMessage(LONG)]):
        assert student.invoke(LONG).text
    assert pipeline.added == [0], "the request alone"


def test_a_prompt_being_prefilled_holds_up_no_other_request(make, fake_openvino) -> None:
    student = make()
    (pipeline,) = fake_openvino[1].made
    pipeline.gate.clear()
    answers: list[str] = []
    with student.prefill([HumanMessage(LONG)]):
        wait_until(lambda: len(pipeline.handles) == 1)
        (prefilled,) = pipeline.handles
        prefilled.take = lambda logits: None  # a prompt so long that no step finishes it
        held = threading.Thread(target=lambda: answers.append(student.invoke(LONG).text))
        held.start()
        wait_until(lambda: len(student._engine._scheduler.queue.waiting) == 1)
        other = threading.Thread(target=lambda: student.invoke("What is 5 plus 2?"), daemon=True)
        other.start()
        pipeline.gate.set()
        other.join(60)
        assert not other.is_alive()
        assert not answers
        del prefilled.take
        held.join(60)
    assert answers


def steps_of_admission(student, pipeline, questions) -> list[int]:
    """Ask while the pipeline stands still, and return in which step each request was added."""
    before, already = pipeline.steps, len(pipeline.added)
    pipeline.gate.clear()
    threads = [threading.Thread(target=student.invoke, args=[one]) for one in questions]
    for thread in threads:
        thread.start()
    scheduler = student._engine._scheduler
    wait_until(lambda: len(scheduler._running) + len(scheduler.queue.waiting) == len(questions))
    pipeline.gate.set()
    for thread in threads:
        thread.join(60)
    return sorted(step - before for step in pipeline.added[already:])


def test_a_front_that_many_prompts_begin_with_is_computed_once(make, fake_openvino) -> None:
    student = make(max_tokens=4)
    (pipeline,) = fake_openvino[1].made
    pipeline.prefill_steps = 2
    first, *others = steps_of_admission(student, pipeline, [f"{LONG} And {n}?" for n in range(3)])
    assert (first, others) == (0, [3, 3])
    first, *others = steps_of_admission(student, pipeline, [f"{LONG} Then {n}?" for n in range(3)])
    assert max(others) <= 1, "the front is known now"


def test_requests_that_come_while_others_are_let_in_share_their_first_step(
    make, fake_openvino, monkeypatch
) -> None:
    student = make(max_tokens=4)
    (pipeline,) = fake_openvino[1].made
    others: list[threading.Thread] = []

    def another(seconds: float) -> None:
        if len(others) < 3:
            others.append(threading.Thread(target=student.invoke, args=[f"{len(others)} + 1?"]))
            others[-1].start()
            wait_until(lambda: student._engine._scheduler.queue.waiting)

    time = types.SimpleNamespace(sleep=another)
    monkeypatch.setattr(scheduler_module(student), "time", time)
    student.invoke(QUESTION)
    for other in others:
        other.join(60)
    assert pipeline.added == [0] * 4


def test_without_a_prefix_cache_no_request_waits(make, fake_openvino) -> None:
    student = make(max_tokens=4, prefix_cache_bytes=0)
    (pipeline,) = fake_openvino[1].made
    pipeline.prefill_steps = 2
    assert max(steps_of_admission(student, pipeline, [f"{LONG} {n}" for n in range(3)])) <= 1


def test_closing_ends_what_runs_and_what_waits(make, fake_openvino) -> None:
    student = make(max_batch_size=1)
    (pipeline,) = fake_openvino[1].made
    pipeline.gate.clear()
    failed: list[StudentError] = []

    def ask() -> None:
        try:
            student.invoke(QUESTION)
        except StudentError as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    scheduler = student._engine._scheduler
    wait_until(lambda: len(scheduler.queue.waiting) == 1 and len(scheduler._running) == 1)
    closing = threading.Thread(target=student.close)
    closing.start()
    wait_until(lambda: student._engine.closed)
    pipeline.gate.set()
    for thread in [*threads, closing]:
        thread.join(60)
    assert ["closed" in str(error) for error in failed] == [True, True]


def test_a_pipeline_that_failed_is_opened_again(make, fake_openvino) -> None:
    student = make()
    fake_openvino[1].made[0].broken = True
    with pytest.raises(StudentError, match="out of memory"):
        student.invoke(QUESTION)
    assert student.invoke(QUESTION).content
    assert len(fake_openvino[1].made) == 2


def test_a_pipeline_that_cannot_be_opened_again_leaves_nobody_waiting(make, fake_openvino) -> None:
    student = make()
    fake_openvino[1].made[0].broken = True
    with pytest.raises(StudentError, match="out of memory"):
        student.invoke(QUESTION)

    def fail() -> None:
        raise RuntimeError("no memory left")

    student._engine._scheduler._open = fail
    errors: list[StudentError] = []

    def ask() -> None:
        try:
            student.invoke(QUESTION)
        except StudentError as error:
            errors.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(60)
    assert ["no memory left" in str(error) for error in errors] == [True]


@pytest.mark.parametrize("queued", [True, False])
def test_time_in_the_queue_is_told_apart(make, fake_openvino, queued) -> None:
    engine = make(max_batch_size=1)._engine
    (pipeline,) = fake_openvino[1].made
    pipeline.gate.clear()
    request = Request(prompt=[5, 6], answer_prefix=[], max_tokens=3)
    first = threading.Thread(target=lambda: list(engine.generate(request, threading.Event())))
    if queued:
        first.start()
        wait_until(lambda: engine._scheduler._running)

    def no_time() -> float:
        wait_until(lambda: engine._scheduler._running)
        return 0.0

    with limited_to(no_time), pytest.raises(OutOfTime) as found:
        list(engine.generate(request, threading.Event()))
    assert found.value.queued is queued
    pipeline.gate.set()
    if queued:
        first.join(60)


def test_errors_name_the_field_and_the_mend(make, openvino_folder) -> None:
    for dtype in ("int8", "bfloat16"):  # this processor has no instructions for the other one
        said = rf"dtype='{dtype}' is none that OpenVINO computes in here \(float32\).*--weight"
        with pytest.raises(ValueError, match=said):
            make(dtype=dtype)
    with pytest.raises(ValueError, match=r"device='cuda' is none of OpenVINO's here \(CPU\)"):
        make(device="cuda")
    student = make(kv_tokens=60)
    with pytest.raises(ValueError, match="context holds 60"):
        student.check([HumanMessage("x " * 500)])
    for name in ("tokenizer.json", "openvino_tokenizer.xml", "config.json"):
        (openvino_folder / name).rename(openvino_folder / "away")
        with pytest.raises(FileNotFoundError, match=rf"holds no {name}"):
            make()
        (openvino_folder / "away").rename(openvino_folder / name)
    openvino_folder.rename(openvino_folder.parent / "broken")
    with pytest.raises(StudentError, match=r"OpenVINO could not load .*export"):
        make(model=openvino_folder.parent / "broken")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_what_to_do(make) -> None:
    student = make()
    child = os.fork()
    if child == 0:
        try:
            student.invoke(QUESTION)
        except StudentError as error:
            os._exit(7 if "spawn" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
