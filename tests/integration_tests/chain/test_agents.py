from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel
from support.models.fakes import Recorder
from support.models.scripted import ToolTeacher, save_scripted

from langchain_gkt import GuidedKnowledgeTransferChain, HuggingFaceStudent, track_costs

WORDS = "a rather long line of words that no small limit could ever hold"


@tool
def write_down(words: str) -> str:
    """Write words down."""
    return f"written: {words}"


class Verdict(BaseModel):
    """The result of the work."""

    text: str
    score: int


@pytest.fixture(scope="module")
def caller(tmp_path_factory) -> HuggingFaceStudent:
    return HuggingFaceStudent(model=save_scripted(tmp_path_factory.mktemp("scripted")))


@pytest.fixture
def chain(caller) -> GuidedKnowledgeTransferChain:
    return GuidedKnowledgeTransferChain(
        teacher=ToolTeacher(log=[]), student=caller, guidance_tokens=8
    )


def ask(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_agent_on_the_chain_makes_its_two_steps(asynchronous, chain) -> None:
    agent = create_agent(model=chain, tools=[write_down])
    with track_costs() as costs:
        asked = ask(f"Please write_down '{WORDS}'")
        state = await agent.ainvoke(asked) if asynchronous else agent.invoke(asked)
    kinds = [message.type for message in state["messages"]]
    assert kinds == ["human", "ai", "tool", "ai"]
    called, result, last = state["messages"][1:]
    assert called.tool_calls[0]["args"] == {"words": WORDS}
    assert result.content == f"written: {WORDS}"
    assert last.text.endswith(f"written: {WORDS}.")
    # The call ran into the limit and was asked for again; the text was guided.
    assert called.response_metadata["gkt"]["teacher_calls"] == 2
    assert last.response_metadata["gkt"]["finished_by"] == "student"
    counted = costs.report().to_dict()
    assert (counted["teacher"]["calls"], counted["student"]["calls"]) == (3, 1)


def test_an_agent_calls_the_chain_as_a_tool_and_gets_text(chain) -> None:
    helper = chain.as_tool(name="ask_pair", description="Answers questions.")
    recorder = Recorder()
    agent = create_agent(model=ToolTeacher(), tools=[helper])
    state = agent.invoke(ask("ask_pair 'Hello there'"), {"callbacks": [recorder]})
    result = state["messages"][2]
    assert result.type == "tool"
    assert result.content == chain.invoke("Hello there").text
    assert len(recorder.by_role("student")) == 1


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_agent_returns_an_object(asynchronous, chain) -> None:
    agent = create_agent(model=chain, tools=[write_down], response_format=Verdict)
    asked = ask("Verdict 'fine work' 7")
    state = await agent.ainvoke(asked) if asynchronous else agent.invoke(asked)
    assert state["structured_response"] == Verdict(text="fine work", score=7)


def tokens_shown(streamed: Any) -> dict[str, list[str]]:
    shown: dict[str, list[str]] = {}
    for chunk, _ in streamed:
        if chunk.type.startswith(("ai", "AI")):
            shown.setdefault(chunk.id, []).append(str(chunk.text))
    return shown


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_langgraph_shows_one_message_and_each_token_once(asynchronous, chain) -> None:
    async def acall(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await chain.ainvoke(state["messages"])]}

    def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [chain.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", acall if asynchronous else call)
    graph.add_edge(START, "model")
    compiled = graph.compile()
    if asynchronous:
        streamed = [p async for p in compiled.astream(ask("Hello"), stream_mode="messages")]
    else:
        streamed = list(compiled.stream(ask("Hello"), stream_mode="messages"))
    (texts,) = tokens_shown(streamed).values()
    assert len([text for text in texts if text]) > 5
    assert "".join(texts) == chain.invoke("Hello").text


def test_an_agents_stream_shows_each_answer_once(chain) -> None:
    agent = create_agent(model=chain, tools=[write_down])
    streamed = list(agent.stream(ask(f"write_down '{WORDS}'"), stream_mode="messages"))
    shown = ["".join(texts) for texts in tokens_shown(streamed).values()]
    assert len(shown) == 2
    assert shown[1].endswith(f"written: {WORDS}.")


async def test_events_of_the_chain_alone(chain) -> None:
    agent = create_agent(model=chain, tools=[write_down])
    shown, called = [], []
    async for event in agent.astream_events(ask(f"write_down '{WORDS}'"), version="v2"):
        if event["event"] == "on_chat_model_stream" and "gkt_role" not in event["metadata"]:
            shown.append(event["data"]["chunk"].text)
        if event["event"] == "on_chat_model_end" and "gkt_role" not in event["metadata"]:
            called.append(event["data"]["output"])
    assert "".join(shown) == called[-1].text
    assert isinstance(called[0], AIMessage)
    assert called[0].tool_calls
