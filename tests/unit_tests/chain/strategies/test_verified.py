"""Verification: the student drafts, the teacher accepts the draft or corrects a step of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from support.entry_points import ENTRY_POINTS, answer

from langchain_gkt import AgreementGate, GuidancePolicy, GuidedKnowledgeTransferChain, track_costs

DRAFT = "He has 3 + 4 = 8 pens.\nHe gives 2 away, so 8 - 2 = 6.\nThe answer is 6."


class Drafting(BaseChatModel):
    """A student with one draft, which ends an answer rightly behind a right step."""

    asked: Any
    draft: str = DRAFT

    def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        begun = str(messages[-1].text) if messages[-1].type == "ai" else None
        self.asked.append(begun)
        text = self.draft if begun is None else "\nSo 7 - 2 = 5. The answer is 5."
        usage = {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30}
        reply = AIMessage(text, usage_metadata=usage, response_metadata={"finish_reason": "stop"})
        return ChatResult(generations=[ChatGeneration(message=reply)])

    @property
    def _llm_type(self) -> str:
        return "drafting"


class Judge(BaseChatModel):
    """A teacher with one verdict."""

    verdict: str
    asked: Any
    max_tokens: int | None = None
    logprob: float | None = None
    fails: bool = False

    def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        self.asked.append((messages, self.max_tokens))
        if self.fails:
            raise ConnectionError("the line is down")
        metadata: dict[str, Any] = {"finish_reason": "stop"}
        if self.logprob is not None:
            metadata["logprobs"] = {"content": [{"token": "OK", "logprob": self.logprob}]}
        usage = {"input_tokens": 50, "output_tokens": 2, "total_tokens": 52}
        reply = AIMessage(self.verdict, usage_metadata=usage, response_metadata=metadata)
        return ChatResult(generations=[ChatGeneration(message=reply)])

    @property
    def _llm_type(self) -> str:
        return "judge"


def chain(verdict: str, *, draft: str = DRAFT, judge: dict[str, Any] | None = None, **fields: Any):
    return GuidedKnowledgeTransferChain(
        teacher=Judge(verdict=verdict, asked=[], **(judge or {})),
        student=Drafting(asked=[], draft=draft),
        mode="verified",
        guidance_tokens=12,
        **fields,
    )


@pytest.mark.parametrize("how", ENTRY_POINTS)
@pytest.mark.parametrize("verdict", ["OK", "ok.", "Right", " **Correct**"])
async def test_an_accepted_draft_is_shown(how, verdict) -> None:
    pair = chain(verdict)
    with track_costs() as costs:
        message = await answer(pair, how, "How many pens has he?")
    gkt = message.response_metadata["gkt"]
    assert message.text == DRAFT
    assert (gkt["finished_by"], gkt["guidance"], gkt["strategy"]) == ("student", "", "verified")
    assert gkt["signals"] == {"verdict": 1.0}
    assert gkt["teacher_usage"]["output_tokens"] == 2
    assert gkt["student_usage"]["output_tokens"] == 20
    [(messages, limit)] = pair.teacher.asked
    assert limit == 12
    assert messages[0].text == "How many pens has he?"
    assert messages[1].text.startswith("1. He has 3 + 4 = 8 pens.\n2. He gives 2 away")
    assert (costs.report().teacher.calls, costs.report().student.calls) == (1, 1)
    assert costs.report().estimate.calls == 0  # its prompt is not what the teacher alone reads


@pytest.mark.parametrize("how", ENTRY_POINTS)
@pytest.mark.parametrize(
    ("verdict", "begun"),
    [
        ("1: He has 3 + 4 = 7 pens.", "He has 3 + 4 = 7 pens."),
        ("Step 1. He has 3 + 4 = 7 pens.", "He has 3 + 4 = 7 pens."),
        ("2) He gives 2 of 7 away.", "He has 3 + 4 = 8 pens.\nHe gives 2 of 7 away."),
    ],
)
async def test_the_student_goes_on_from_the_corrected_step(how, verdict, begun) -> None:
    pair = chain(verdict)
    message = await answer(pair, how, "How many pens has he?")
    gkt = message.response_metadata["gkt"]
    assert message.text == f"{begun}\nSo 7 - 2 = 5. The answer is 5."
    assert pair.student.asked == [None, begun]
    assert gkt["signals"]["verdict"] == 0.0
    assert gkt["student_usage"]["output_tokens"] == 40  # the draft is on the bill, too


def test_a_draft_of_one_line_is_parted_into_sentences() -> None:
    pair = chain("2: It is 5.", draft="I add. It is 6! Done.")
    assert pair.invoke("?").text.startswith("I add. It is 5.")


@pytest.mark.parametrize("verdict", ["Perhaps.", "7: no such step", "0: nothing"])
def test_a_verdict_that_cannot_be_read_leaves_the_draft_and_says_so(verdict) -> None:
    message = chain(verdict).invoke("How many?")
    assert message.text == DRAFT
    assert "could not be read" in message.response_metadata["gkt"]["fallback"]


@pytest.mark.parametrize(("verdict", "p"), [("OK", 0.8), ("1: 7 pens.", 0.2)])
def test_a_verdict_is_as_sure_as_its_first_token(verdict, p) -> None:
    message = chain(verdict, judge={"logprob": math.log(0.8)}).invoke("How many?")
    assert message.response_metadata["gkt"]["signals"]["verdict"] == pytest.approx(p)


def test_a_sure_student_needs_no_verdict() -> None:
    policy = GuidancePolicy(gate=AgreementGate(samples=3, at_least=2, answer_of="number"))
    pair = chain("OK", guidance=policy)
    message = pair.invoke("How many?")
    assert message.text == DRAFT
    assert pair.teacher.asked == []
    assert message.response_metadata["gkt"]["agreement"] == 1.0


def test_a_draft_stands_if_the_teacher_cannot_be_reached() -> None:
    pair = chain("OK", judge={"fails": True}, on_teacher_error="student")
    message = pair.invoke("How many?")
    assert message.text == DRAFT
    assert "ConnectionError" in message.response_metadata["gkt"]["fallback"]


PICKED = "A mall has shops.\nThe answer is (B)."


@pytest.mark.parametrize(
    ("verdict", "begun"),
    [
        ("(C)", "The answer is (C) because"),
        ("C", "The answer is (C) because"),
        ("The answer is (C).", "The answer is (C) because"),
        ("C) a bank", "The answer is (C) because"),
        ("OK", None),
        ("(B)", None),  # what the draft picked
        ("2: The answer is", None),
    ],
)
def test_an_option_is_put_right_by_its_letter(verdict, begun) -> None:
    pair = chain(verdict, draft=PICKED, guidance=GuidancePolicy(verdict="option"))
    message = pair.invoke("Where? (A) home (B) mall (C) bank")
    assert pair.student.asked == ([None, begun] if begun else [None])
    assert message.text.startswith(begun or PICKED)
    [(messages, _)] = pair.teacher.asked
    assert "letter of the right option" in messages[-1].text
    unread = message.response_metadata["gkt"]["fallback"]
    assert (unread is None) == (begun is not None or verdict in ("OK", "(B)"))


def test_a_verdict_is_asked_for_in_the_words_of_the_policy(tmp_path) -> None:
    policy = GuidancePolicy(verdict="Is it right? Reply OK, or N: the step.")
    policy.save(tmp_path / "policy.json")
    pair = chain("2: So 7 - 2 is 5.", guidance=tmp_path / "policy.json")
    assert pair.invoke("How many?").text.startswith("He has 3 + 4 = 8 pens.\nSo 7 - 2 is 5.")
    assert pair.teacher.asked[0][0][-1].text == policy.verdict
    assert "verdict" not in GuidancePolicy().to_dict()


@pytest.mark.parametrize(
    ("verdict", "begun"),
    [
        ("D", "The answer is (D) because"),
        ("b", PICKED),
        ("1: A bank.", "A bank."),
        ("It may be.", PICKED),
    ],
)
def test_own_words_may_ask_for_a_letter(verdict, begun) -> None:
    policy = GuidancePolicy(verdict="Which option is right? Reply with its letter.")
    message = chain(verdict, draft=PICKED, guidance=policy).invoke(
        "Where? (A) home (B) mall (D) bank"
    )
    assert message.text.startswith(begun)
    assert (message.response_metadata["gkt"]["fallback"] is None) == (verdict != "It may be.")


def test_a_letter_corrects_no_draft_without_options() -> None:
    message = chain("D", guidance=GuidancePolicy(verdict="Is it right?")).invoke("How many?")
    assert message.text == DRAFT
    assert "could not be read" in message.response_metadata["gkt"]["fallback"]


@pytest.mark.parametrize("value", ["letters", "", None, 3])
def test_a_format_of_verdicts_that_is_not_known_is_refused(value) -> None:
    with pytest.raises(ValueError, match="must be 'steps', 'option' or an instruction"):
        GuidancePolicy(verdict=value)
