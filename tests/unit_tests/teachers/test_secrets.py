"""Keys, headers and extra bodies are told to nobody: found by planting them."""

from __future__ import annotations

import json
import pickle
import traceback
from typing import Any

import pytest
from langchain_core.tracers.base import BaseTracer
from pydantic import SecretStr
from support.models.exam import PRICE, Knowing, number_of, pair, task
from support.models.fakes import MODELS, WordTeacher, make

from langchain_gkt import TeacherError, track_costs
from langchain_gkt.evaluation import compare, sweep
from langchain_gkt.evaluation.running.run_settings import _model
from langchain_gkt.teachers.secrets import HIDDEN

PLANTED = {
    "api_key": "key-planted-0001",
    "default_headers": "header-planted-0002",
    "extra_body": "body-planted-0003",
    "model_kwargs": "extra-planted-0004",
}


class KeyedTeacher(WordTeacher):
    """A teacher as providers' packages make them, whose server repeats what it was sent."""

    api_key: SecretStr | None = None
    default_headers: Any = None
    extra_body: Any = None
    model_kwargs: Any = {}

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"extra_body": self.extra_body, "model": "m", **self.model_kwargs}


class EchoError(Exception):
    """A provider's error that repeats the request."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message, self.body = message, {"error": [message]}


class Traces(BaseTracer):
    """Keeps all that LangChain's tracers are told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def _persist_run(self, run: Any) -> None:
        self.told.append(run.model_dump_json(exclude={"parent_run"}, fallback=repr))


def keyed(kind: type[KeyedTeacher] = KeyedTeacher, **fields: Any) -> KeyedTeacher:
    return kind(
        api_key=SecretStr(PLANTED["api_key"]),
        default_headers={"Authorization": f"Bearer {PLANTED['default_headers']}"},
        extra_body={"user": {"mail": PLANTED["extra_body"]}},
        model_kwargs={"extra_headers": {"x-key": PLANTED["model_kwargs"]}, "logit_bias": {"1": 2}},
        **fields,
    )


def holds_nothing(told: str) -> None:
    assert [value for value in PLANTED.values() if value in told] == []


@pytest.mark.parametrize("how", ["invoke", "stream", "guide"])
def test_an_echoed_secret_is_hidden_in_errors_and_traces(how, student) -> None:
    error = EchoError(f"wrong: {' '.join(PLANTED.values())}")
    chain, traces = make(keyed(fails_with=error, asked=[]), student), Traces()
    with pytest.raises(TeacherError, match="wrong") as caught:
        config = {"callbacks": [traces]}
        if how == "stream":
            list(chain.stream("Hello", config))
        else:
            getattr(chain, how)(*(["Hello", config] if how == "invoke" else [[("human", "x")]]))
    lines = "".join(traceback.format_exception(caught.value))
    assert HIDDEN in lines
    holds_nothing(f"{lines} {error.message} {error.body} {traces.told}")
    assert how == "guide" or traces.told


def test_a_fallback_and_settings_hold_no_secret(student, teacher) -> None:
    failing = keyed(fails_with=EchoError(f"no: {PLANTED['api_key']}"), asked=[])
    answer = make(failing, student, on_teacher_error="student", max_tokens=2).invoke("Hello")
    assert HIDDEN in answer.response_metadata["gkt"]["fallback"]
    kept = _model(failing)
    assert kept["params"]["logit_bias"] == {"1": 2}
    holds_nothing(f"{answer} {json.dumps(kept)} {make(failing, student)._identifying_params}")
    other = keyed(asked=[]).model_copy(update={"extra_body": {"user": "someone else"}})
    assert _model(other) != kept


def test_the_request_itself_keeps_what_it_needs(student) -> None:
    teacher = keyed(answer="Hello there, and well met.", asked=[])
    make(teacher, student, max_tokens=20).invoke("Hello", {"callbacks": [Traces()]})
    assert teacher.default_headers["Authorization"].endswith(PLANTED["default_headers"])
    assert teacher.extra_body == {"user": {"mail": PLANTED["extra_body"]}}


def test_a_pickle_holds_no_key() -> None:
    chain = make(keyed(asked=[]), str(MODELS / "student"))
    data = pickle.dumps(chain)
    assert PLANTED["api_key"].encode() not in data
    again = pickle.loads(data)
    assert again.teacher.api_key is None
    assert again.teacher.default_headers == chain.teacher.default_headers


class KeyedKnowing(Knowing, KeyedTeacher):
    """A teacher that sits exams, and whose server repeats what it was sent for one question."""

    def _generate(self, messages: Any, *arguments: Any, **kwargs: Any) -> Any:
        if number_of(messages) == 11:
            raise EchoError(f"wrong: {' '.join(PLANTED.values())}")
        return Knowing._generate(self, messages, *arguments, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("measure", [compare, sweep])
def test_no_file_of_a_run_and_no_report_holds_a_secret(measure, tmp_path) -> None:
    chain = pair().model_copy(update={"teacher": keyed(KeyedKnowing)})
    with track_costs(teacher_price=PRICE, keep_calls=True) as costs:
        found = measure(
            chain,
            task(3),
            teacher_price=PRICE,
            out=tmp_path / "run",
        )
    found.save(tmp_path / "report")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} >= {".html", ".md", ".txt", ".svg", ".jsonl", ".json"}
    told = "".join(file.read_bytes().decode("latin-1") for file in files)
    assert HIDDEN in told  # the row that failed is there, without what was planted
    report = costs.report()
    holds_nothing(
        f"{told} {found} {report} {report.to_dict()} {report._repr_html_()} {costs.calls}"
    )


def test_a_key_that_is_missing_where_a_teacher_is_loaded_is_named(monkeypatch) -> None:
    from langchain_openai import ChatOpenAI

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    student = str(MODELS / "student")
    data = pickle.dumps(make(ChatOpenAI(model="m", api_key=PLANTED["api_key"]), student))
    assert PLANTED["api_key"].encode() not in data
    with pytest.raises(ValueError, match=r"without its openai_api_key.*environment"):
        pickle.loads(data)
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    assert pickle.loads(data).teacher.openai_api_key.get_secret_value() == "another"
