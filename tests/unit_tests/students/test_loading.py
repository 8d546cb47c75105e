"""Students are loaded once, one at a time, and closed together."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.models.fakes import MODELS, WordTeacher, make
from support.models.tiny import wait_until, write_no_more

from langchain_gkt import (
    ConfigurationError,
    GKTError,
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
    StudentError,
)
from langchain_gkt.students.backends.pytorch import loading

QUESTION = "What is 3 plus 4?"


@pytest.fixture
def other(tmp_path) -> str:
    """The folder of another model."""
    (tmp_path / "other").symlink_to(MODELS / "student")
    return str(tmp_path / "other")


class Loads:
    """Stands for `from_path`, and looks at who is in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        self.now = self.most = 0
        self.gate = threading.Event()
        self.gate.set()
        self._lock, self._load = threading.Lock(), loading.from_path
        monkeypatch.setattr(loading, "from_path", self)

    def __call__(self, path: str, *rest: Any, **options: Any) -> Any:
        with self._lock:
            self.paths.append(path)
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            time.sleep(0.1)  # long enough for every other thread to come here, if it may
            assert self.gate.wait(60)
            with self._lock:
                return self._load(path, *rest, **options)
        finally:
            self.now -= 1


@pytest.fixture
def loads(own_student, monkeypatch) -> Loads:
    return Loads(monkeypatch)


@pytest.mark.parametrize("copied", [False, True])
def test_an_unpickled_student_is_loaded_once(copied, own_student, loads) -> None:
    again = pickle.loads(pickle.dumps(own_student))
    if copied:
        again = copy.deepcopy(again)
    answers = again.batch([QUESTION] * 4)
    assert len(loads.paths) == 1
    assert {answer.text for answer in answers} == {own_student.invoke(QUESTION).text}
    assert again._engine is not own_student._engine
    again.close()


