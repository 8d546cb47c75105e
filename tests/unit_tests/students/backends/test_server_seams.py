"""A begun answer behind a server: what holds the student to the seam, over a stand-in."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, HumanMessage

QUESTION = [HumanMessage("What is 3 plus 4?")]
BEGUN = [*QUESTION, AIMessage("The sum of 3 and")]


def test_a_seam_is_an_expression_and_takes_no_request_of_its_own(served, local) -> None:
    far, server = served()
    assert far.invoke(BEGUN).content == local.invoke(BEGUN).content
    (body,) = server.asked()
    assert body["structured_outputs"] == {"regex": r" and[\s\S]*"}


@pytest.mark.parametrize("text", ["The sum of 3 and ", "The answer is ", "We add 3 to "])
def test_no_token_of_a_whole_answer_is_left_over(served, local, text) -> None:
    far, server = served()
    begun = [*QUESTION, AIMessage(text)]
    for limit in (1, 2, 6):
        wanted = local.invoke(begun, max_tokens=limit)
        found = far.invoke(begun, max_tokens=limit)
        assert found.content == wanted.content
        assert found.usage_metadata == wanted.usage_metadata
        reasons = [one.response_metadata["finish_reason"] for one in (found, wanted)]
        assert reasons[0] == reasons[1]
    assert server.asked()[0]["max_tokens"] == 1  # the new token begins with the blank


def test_a_lone_blank_is_left_to_the_model_whose_first_token_comes_at_once(served, local) -> None:
    begun = [*QUESTION, AIMessage("The sum of 3 and ")]
    wanted = local.invoke(begun).content
    for streams in (False, True):
        far, server = served()
        server.prefers = far._engine.tokenizer.encode(" ")[0]
        chunks = far.stream(begun) if streams else [far.invoke(begun)]
        assert "".join(chunk.text for chunk in chunks) == wanted
        (body,) = server.asked()
        assert body["stream"]
        assert body.get("stream_interval") == (None if streams else body["max_tokens"])
        assert "structured_outputs" not in body
        assert server.dropped == 0


@pytest.mark.parametrize("prefers", [",", "\n", "the", None])
@pytest.mark.parametrize("limit", [1, 2, 8])
def test_a_model_that_writes_no_blank_is_asked_again_with_a_regex(
    served, local, prefers, limit
) -> None:
    far, server = served()
    vocabulary = far._engine.tokenizer
    ends = prefers is None  # the answer
    ids = [vocabulary.eos_token_id] if ends else vocabulary.encode(prefers)
    server.prefers = ids[0]
    begun = [*QUESTION, AIMessage("The sum of 3 and ")]
    wanted = local.invoke(begun, max_tokens=limit)
    found = far.invoke(begun, max_tokens=limit)
    assert found.content == wanted.content
    assert found.usage_metadata == wanted.usage_metadata
    free, held = server.asked()[:2]
    assert "structured_outputs" not in free
    assert held["structured_outputs"] == {"regex": r" [\s\S]*"}
    assert "stream_interval" not in held
    assert held["prompt"] == free["prompt"]
    assert server.dropped == (not ends and limit > 1)  # the other streams had ended by themselves


def test_a_server_that_sends_each_token_apart_is_held_to_the_blank_from_then_on(served) -> None:
    far, server = served()
    server.knows_intervals = False  # vLLM before 2026-08
    begun = [*QUESTION, AIMessage("The sum of 3 and ")]
    server.prefers = far._engine.tokenizer.encode(" ")[0]
    answers = [far.invoke(begun).content for _ in range(2)]
    assert answers[0] == answers[1]
    free, held = server.asked()
    assert "structured_outputs" not in free
    assert held["structured_outputs"] == {"regex": r" [\s\S]*"}
    assert not held["stream"]


@pytest.mark.parametrize("kind", ["sglang", "llama-server"])
def test_a_server_that_cannot_send_a_first_token_apart_is_held_to_the_blank(
    served, local, kind
) -> None:
    far, server = served(kind)
    server.prefers = far._engine.tokenizer.encode(",")[0]
    begun = [*QUESTION, AIMessage("The sum of 3 and ")]
    assert far.invoke(begun).content == local.invoke(begun).content
    assert len(server.asked()) == 1


def test_a_seam_that_begins_a_control_token_is_chosen_among_tokens_of_text(served, local) -> None:
    far, server = served()
    begun = [*QUESTION, AIMessage("a <")]
    assert far.invoke(begun, max_tokens=4).content == local.invoke(begun, max_tokens=4).content
    *held, rest = server.asked()
    assert {(one["max_tokens"], one["stream"]) for one in held} <= {(1, False)}
    assert all(1 < len(one["allowed_token_ids"]) <= 1024 for one in held)
    assert "allowed_token_ids" not in rest
    assert "structured_outputs" not in rest
    assert len(set(server.sessions[4:])) == 1
