"""The responses API, asked with the OpenAI client."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from langchain_openai import ChatOpenAI
from openai.types.responses import Response
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from support.models.dripping import Dripping
from support.models.scripted import ToolTeacher
from support.servers.served import served

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt.serving.app import build_app

ANSWER = "Hello there, and well met. This is what I have to say about it, and no more than that."
MODEL = "langchain-gkt-teacher"
ADD = {
    "type": "function",
    "name": "add",
    "description": "Add.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
}

CUT = {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{"}


@pytest.fixture(scope="module")
def log() -> list[Any]:
    return []


@pytest.fixture(scope="module")
def url(log):
    chain = GuidedKnowledgeTransferChain(
        teacher=ToolTeacher(log=log), student=Dripping(), mode="teacher"
    )
    with served(build_app(chain)) as address:
        yield address


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, question: Any = "Hello you", **fields: Any) -> Any:
    return client.responses.create(model=MODEL, input=question, **fields)


def test_text_and_its_usage(client, log) -> None:
    reply = ask(client, instructions="Be brief.", max_output_tokens=50, reasoning={"effort": "low"})
    assert (reply.output_text, reply.status) == (ANSWER, "completed")
    assert (reply.usage.input_tokens, reply.usage.total_tokens) == (10, 31)
    assert reply.gkt["teacher"]["calls"] == 1
    Response.model_validate(reply.model_dump(), strict=False)
    assert [(m.type, m.text) for m in log[-1]["messages"]] == [
        ("system", "Be brief."),
        ("human", "Hello you"),
    ]
    short = ask(client, max_output_tokens=5)
    assert (short.status, short.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_the_events_of_a_text(client) -> None:
    events = list(ask(client, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert "".join(event.delta for event in events[4:-4]) == ANSWER == events[-4].text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == ANSWER
    assert events[-1].response.usage == ask(client).usage
    with client.responses.stream(model=MODEL, input="Hello you") as stream:
        assert stream.get_final_response().output_text == ANSWER


def test_a_tool_is_called_and_its_result_read(client, log) -> None:
    question: list[Any] = [{"role": "user", "content": "please add 3 and 4"}]
    asked = ask(client, question, tools=[ADD], tool_choice="required")
    (call,) = asked.output
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "add",
        {"a": 3, "b": 4},
    )
    named = {"type": "function", "name": "add"}
    events = list(ask(client, question, tools=[ADD], tool_choice=named, stream=True))
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [json.loads(event.arguments) for event in done] == [{"a": 3, "b": 4}]
    assert events[-1].response.output[0].name == "add"
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "7"}
    turns = [*question, *(item.model_dump() for item in asked.output), result]
    assert ask(client, turns, tools=[ADD]).output_text.endswith("the answer to this is: 7.")
    assert [m.type for m in log[-1]["messages"]] == ["human", "ai", "tool"]


def test_a_turn_of_several_items_is_one_message(client, log) -> None:
    call = {"type": "function_call", "name": "add", "arguments": '{"a": 1, "b": 2}'}
    ask(
        client,
        [
            {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
            {"type": "reasoning", "id": "r", "summary": []},
            {"role": "assistant", "content": [{"type": "output_text", "text": "I add."}]},
            {**call, "call_id": "c1"},
            {**call, "call_id": "c2"},
            {"type": "function_call_output", "call_id": "c1", "output": "3"},
            {"type": "function_call_output", "call_id": "c2", "output": "3"},
        ],
        tools=[ADD],
    )
    kinds = [message.type for message in log[-1]["messages"]]
    assert kinds == ["human", "ai", "tool", "tool"]
    turn = log[-1]["messages"][1]
    assert (turn.text, [call["id"] for call in turn.tool_calls]) == ("I add.", ["c1", "c2"])


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "nothing is stored"),
        ({"background": True}, "background", "at once"),
        ({"question": [{"type": "item_reference", "id": "m"}]}, "input[0].type", "not supported"),
        ({"question": [{"role": "king", "content": "x"}]}, "input[0].role", "king"),
        ({"question": [CUT]}, "input[0].arguments", "no JSON"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "not supported"),
        ({"extra_body": {"top_q": 1}}, "top_q", "did you mean 'top_p'"),
        ({"temperature": 9}, "temperature", "less than"),
    ],
)
def test_bad_requests_name_their_field(client, fields, param, says) -> None:
    with pytest.raises(openai.BadRequestError, match=says) as caught:
        ask(client, **fields)
    assert caught.value.param == param


def test_every_field_of_the_api_may_be_null(client) -> None:
    for name in ResponseCreateParamsBase.__annotations__:
        if name not in ("input", "model"):
            assert ask(client, extra_body={name: None}).output_text == ANSWER, name


def test_langchain_asks_it_too(url) -> None:
    model = ChatOpenAI(
        base_url=url, api_key="k", model=MODEL, use_responses_api=True, stream_usage=True
    )
    assert model.invoke("Hello you").text == ANSWER
    assert "".join(str(chunk.text) for chunk in model.stream("Hello you")) == ANSWER
    form = {"title": "note", "type": "object", "properties": {"words": {"type": "string"}}}
    assert "words" in model.with_structured_output(form, method="json_schema").invoke("Hello you")