@pytest.mark.slow
def test_students_are_not_loaded_at_the_same_time(own_student, loads) -> None:
    students = [pickle.loads(pickle.dumps(own_student)) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        texts = list(pool.map(lambda one: one.invoke(QUESTION).text, students))
    assert (len(loads.paths), loads.most) == (3, 1)
    assert set(texts) == {own_student.invoke(QUESTION).text}
    for one in students:
        one.close()


def test_a_student_can_be_copied_and_used_while_another_is_loaded(own_student, loads) -> None:
    again = pickle.loads(pickle.dumps(own_student))
    loads.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(again.invoke, QUESTION)
        wait_until(lambda: loads.now)
        try:
            assert pickle.loads(pickle.dumps(again)).model == copy.deepcopy(again).model
            # In a thread of its own: this one must not wait for a lock that is never let go.
            used = pool.submit(own_student.invoke, QUESTION).result(60)
        finally:
            loads.gate.set()
        assert answer.result().text == used.text
    again.close()


def test_a_student_named_by_calls_is_loaded_once(own_student, other, loads) -> None:
    answers = own_student.batch([QUESTION] * 4, model=other)
    assert loads.paths == [other]
    assert {answer.text for answer in answers} == {own_student.invoke(QUESTION).text}


def test_close_reaches_students_that_calls_named(own_student, other) -> None:
    own_student.invoke(QUESTION, model=other, max_tokens=1)  # loads it
    scheduler = own_student._loader.others[other]._engine.scheduler
    write_no_more(scheduler)
    stream = own_student.stream(QUESTION, model=other, max_tokens=400, temperature=0)
    next(stream)
    own_student.close()
    assert scheduler.queue.closed
    with pytest.raises(StudentError, match="closed before the answer was finished"):
        list(stream)
    with pytest.raises(StudentError, match="the student is closed"):
        own_student.invoke(QUESTION, model=other)


def test_a_closed_student_loads_no_other(own_student, other, loads) -> None:
    own_student.close()
    with pytest.raises(StudentError, match="the student is closed"):
        own_student.invoke(QUESTION, model=other)
    assert loads.paths == []


def test_close_reaches_a_student_that_is_being_loaded(own_student, other, loads) -> None:
    loads.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(own_student.invoke, QUESTION, model=other)
        wait_until(lambda: loads.now)
        own_student.close()
        loads.gate.set()
        with pytest.raises(StudentError, match="the student is closed"):
            answer.result()
    assert own_student._loader.others[other]._engine.closed


def test_int8_students_answer_and_are_told_apart(student, problem) -> None:
    small = HuggingFaceStudent(model=MODELS / "student", dtype="int8")
    message = small.invoke([("human", problem.question), ("ai", problem.plan)])
    assert message.text
    assert small._get_llm_string() != student._get_llm_string()
    held = small.with_structured_output({"title": "A", "type": "object", "properties": {}})
    assert held.invoke("An empty one.") == {}
    small.close()


@pytest.mark.parametrize("name", ["./nope", "../nope", "./no/where", "~/nope"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(name) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        HuggingFaceStudent(model=name).invoke("Hello")


@pytest.mark.parametrize(
    ("fields", "kind", "says"),
    [
        ({"device": "cuda"}, ConfigurationError, "device='cuda' cannot be used .*leave device out"),
        ({"device": "xpu"}, ConfigurationError, "device='xpu' cannot be used by this torch"),
        ({"device": 0}, ConfigurationError, "^device: Input should be a valid string"),
        ({"dtype": "bfloat17"}, ConfigurationError, "dtype='bfloat17' .*did you mean 'bfloat16'"),
        ({"dtype": "torch.float16"}, ConfigurationError, "did you mean 'float16'"),
        ({"dtype": "int32"}, ConfigurationError, "dtype='int32' is no type of weights"),
        ({"device_map": "auto"}, ImportError, "device_map='auto' needs the package accelerate"),
        ({"backend": "tochr"}, ConfigurationError, "^backend='tochr' is unknown"),
        ({"max_tokens": -1}, ConfigurationError, "^max_tokens: Input should be greater"),
        ({"max_token": 1}, TypeError, "unknown argument 'max_token'; did you mean 'max_tokens'"),
        ({"allowed_added_tokens": ["<|nope|>"]}, ConfigurationError, "^allowed_added_tokens names"),
        ({"chat_template_kwargs": {"tokenize": 1}}, ConfigurationError, "^chat_template_kwargs"),
        ({"model": "/nope"}, FileNotFoundError, "^student='/nope' is not a folder"),
    ],
)
@pytest.mark.parametrize("in_chain", [False, True])
def test_wrong_fields_are_errors_of_the_family(monkeypatch, fields, kind, says, in_chain) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    fields = {"model": str(MODELS / "student"), **fields}
    with pytest.raises(kind, match=says) as caught:
        if in_chain:
            model = fields.pop("model")
            make(WordTeacher(answer="x"), model, student_kwargs=fields)
        else:
            HuggingFaceStudent(**fields)
    assert isinstance(caught.value, GKTError)
    assert isinstance(caught.value, ValueError)
    assert "pydantic.dev" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"guidance_tokens": -1}, "^guidance_tokens must be 0"),
        ({"guidance_tokens": "x"}, "^guidance_tokens: Input should be a valid integer"),
        ({"mode": "guidde"}, "^mode must be"),
        ({"on_student_error": "x", "timeout": -1}, "^on_student_error: Input .*; timeout must be"),
        ({"teacher": "gpt-4"}, "^teacher must be a LangChain chat model"),
        ({"student": 3}, "^student must be a folder"),
    ],
)
def test_wrong_fields_of_a_chain_are_errors_of_the_family(fields, says) -> None:
    local = WordTeacher(answer="x")
    with pytest.raises(ConfigurationError, match=says):
        GuidedKnowledgeTransferChain(**{"teacher": local, "student": local, **fields})
