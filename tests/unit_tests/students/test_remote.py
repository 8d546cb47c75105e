"""Students behind a server."""

from __future__ import annotations

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI

from langchain_gkt.students import remote_student
from langchain_gkt.students.remote import _WithoutEcho

CLIENT = ChatOpenAI(model="m", base_url="http://127.0.0.1:1/v1", api_key="x", extra_body={"a": 1})


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama-server"])
def test_a_server_is_asked_to_continue(engine) -> None:
    student = remote_student(CLIENT, engine)
    body = getattr(student, "chat_model", student).extra_body
    assert body == {"a": 1, "add_generation_prompt": False, "continue_final_message": True}
    assert CLIENT.extra_body == {"a": 1}


def test_ollama_continues_by_itself() -> None:
    model = FakeListChatModel(responses=["x"])
    assert remote_student(model, "ollama").invoke("a").content == "x"


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ValueError, match=r"engine='tgi' is unknown; take one of vllm"):
        remote_student(CLIENT, "tgi")
    with pytest.raises(ValueError, match="has no field extra_body"):
        remote_student(FakeListChatModel(responses=["x"]), "vllm")


@pytest.mark.parametrize("reply", ["The sum is 5", " is 5", "The sun"])
async def test_what_llama_server_sends_back_is_dropped(reply) -> None:
    student = _WithoutEcho(chat_model=FakeListChatModel(responses=[reply]))
    messages = [HumanMessage("2 + 3?"), AIMessage("The sum")]
    new = reply.removeprefix("The sum")
    assert student.invoke(messages).content == new
    assert (await student.ainvoke(messages)).content == new
    assert student.invoke("2 + 3?").content == reply
    assert "".join(chunk.text for chunk in student.stream(messages)) == new
    assert "".join([chunk.text async for chunk in student.astream(messages)]) == new


def test_a_tokenizer_makes_it_a_student_of_token_ids(monkeypatch) -> None:
    made = {}

    class Student:
        def __init__(self, **fields) -> None:
            made.update(fields)

    monkeypatch.setattr("langchain_gkt.students.huggingface.HuggingFaceStudent", Student)
    client = CLIENT.model_copy(update={"temperature": 0.5, "max_tokens": 9, "stop": "END"})
    remote_student(client, "vllm", tokenizer="some/model")
    assert made.pop("api_key").get_secret_value() == "x"
    assert made == {
        "model": "some/model",
        "backend": "vllm",
        "base_url": "http://127.0.0.1:1/v1",
        "served_model_name": "m",
        "temperature": 0.5,
        "max_tokens": 9,
        "stop": ["END"],
    }
    for model, engine in ((CLIENT, "ollama"), (FakeListChatModel(responses=["x"]), "vllm")):
        with pytest.raises(ValueError, match="leave tokenizer out"):
            remote_student(model, engine, tokenizer="some/model")
