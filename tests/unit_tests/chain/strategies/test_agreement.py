"""Agreement as a gate and as the end of an answer, and ladders of rising amounts."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from support.entry_points import ENTRY_POINTS, answer
from support.models.exam import Knowing, Needy, number_of, pair, solution, words

from langchain_gkt import GuidancePolicy, GuidedKnowledgeTransferChain, track_costs
from langchain_gkt.gates import AgreementGate

EVEN, ODD = "What is one more than 10?", "What is one more than 11?"
GATE = AgreementGate(samples=5, at_least=3, answer_of="number")


class Wavering(Needy):
    """Wavers on odd numbers behind fewer words than it needs."""

    asked: Any = None
    agree: int = 1
    prompt: int = 8
    """How many of five answers to an odd number say the same."""

    def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        number = number_of(messages)
        begun = str(messages[-1].text) if messages[-1].type == "ai" else ""
        at = len(self.asked)
        self.asked.append(kwargs.get("temperature"))
        knows = number % 2 == 0 or len(begun.split()) >= self.needs
        said = number + 1 if knows else max(0, at % 5 - self.agree + 1)
        text = f" The answer is {said}." if begun else f"The answer is {said}."
        message = AIMessage(
            text,
            usage_metadata={
                "input_tokens": self.prompt,
                "output_tokens": 5,
                "total_tokens": self.prompt + 5,
            },
            response_metadata={"finish_reason": "stop"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


class Continuing(Knowing):
    """A teacher that goes on behind the beginning of its answer."""

    def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        number = number_of(messages)
        begun = str(messages[-1].text) if messages[-1].type == "ai" else ""
        assert begun == begun.rstrip()
        self.diary.append((number, self.max_tokens))
        tokens = words(solution(number).removeprefix(begun))
        kept = tokens[: self.max_tokens]
        message = AIMessage(
            "".join(kept),
            usage_metadata={
                "input_tokens": 9,
                "output_tokens": len(kept),
                "total_tokens": 9 + len(kept),
            },
            response_metadata={"finish_reason": "stop" if kept == tokens else "length"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def chain(
    policy: GuidancePolicy, *, agree: int = 1, needs: int = 5, prompt: int = 8, **fields: Any
):
    student = Wavering(asked=[], agree=agree, needs=needs, prompt=prompt)
    return GuidedKnowledgeTransferChain(
        teacher=Knowing(diary=[]), student=student, guidance=policy, **fields
    )


@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_answers_that_agree_are_shown_and_nothing_is_paid(how) -> None:
    pupil = chain(GuidancePolicy(gate=GATE, ladder=(0, "all")))
    with track_costs() as costs:
        message = await answer(pupil, how, EVEN)
    gkt = message.response_metadata["gkt"]
    assert message.text == "The answer is 11."
    assert pupil.teacher.diary == []
    assert pupil.student.asked == [0.7] * 5
    assert (gkt["agreement"], gkt["signals"], gkt["finished_by"]) == (
        1.0,
        {"agreement": 1.0},
        "student",
    )
    assert gkt["student_usage"]["output_tokens"] == 25
    if how != "astream_events":  # which hides the chain's own usage from listeners
        assert message.usage_metadata["output_tokens"] == 5
    assert costs.report().student.calls == 5
    assert costs.report().student.completion_tokens == 25


@pytest.mark.parametrize("how", ENTRY_POINTS)
@pytest.mark.parametrize(("agree", "asked"), [(1, [(11, None)]), (2, [(11, None)]), (3, [])])
async def test_the_whole_answer_is_asked_for_if_too_few_agree(how, agree, asked) -> None:
    pupil = chain(GuidancePolicy(gate=GATE, ladder=(0, "all")), agree=agree, prompt=800)
    message = await answer(pupil, how, ODD)
    gkt = message.response_metadata["gkt"]
    assert pupil.teacher.diary == asked
    assert gkt["agreement"] == pytest.approx(agree / 5)
    if how != "astream_events":  # the samples are shown another prompt than the teacher
        assert message.usage_metadata["input_tokens"] == 800
    assert message.text == (solution(11) if asked else "The answer is 0.")
    assert gkt["finished_by"] == ("teacher" if asked else "student")


@pytest.mark.parametrize("how", ENTRY_POINTS)
@pytest.mark.parametrize("continues", [True, False])
async def test_a_ladder_goes_up_until_the_student_is_sure(how, continues) -> None:
    policy = GuidancePolicy(gate=GATE, ladder=(0, 3, 6, "all"))
    pupil = chain(policy, needs=4, teacher_prefill=continues)
    if continues:
        pupil = pupil.model_copy(update={"teacher": Continuing(diary=[])})
    with track_costs() as costs:
        message = await answer(pupil, how, ODD)
    gkt = message.response_metadata["gkt"]
    assert gkt["finished_by"] == "student"
    assert gkt["agreement"] == 1.0
    assert gkt["teacher_calls"] == 2
    assert message.text.endswith("The answer is 12.")
    report = costs.report()
    assert (report.teacher.calls, report.student.calls) == (2, 15)
    assert report.teacher.completion_tokens == gkt["teacher_usage"]["output_tokens"]
    if how != "astream_events":  # the prompt of a turn is no sum of prompts
        measured = message.usage_metadata["input_tokens"]
        assert measured == gkt["teacher_usage"]["input_tokens"] / 2
    limits = [limit for _, limit in pupil.teacher.diary]
    assert limits == ([3, 3] if continues else [3, 6])


def test_the_last_rung_may_leave_the_rest_to_the_student() -> None:
    pupil = chain(GuidancePolicy(gate=GATE, ladder=(0, 6)), needs=5)
    message = pupil.invoke(ODD)
    assert pupil.teacher.diary == [(11, 6)]
    assert message.text == "Plan: take 11 and add The answer is 12."
    assert len(pupil.student.asked) == 6  # five to decide, one to answer


@pytest.mark.parametrize("how", ENTRY_POINTS)
async def test_a_vote_at_the_end_shows_what_most_say(how) -> None:
    pupil = chain(GuidancePolicy(samples=5, answer_of="number"), agree=3, guidance_tokens=2)
    message = await answer(pupil, how, ODD)
    gkt = message.response_metadata["gkt"]
    assert message.text == "Plan: The answer is 0."
    assert (gkt["agreement"], gkt["vote_fallback"]) == (0.6, None)
    assert gkt["student_usage"]["output_tokens"] == 25
    same = chain(GuidancePolicy(), agree=3, guidance_tokens=2, samples=5, answer_of="number")
    assert (await answer(same, how, ODD)).text == message.text


def test_without_a_readable_answer_there_is_no_vote_and_the_metadata_says_so() -> None:
    pupil = chain(GuidancePolicy(samples=4, answer_of="json"), guidance_tokens=6)
    message = pupil.invoke(ODD)
    gkt = message.response_metadata["gkt"]
    assert message.text == "Plan: take 11 and add The answer is 12."
    assert gkt["agreement"] == 0.0
    assert gkt["vote_fallback"].startswith("none of 4 answers could be read as answer_of='json'")
    assert pupil.student.asked == [0.7] * 4 + [None]
    assert gkt["student_usage"]["output_tokens"] == 25


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"gate": GATE, "ladder": (40, 0)}, r"ladder=\(40, 0\) does not rise"),
        ({"gate": GATE, "ladder": (0, 40, 40)}, "does not rise"),
        ({"gate": GATE, "ladder": ("all", 40)}, "does not rise"),
        ({"gate": GATE, "ladder": (0,)}, "has one amount; set GuidancePolicy.tokens instead"),
        ({"gate": GATE, "ladder": ()}, "must be amounts that rise"),
        ({"gate": GATE, "ladder": "all"}, "must be amounts that rise"),
        ({"gate": GATE, "ladder": ("all",)}, "always asks, so its gate has no effect"),
        ({"gate": GATE, "ladder": (0, 2.5)}, "ladder must be a whole number"),
        ({"gate": GATE, "ladder": (-1, "all")}, "ladder must be 0"),
        ({"ladder": (0, "all")}, "needs a gate"),
        ({"gate": GATE, "ladder": (0, "all"), "tokens": 3}, "tokens=3 and .* give one of them"),
        ({"samples": 0}, "samples must be 1"),
        ({"answer_of": "numbers"}, "answer_of='numbers' is unknown; did you mean 'number'"),
        ({"answer_of": lambda text: text[0]}, "answer_of failed on the text ''.*IndexError"),
    ],
)
def test_policies_that_make_no_sense_are_named(fields, said) -> None:
    with pytest.raises(ValueError, match=said):
        GuidancePolicy(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"samples": 1}, "AgreementGate.samples must be a whole number, 2 or more"),
        ({"at_least": 6}, "at_least=6 is more than samples=5"),
        ({"temperature": 0}, "temperature must be a number above 0"),
        ({"answer_of": 7}, "answer_of=7 is unknown"),
    ],
)
def test_gates_that_make_no_sense_are_named(fields, said) -> None:
    with pytest.raises(ValueError, match=said):
        AgreementGate(**fields)


def test_a_function_that_fails_on_an_answer_is_named_before_the_teacher_is_paid() -> None:
    def picky(text: str) -> str | None:
        return text.split("is ")[1] if text else None

    gate = AgreementGate(answer_of=lambda text: text and text.split("so ")[1])
    pupil = chain(GuidancePolicy(gate=gate, ladder=(0, "all")))
    with pytest.raises(
        ValueError, match=r"answer_of failed on the text 'The answer is .*IndexError"
    ):
        pupil.invoke(ODD)
    assert pupil.teacher.diary == []
    assert chain(GuidancePolicy(gate=AgreementGate(answer_of=picky))).invoke(EVEN).text


def test_the_policy_travels_in_a_file_unless_it_holds_a_function(tmp_path) -> None:
    policy = GuidancePolicy(gate=GATE, ladder=(0, 40, "all"), samples=3, answer_of="option")
    policy.save(tmp_path / "policy.json")
    assert GuidancePolicy.load(tmp_path / "policy.json") == policy
    for fields in ({"answer_of": len}, {"gate": AgreementGate(answer_of=len)}):
        with pytest.raises(ValueError, match="answer_of is a function"):
            GuidancePolicy(**fields).save(tmp_path / "other.json")
    assert pair(guidance=policy)._get_llm_string() != pair(guidance=GATE and None)._get_llm_string()


def test_the_threshold_is_calibrated_on_ones_own_questions() -> None:
    policy = GuidancePolicy(gate=AgreementGate(samples=5, at_least=1, answer_of="number"))
    pupil = chain(policy)
    mine = policy.calibrate(pupil.student, [EVEN, ODD], share=0.5)
    assert mine.gate.at_least in range(2, 6)
    assert pupil.teacher.diary == []


def test_the_chains_answer_of_holds_for_a_gate_without_one() -> None:
    pupil = chain(GuidancePolicy(gate=AgreementGate(samples=3)), answer_of="option")
    assert pupil._settings(None, None, {}).gate.answer_of == "option"
    assert chain(GuidancePolicy(gate=GATE), answer_of="text")._settings(None, None, {}).gate == GATE
