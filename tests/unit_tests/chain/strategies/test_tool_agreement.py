"""Tool calls by agreement: who makes a call, what is shown, and what is paid."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from support.entry_points import ENTRY_POINTS, answer
from support.models.calling import (
    PRICE,
    WrittenStudent,
    WrittenTeacher,
    call,
    check_bill,
    pay,
    samples,
    weather,
)
from support.models.fakes import WordTeacher
from support.models.scripted import add, save_scripted

from langchain_gkt import (
    Budget,
    BudgetExceeded,
    CircuitBreaker,
    GuidancePolicy,
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
    StudentError,
    TeacherError,
    track_costs,
)
from langchain_gkt.gates import AgreementGate, ConfidenceGate
from langchain_gkt.students.protocol import FirstToken

GATE = AgreementGate(samples=5, at_least=4)
ROME = call("weather", city="Rome")
OSLO = call("weather", city="Oslo")
TEACHERS = AIMessage(
    "", tool_calls=[{"name": "weather", "args": {"city": "Bern"}, "id": "teachers"}]
)


@pytest.fixture(scope="module")
def caller(tmp_path_factory) -> HuggingFaceStudent:
    """A student of torch whose template knows tools."""
    return HuggingFaceStudent(model=save_scripted(tmp_path_factory.mktemp("caller")))


def pair(*texts: Any, teacher: Any = TEACHERS, tools: Any = GATE, **fields: Any):
    of_policy = ("teacher_tools", "gate", "ladder")
    policy = {name: fields.pop(name) for name in of_policy if name in fields}
    return GuidedKnowledgeTransferChain(
        teacher=WrittenTeacher(says=samples(teacher), ledger=[], asked=[]),
        student=fields.pop("student", None)
        or WrittenStudent(says=samples(*texts), ledger=[], asked=[]),
        guidance=GuidancePolicy(tools=tools, **policy),
        **fields,
    )


async def ask(chain: Any, how: str = "invoke", tools: Any = (weather, pay), **kwargs: Any):
    with track_costs(teacher_price=PRICE) as costs:
        message = await answer(chain.bind_tools(list(tools), **kwargs), how, "How is it in Rome?")
    check_bill(costs.report(), chain.teacher, chain.student)
    return message, message.response_metadata["gkt"]


@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_calls_that_agree_are_the_turn_and_nothing_is_paid(how) -> None:
    chain = pair(ROME, ROME, OSLO, ROME, ROME)
    message, gkt = await ask(chain, how)
    assert [(c["name"], c["args"]) for c in message.tool_calls] == [("weather", {"city": "Rome"})]
    assert (message.text, message.response_metadata["finish_reason"]) == ("", "tool_calls")
    assert (gkt["finished_by"], gkt["agreement"], gkt["amount"]) == ("student", 0.8, "none")
    assert gkt["signals"] == {"tool_agreement": 0.8}
    assert chain.teacher.ledger == []
    assert len(chain.student.ledger) == 5
    assert {one["temperature"] for one in chain.student.asked} == {0.7}
    assert gkt["student_usage"]["output_tokens"] == 25


@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_a_student_that_wavers_leaves_the_call_to_the_teacher(how) -> None:
    chain = pair(ROME, ROME, ROME, OSLO, OSLO)
    message, gkt = await ask(chain, how)
    assert message.tool_calls == TEACHERS.tool_calls
    assert (gkt["finished_by"], gkt["agreement"]) == ("teacher", 0.6)
    assert (len(chain.teacher.ledger), len(chain.student.ledger)) == (1, 5)


@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
@pytest.mark.parametrize(
    "wrong",
    [
        call("weather", town="Rome"),
        call("weather", city="Rome", days="two"),
        call("weather", city="Rome", wind=True),
        call("forecast", city="Rome"),
        '```json\n{"name": "forecast", "arguments": {"city": "Rome"}}\n```',
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Ro',
        AIMessage(ROME, response_metadata={"finish_reason": "length"}),
        "",
    ],
)
async def test_a_call_that_does_not_validate_is_never_shown(how, wrong) -> None:
    message, gkt = await ask(pair(wrong), how)
    assert message.tool_calls == TEACHERS.tool_calls
    assert not message.invalid_tool_calls
    assert (gkt["finished_by"], gkt["agreement"]) == ("teacher", 0.0)


async def test_calls_that_do_the_same_count_as_one() -> None:
    spellings = (
        call("weather", city="Rome", days=2),
        json.dumps({"name": "weather", "arguments": {"days": 2.0, "city": "Rome"}}),
        '{{"name": "weather", "arguments": {"city": "Rome", "days": 2, "unit": "C"}}}',
        'So:\n```json\n{"name": "weather", "parameters": {"city": "Rome", "days": 2}}\n```',
        AIMessage(
            "", tool_calls=[{"name": "weather", "args": {"city": "Rome", "days": 2}, "id": "x"}]
        ),
    )
    for first in range(5):
        message, gkt = await ask(pair(*spellings[first:], *spellings[:first]))
        assert gkt["agreement"] == 1.0
        shown = message.tool_calls[0]
        assert {"unit": "C", **shown["args"]} == {"city": "Rome", "days": 2, "unit": "C"}
        assert type(shown["args"]["days"]) is int
        assert message.text == ""


async def test_parallel_calls_are_compared_as_a_set() -> None:
    both, turned = f"{ROME}\n{OSLO}", f"{OSLO}\n{ROME}"
    message, gkt = await ask(pair(both, turned, both, turned, ROME))
    assert [c["args"]["city"] for c in message.tool_calls] == ["Rome", "Oslo"]
    assert len({c["id"] for c in message.tool_calls}) == 2
    assert gkt["agreement"] == 0.8
    message, gkt = await ask(pair(both), parallel_tool_calls=False)
    assert gkt["finished_by"] == "teacher"


async def test_an_agreed_wrong_call_is_shown_so_tools_that_pay_are_reserved() -> None:
    wrong = call("pay", amount=9, to="Eve")
    message, gkt = await ask(pair(wrong))
    assert message.tool_calls[0]["name"] == "pay"
    for texts in ((wrong,), (f"{ROME}\n{wrong}",)):
        message, gkt = await ask(pair(*texts, teacher_tools=["pay"]))
        assert message.tool_calls == TEACHERS.tool_calls
        assert (gkt["finished_by"], gkt["agreement"]) == ("teacher", 1.0)


@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
async def test_a_turn_without_a_call_is_answered_as_any_question(how) -> None:
    whole = AIMessage("It is sunny there.")
    guided = pair("I need no tool.", teacher=whole)
    message, gkt = await ask(guided, how)
    assert (message.text, gkt["finished_by"]) == ("It is sunny there.", "teacher")
    gated = pair("It is sunny.", gate=GATE, ladder=(0, "all"), teacher=whole)
    message, gkt = await ask(gated, how)
    assert (message.text, gkt["finished_by"]) == ("It is sunny.", "student")
    assert gkt["signals"] == {"tool_agreement": 1.0, "agreement": 1.0}
    assert "tools" in gated.student.asked[0] and "tools" not in gated.student.asked[-1]


async def test_the_student_calls_no_tool_behind_the_teachers_words() -> None:
    begun = AIMessage("It is now", response_metadata={"finish_reason": "length"})
    for texts in (("No tool.",), (ROME, OSLO)):
        chain = pair(*texts, teacher=begun, guidance_tokens=5)
        await ask(chain)
        assert "tools" not in chain.student.asked[-1]
        assert str(chain.student.asked[-1]["messages"][-1].text) == "It is"


async def test_tool_choice_decides_as_well() -> None:
    chain = pair("I need no tool.")
    message, gkt = await ask(chain, tool_choice="any")
    assert (message.tool_calls, gkt["agreement"]) == (TEACHERS.tool_calls, 0.0)
    message, gkt = await ask(pair(ROME), tool_choice="weather")
    assert gkt["finished_by"] == "student"
    message, gkt = await ask(pair(ROME), tool_choice="pay")
    assert gkt["finished_by"] == "teacher"
    chain = pair(ROME, teacher=AIMessage("Sunny."))
    message, gkt = await ask(chain, tool_choice="none")
    assert (message.tool_calls, chain.student.ledger) == ([], [])
    chain = pair(call("pay", amount=1, to="Al"), teacher_tools=("pay",))
    message, gkt = await ask(chain, tool_choice="pay")
    assert (gkt["finished_by"], chain.student.ledger) == ("teacher", [])


async def test_calls_are_the_teachers_by_default_and_where_no_vote_is_wanted() -> None:
    assert GuidancePolicy().tools == "teacher"
    for fields in ({"tools": "teacher"}, {"mode": "teacher"}):
        chain = pair(ROME, **fields)
        message, _ = await ask(chain)
        assert message.tool_calls == TEACHERS.tool_calls
        assert chain.student.ledger == []


async def test_reserved_tools_are_never_offered_to_a_student_that_answers_alone() -> None:
    down = ConnectionError("down")
    chain = pair(
        "Sorry.", teacher=down, tools="teacher", teacher_tools=("pay",), on_teacher_error="student"
    )
    message = chain.bind_tools([weather, pay]).invoke("Pay Al 3 dollars")
    assert message.response_metadata["gkt"]["fallback"] == "ConnectionError: down"
    offered = [one["function"]["name"] for one in chain.student.asked[-1]["tools"]]
    assert offered == ["weather"]
    with pytest.raises(Exception, match="down"):
        chain.bind_tools([weather, pay], tool_choice="pay").invoke("Pay Al 3 dollars")


async def test_a_student_that_fails_may_leave_the_turn_to_the_teacher() -> None:
    chain = pair(RuntimeError("no memory"), on_student_error="teacher")
    with track_costs(teacher_price=PRICE) as costs:
        message = chain.bind_tools([weather]).invoke("How is it in Rome?")
    assert message.tool_calls == TEACHERS.tool_calls
    assert "no memory" in message.response_metadata["gkt"]["fallback"]
    assert costs.report().teacher.completion_tokens == chain.teacher.ledger[0][1]
    with pytest.raises(StudentError, match="no memory"):
        pair(StudentError("no memory")).bind_tools([weather]).invoke("How is it in Rome?")


class FittingStudent(WrittenStudent):
    """Says how well the tools fit, and notes what it was asked."""

    fit: Any = FirstToken(0.6, text=" Yes")
    fits_asked: list[str] = []

    @property
    def first_token_detail(self) -> str:
        return "probabilities"

    def first_tokens(self, messages: Any, *, tokens: int = 1) -> list[FirstToken]:
        self.fits_asked.append(messages[0].text)
        if isinstance(self.fit, Exception):
            raise self.fit
        return [self.fit]


def fitting(fit: Any, *texts: Any, **fields: Any):
    says = samples(*texts)
    student = FittingStudent(says=says, ledger=[], asked=[], fits_asked=[], fit=fit)
    return pair(tools=replace(GATE, tool_fit_below=0.75), student=student, **fields)


@pytest.mark.parametrize("how", ENTRY_POINTS)
@pytest.mark.parametrize("fit", [FirstToken(0.6, text=" Yes"), FirstToken(0.9, text="no")])
async def test_a_request_that_no_tool_fits_is_answered_in_text(how, fit) -> None:
    begun = AIMessage("It is now", response_metadata={"finish_reason": "length"})
    chain = fitting(fit, OSLO, ROME, " sunny.", teacher=begun, guidance_tokens=5)
    message, gkt = await ask(chain, how)
    assert message.text.startswith("It is")
    assert message.tool_calls == []
    said = pytest.approx(0.6 if fit.text == " Yes" else 0.1)
    assert gkt["signals"] == {"tool_agreement": 0.4, "tool_fit": said}
    assert len(chain.student.ledger) == 6
    (asked,) = chain.student.fits_asked
    assert asked.startswith("Tools:\n\n- weather: ")
    assert "Parameters: city (" in asked
    assert "\n\nRequest: How is it in Rome?\n\n" in asked


async def test_a_request_that_a_tool_fits_is_left_to_the_teacher() -> None:
    for fit in (FirstToken(0.8, text="Yes"), FirstToken(0.9, text="Perhaps"), FirstToken(0.1)):
        message, gkt = await ask(fitting(fit, ROME, OSLO))
        assert (message.tool_calls, gkt["finished_by"]) == (TEACHERS.tool_calls, "teacher")
        assert ("tool_fit" in gkt["signals"]) is (fit.text == "Yes")
    unlikely = FirstToken(0.1, text="Yes")
    for chain, options in (
        (fitting(unlikely, ROME), {}),  # samples that agree are not doubted
        (fitting(unlikely, ROME, OSLO), {"tool_choice": "any"}),
    ):
        message, _ = await ask(chain, **options)
        assert message.tool_calls
        assert chain.student.fits_asked == []


async def test_the_fit_is_not_asked_for_once_a_tool_was_called() -> None:
    chain = fitting(FirstToken(0.1, text="Yes"), ROME, OSLO)
    called = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Rome"}, "id": "1"}])
    talk = [HumanMessage("Weather?"), called, ToolMessage("sunny", tool_call_id="1")]
    await chain.bind_tools([weather]).ainvoke(talk)
    assert chain.student.fits_asked == []


async def test_a_student_that_cannot_say_how_tools_fit() -> None:
    failing = fitting(StudentError("broken"), ROME, OSLO)
    with pytest.raises(StudentError, match="broken"):
        await ask(failing)
    saved = fitting(StudentError("broken"), ROME, OSLO, on_student_error="teacher")
    message, gkt = await ask(saved)
    assert (message.tool_calls, gkt["finished_by"]) == (TEACHERS.tool_calls, "teacher")
    with pytest.raises(ValueError, match="tool_fit_below needs a student that reports"):
        pair(ROME, tools=replace(GATE, tool_fit_below=0.75))


def test_the_fit_of_tools_is_a_probability_and_of_no_use_for_answers() -> None:
    for wrong in (0, 1, 1.5, True, "0.5", float("nan")):
        with pytest.raises(ValueError, match="tool_fit_below must be"):
            AgreementGate(tool_fit_below=wrong)
    with pytest.raises(ValueError, match="tool_fit_below about tool calls"):
        GuidancePolicy(gate=AgreementGate(tool_fit_below=0.5))
    policy = GuidancePolicy(tools=AgreementGate(tool_fit_below=0.5))
    assert GuidancePolicy(**policy.to_dict()).tools == policy.tools
    assert "tool_fit_below" not in AgreementGate().to_dict()


def test_caches_tell_policies_apart() -> None:
    cache = InMemoryCache()
    chain = pair(ROME, cache=cache)
    for _ in range(2):
        message = chain.bind_tools([weather]).invoke("How is it in Rome?")
        assert message.tool_calls[0]["args"] == {"city": "Rome"}
    assert len(chain.student.ledger) == 5
    reserved = GuidancePolicy(tools=GATE, teacher_tools=["weather"])
    strict = chain.model_copy(update={"guidance": reserved})
    assert (
        strict.bind_tools([weather]).invoke("How is it in Rome?").tool_calls == TEACHERS.tool_calls
    )


def test_a_policy_with_tools_can_be_saved(tmp_path) -> None:
    policy = GuidancePolicy(tools=GATE, teacher_tools=["pay"])
    policy.save(tmp_path / "policy.json")
    assert GuidancePolicy.load(tmp_path / "policy.json") == policy
    assert not {"tools", "teacher_tools"} & GuidancePolicy().to_dict().keys()


async def test_bad_input_is_refused_by_name_before_anything_is_asked() -> None:
    with pytest.raises(ValueError, match=r"AgreementGate\.at_least=6 is more than samples=5"):
        AgreementGate(samples=5, at_least=6)
    for tools in ("student", ConfidenceGate(below=0.5), 3):
        with pytest.raises(ValueError, match=r"GuidancePolicy\.tools must be 'teacher' or an Agr"):
            GuidancePolicy(tools=tools)
    with pytest.raises(ValueError, match=r"leave out AgreementGate\.answer_of='number'"):
        GuidancePolicy(tools=AgreementGate(answer_of="number"))
    for names in ("pay", [3]):
        with pytest.raises(ValueError, match=r"GuidancePolicy\.teacher_tools must be names"):
            GuidancePolicy(teacher_tools=names)
    chain = pair(ROME, teacher_tools=["pays"])
    with pytest.raises(ValueError, match="names 'pays', which is none of the bound tools; did you"):
        await ask(chain)
    assert chain.teacher.ledger == chain.student.ledger == []
    with pytest.raises(ValueError, match="needs a student that calls tools"):
        GuidedKnowledgeTransferChain(
            teacher=WrittenTeacher(says=samples(""), ledger=[]),
            student=WordTeacher(answer="", asked=[]),
            guidance=GuidancePolicy(tools=GATE),
        )


async def test_an_open_breaker_and_a_spent_budget_leave_agreed_calls_alone() -> None:
    breaker = CircuitBreaker(failures=1, cooldown_seconds=60)
    chain = pair(OSLO, ROME, teacher=ConnectionError("down"), circuit_breaker=breaker)
    for _ in range(2):
        with pytest.raises(TeacherError):
            chain.bind_tools([weather]).invoke("How is it in Rome?")
    sure = chain.model_copy(
        update={"student": WrittenStudent(says=samples(ROME), ledger=[], asked=[])}
    )
    message, gkt = await ask(sure)
    assert (message.tool_calls[0]["args"], gkt["fallback"]) == ({"city": "Rome"}, None)
    small = Budget(tokens=1, teacher_price=PRICE)
    message, gkt = await ask(pair(ROME, budget=small))
    assert gkt["finished_by"] == "student"
    wavering = pair(ROME, OSLO, budget=small)
    with pytest.raises(BudgetExceeded):
        wavering.bind_tools([weather]).invoke("How is it in Rome?")
    assert wavering.teacher.ledger == []


@pytest.mark.parametrize(("how", "choice"), [("invoke", None), ("astream", "add")])
async def test_a_real_student_calls_by_agreement(how, choice, caller) -> None:
    chain = GuidedKnowledgeTransferChain(
        teacher=WrittenTeacher(says=samples("no"), ledger=[]),
        student=caller,
        guidance=GuidancePolicy(tools=AgreementGate(samples=2, at_least=2)),
    )
    bound = chain.bind_tools([add], tool_choice=choice)
    with track_costs(teacher_price=PRICE) as costs:
        message = await answer(bound, how, "add 2 and 3")
    gkt = message.response_metadata["gkt"]
    assert [(c["name"], c["args"]) for c in message.tool_calls] == [("add", {"a": 2, "b": 3})]
    assert (gkt["finished_by"], gkt["agreement"], chain.teacher.ledger) == ("student", 1.0, [])
    bill = costs.report().student
    assert (bill.calls, bill.completion_tokens) == (2, gkt["student_usage"]["output_tokens"])
