"""What a recorded teacher answers, call by call, and what that costs."""

from __future__ import annotations

import pickle
from decimal import Decimal

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from support.models.exam import Needy
from support.recorded_logs import (
    ANSWER,
    QUESTION,
    TOKENS,
    load_batch,
    result,
)

from langchain_gkt import (
    ConfigurationError,
    GuidancePolicy,
    GuidedKnowledgeTransferChain,
    Price,
    RecordedTeacher,
    track_costs,
)

pytestmark = pytest.mark.usefixtures("encoding")


@pytest.fixture
def teacher(tmp_path) -> RecordedTeacher:
    return load_batch(tmp_path, result("a"))


def test_missing_questions_are_named_before_anything_is_spent(teacher) -> None:
    teacher.require([QUESTION, [SystemMessage("s"), HumanMessage("x", id="a")]])
    with pytest.raises(ConfigurationError, match=r"2 of 3 questions .*: 'What else.', 'x'"):
        teacher.require([QUESTION, "What else?", [HumanMessage("x")]])
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Needy(), guidance_tokens=4)
    with track_costs() as costs, pytest.raises(ConfigurationError, match="'What else is one more"):
        chain.invoke("What else is one more than 12?")
    assert costs.report().teacher.known_cost == 0


def test_a_second_call_goes_on_or_needs_a_live_teacher(teacher) -> None:
    asked = HumanMessage(QUESTION)
    reply = teacher.invoke([asked, AIMessage("Plan: take 11")], max_tokens=3)
    assert reply.text == " and add one."
    assert reply.usage_metadata["input_tokens"] == 23  # the begun answer is read
    assert reply.usage_metadata["output_tokens"] == 3
    rest = teacher.invoke([asked, AIMessage("Plan: take 11")])
    assert (rest.text, rest.usage_metadata["output_tokens"]) == (ANSWER[13:], TOKENS - 2)
    inside = teacher.invoke([asked, AIMessage("Plan: ta")], max_tokens=2)
    assert inside.text == "ke 11"
    for other in ([asked, AIMessage("Well")], [asked, ToolMessage("5", tool_call_id="1")]):
        with pytest.raises(ConfigurationError, match="live teacher"):
            teacher.invoke(other)
    with pytest.raises(ConfigurationError, match="live teacher"):  # a verdict
        teacher.invoke([asked, AIMessage("12"), HumanMessage("Is this right?")])
    with pytest.raises(ConfigurationError, match="model='gpt-5' needs a live teacher"):
        teacher.invoke(QUESTION, model="gpt-5")


def test_a_changed_prompt_is_no_longer_the_message_of_its_id(teacher) -> None:
    """A teacher that takes no begun answer is asked by an instruction, which is not recorded."""
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher, student=Needy(), guidance_tokens=4, teacher_prefill=False
    )
    messages = [HumanMessage(QUESTION, id="a"), AIMessage("Plan:")]
    with pytest.raises(ConfigurationError, match="no answer is recorded"):
        chain.invoke(messages)


def test_a_stop_string_ends_it(teacher) -> None:
    reply = teacher.invoke(QUESTION, stop=[" add"])
    assert (reply.text, reply.response_metadata["finish_reason"]) == ("Plan: take 11 and", "stop")
    assert reply.usage_metadata["output_tokens"] == 5


def test_hidden_reasoning_is_billed_first(tmp_path) -> None:
    body = result("a")
    body["response"]["body"]["usage"]["completion_tokens"] += 4
    body["response"]["body"]["usage"]["completion_tokens_details"] = {"reasoning_tokens": 4}
    reply = load_batch(tmp_path, body).invoke(QUESTION, max_tokens=6)
    assert reply.text == "Plan: take"
    assert reply.usage_metadata["output_token_details"] == {"reasoning": 4}


async def test_every_door_gives_the_same(teacher) -> None:
    teacher = teacher.model_copy(update={"max_tokens": 5})
    message = teacher.invoke(QUESTION)
    streamed = list(teacher.stream(QUESTION))
    assert [chunk.text for chunk in streamed[:3]] == ["Plan:", " take", " 11"]
    added = streamed[0]
    for chunk in streamed[1:]:
        added += chunk
    awaited = [chunk async for chunk in teacher.astream(QUESTION)]
    assert [chunk.text for chunk in awaited] == [chunk.text for chunk in streamed]
    for other in (
        added,
        await teacher.ainvoke(QUESTION),
        pickle.loads(pickle.dumps(teacher)).invoke(QUESTION),
    ):
        assert other.text == message.text
        assert other.usage_metadata == message.usage_metadata
        assert other.response_metadata["finish_reason"] == "length"


def test_two_logs_do_not_look_alike(teacher, tmp_path) -> None:
    from langchain_gkt._langchain_compat import cache_key
    from langchain_gkt.teachers.identity import identity

    (tmp_path / "other").mkdir()
    other = load_batch(tmp_path / "other", result("a", text=ANSWER.replace("Plan", "Idea")))
    again = load_batch(tmp_path, result("a"))
    assert repr(identity(teacher)) == repr(identity(again))
    assert repr(identity(teacher)) != repr(identity(other))
    assert cache_key(teacher) == cache_key(again) != cache_key(other)
    assert ANSWER not in repr(teacher)


@pytest.mark.parametrize("streaming", [True, False])
def test_a_chain_is_billed_by_tokens_and_price(teacher, streaming) -> None:
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher,
        student=Needy(needs=3),
        guidance_tokens=5,
        guidance=GuidancePolicy(cut="none"),
    )
    price = Price(input_mtok="1", output_mtok="8")
    with track_costs(teacher_price=price) as costs:
        if streaming:
            text = "".join(chunk.text for chunk in chain.stream(QUESTION))
        else:
            message = chain.invoke(QUESTION)
            text = message.text
            gkt = message.response_metadata["gkt"]
            assert gkt["guidance_tokens"] == 5
            assert gkt["guidance"] == "Plan: take 11 and add"
    assert text == ANSWER
    bill = costs.report().teacher
    assert (bill.prompt_tokens, bill.completion_tokens) == (20, 5)
    assert bill.known_cost == (20 * price.input_mtok + 5 * price.output_mtok) / Decimal(10**6)


def test_genai_prices_knows_the_recorded_model(teacher) -> None:
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Needy(), guidance_tokens=5)
    with track_costs() as costs:
        chain.invoke(QUESTION)
    bill = costs.report().teacher
    # Of 20 prompt tokens 4 were read from the cache, at half the price.
    per_token = Decimal("0.15") / 10**6
    assert bill.prompt_cost == 18 * per_token
    assert bill.completion_cost == 5 * Decimal("0.60") / 10**6


@pytest.mark.slow
def test_it_loads_no_model_library(light) -> None:
    code = "import sys\nfrom langchain_gkt import RecordedTeacher\n"
    code += "import warnings; warnings.simplefilter('ignore')\n"
    code += "RecordedTeacher.from_answers({'q': 'a b'}).invoke('q', max_tokens=1)\n"
    code += "print(*{'torch', 'transformers'} & sys.modules.keys())"
    done = light.run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
