"""What is refused before a teacher is paid: servers that are not there, or not the right ones."""

from __future__ import annotations

import httpx
import pytest
from langchain_core.messages import HumanMessage
from support.models.fakes import MODELS
from support.servers.token_server import ADDRESS

from langchain_gkt import HuggingFaceStudent, StudentError
from langchain_gkt.students.backends.server.dialects import LlamaServer


def test_an_address_and_a_backend_belong_together(pair) -> None:
    folder = str(MODELS / "student")
    for fields, said in (
        ({"base_url": ADDRESS}, "base_url='http://student.test/v1' needs a backend"),
        ({"base_url": ADDRESS, "backend": "torch"}, "has no meaning for backend='torch'"),
        ({"backend": "vllm"}, "backend='vllm' needs base_url"),
        ({"base_url": ADDRESS, "backend": "vllm", "dtype": "int8"}, "dtype='int8' is not"),
        ({"base_url": ADDRESS, "backend": "vllm", "device": "cuda"}, "device='cuda' is not"),
        ({"base_url": ADDRESS, "backend": "vllm", "request_timeout": 0}, "request_timeout"),
    ):
        with pytest.raises(ValueError, match=said):
            HuggingFaceStudent(model=folder, **fields)
    with pytest.raises(ValueError, match="give the folder or hub id of its tokenizer"):
        HuggingFaceStudent(model=pair[0], backend="vllm", base_url=ADDRESS)


def test_a_wrong_key_is_refused(served) -> None:
    with pytest.raises(ValueError, match=r"api_key is missing.*401: Unauthorized"):
        served(server={"key": "right"})
    with pytest.raises(ValueError, match="api_key is wrong") as refused:
        served(server={"key": "right"}, api_key="false")
    assert "false" not in str(refused.value)
    student, _ = served(server={"key": "right"}, api_key="right")
    assert "right" not in repr(student) + str(student._identifying_params)
    assert student.invoke("Hi.", max_tokens=2).text
    assert not student.names_weights  # new ones may come under the same name


def test_another_model_is_refused(served, tmp_path, pair) -> None:
    with pytest.raises(ValueError, match=r"served_model_name='x' is not there: .* has tiny"):
        served(served_model_name="x")
    with pytest.raises(ValueError, match=r"is not the tokenizer of .*splits a text"):
        served(server={"splits": [1, 2, 3]})

    class OtherWords:
        def decode(self, ids):
            return "other"

        def __getattr__(self, name):
            return getattr(pair[1], name)

        def __call__(self, *given, **options):
            return pair[1](*given, **options)

    with pytest.raises(ValueError, match=r"is not the tokenizer of .*here 'other'"):
        served(tokenizer=OtherWords())


@pytest.mark.parametrize("kind", ["vllm", "llama-server"])
def test_a_server_that_cannot_hold_a_seam_is_refused(served, kind) -> None:
    with pytest.raises(StudentError, match="does not choose among the tokens it is given"):
        served(kind, server={"masks": False})


@pytest.mark.parametrize("kind", ["vllm", "llama-server"])
def test_a_server_without_expressions_is_refused(served, kind) -> None:
    with pytest.raises(StudentError, match="does not know structured_outputs"):
        served(kind, server={"matches": False})


def test_a_server_that_gives_no_ids_is_refused(served) -> None:
    with pytest.raises(StudentError, match="gives no token ids back"):
        served(server={"tells_ids": False})


def test_what_is_no_server_of_models_is_refused(served, monkeypatch) -> None:
    from support.servers.token_server import TokenServer

    async def page(self, request):
        return httpx.Response(200, text="<html>")

    monkeypatch.setattr(TokenServer, "handle", page)
    with pytest.raises(StudentError, match="is no server of models"):
        served()


def test_a_router_that_forwards_too_little_is_refused(served, monkeypatch) -> None:
    monkeypatch.setattr(LlamaServer, "path", "/elsewhere")
    with pytest.raises(StudentError, match="router in front must forward /elsewhere"):
        served("llama-server")


def test_a_prompt_beyond_the_context_of_the_server_is_refused(served) -> None:
    student, _ = served(server={"context": 64})
    with pytest.raises(ValueError, match="the student's context holds 64"):
        student.check([HumanMessage("a b " * 100)])


def test_a_folder_without_a_tokenizer_is_refused(served, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer\.json"):
        served(model=str(tmp_path))
