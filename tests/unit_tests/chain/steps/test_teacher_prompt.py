"""A teacher prompt of its own: what each model sees, through every entry point."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import RunnableLambda
from support.entry_points import ENTRY_POINTS, answer
from support.models.fakes import WordTeacher, make
from support.models.scripted import ToolTeacher, note

from langchain_gkt import (
    CostTracker,
    GuidancePolicy,
    InstructTeacher,
    LastTurns,
    PreparedPrompt,
    Price,
    SummarizeOlder,
    TeacherError,
    WithoutExemplars,
    mark_exemplars,
)
from langchain_gkt.prompts import PromptContext

EXAMPLES = mark_exemplars([HumanMessage("1 + 1?"), AIMessage("It is 2.")])
ASKED = [*EXAMPLES, HumanMessage("3 + 4?")]
SHORT = WithoutExemplars() | InstructTeacher()


def last(messages: list[BaseMessage]) -> list[BaseMessage]:
    return messages[-1:]


async def alast(messages: list[BaseMessage]) -> list[BaseMessage]:
    return messages[-1:]


class AsyncOnly:
    async def __call__(self, messages: list[BaseMessage]) -> list[BaseMessage]:
        return messages[-1:]


@pytest.fixture
def taught() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def teacher(taught) -> WordTeacher:
    return WordTeacher(answer="We add 3 + 4 = 7. The answer is 7.", asked=taught)


class Seeing:
    """Remembers what the student was given to continue."""

    def __init__(self, student: Any) -> None:
        self.seen: list[list[BaseMessage]] = []
        seen = self.seen

        class Student(type(student)):
            def check(self, messages, **kwargs):
                seen.append(messages)
                return super().check(messages, **kwargs)

        self.student = Student(**{name: getattr(student, name) for name in ("model", "max_tokens")})


def shown(taught: list[dict[str, Any]]) -> list[str]:
    return [str(message.text) for message in taught[-1]["messages"]]


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize(
    "prompt",
    [
        WithoutExemplars(),
        last,
        alast,
        AsyncOnly(),
        RunnableLambda(last, alast),
        last | WithoutExemplars(),
        lambda messages: ChatPromptValue(messages=messages[-1:]),
        lambda messages: str(messages[-1].text),
        lambda messages: PreparedPrompt(messages=messages[-1:]),
    ],
    ids=lambda prompt: type(prompt).__name__,
)
async def test_every_entry_point_shows_the_teacher_its_prompt(
    entry_point, prompt, teacher, taught, student
) -> None:
    seeing = Seeing(student)
    chain = make(teacher, seeing.student, guidance_tokens=9, teacher_prompt=prompt)
    found = await answer(chain, entry_point, ASKED)
    assert shown(taught) == ["3 + 4?"]
    assert [str(m.text) for m in seeing.seen[-1]] == ["1 + 1?", "It is 2.", "3 + 4?"]
    gkt = found.response_metadata["gkt"]
    assert gkt["guidance"] == "We add 3 "
    assert 0 < gkt["teacher_prompt_share"] < 1


async def test_the_number_of_tokens_is_that_of_the_call(teacher, taught, student) -> None:
    chain = make(teacher, student, guidance_tokens=9, teacher_prompt=SHORT)
    chain.invoke(ASKED, guidance_tokens=5)
    assert "your first 5 tokens" in shown(taught)[0]
    chain.invoke(ASKED, guidance=GuidancePolicy(tokens=6, teacher_prompt=LastTurns()))
    assert shown(taught) == ["3 + 4?"]
    chain.invoke(ASKED, teacher_prompt=None)
    assert len(shown(taught)) == 3
    chain.guide(ASKED)
    assert "your first 9 tokens" in shown(taught)[0]
    await chain.aguide(ASKED)
    assert "your first 9 tokens" in shown(taught)[0]


def test_modes(teacher, taught, student) -> None:
    chain = make(teacher, student, guidance_tokens=9, teacher_prompt=SHORT)
    whole = chain.invoke(ASKED, mode="teacher")
    assert len(shown(taught)) == 3  # the baseline reads the whole conversation
    assert whole.response_metadata["gkt"]["teacher_prompt_share"] is None
    own = chain.invoke(ASKED, mode="teacher", teacher_prompt=SHORT)
    assert shown(taught) == ["3 + 4?"]  # no student continues its first tokens
    assert own.response_metadata["gkt"]["teacher_prompt_share"] is not None
    taught.clear()
    chain.invoke(ASKED, mode="student")
    assert not taught


def test_a_policy_brings_its_prompt(teacher, taught, student, tmp_path) -> None:
    GuidancePolicy(tokens=9, teacher_prompt=SHORT).save(tmp_path / "policy.json")
    chain = make(teacher, student, guidance=str(tmp_path / "policy.json"))
    assert chain.teacher_prompt == SHORT
    chain.invoke(ASKED)
    assert "your first 9 tokens" in shown(taught)[0]
    with pytest.raises(ValueError, match=r"teacher_prompt and guidance\.teacher_prompt disagree"):
        make(teacher, student, guidance=tmp_path / "policy.json", teacher_prompt=LastTurns())


@pytest.mark.parametrize(
    ("prompt", "error", "said"),
    [
        (lambda messages: None, ValueError, r"returned nothing \(None\); return the list"),
        (lambda messages: [], ValueError, "returned no messages with text"),
        (lambda messages: [HumanMessage(" ")], ValueError, "returned no messages with text"),
        (lambda messages: 3, TypeError, "returned a int; return the list"),
        (lambda messages: [3], TypeError, "returned no messages"),
        (RunnableLambda(lambda messages: None), ValueError, "RunnableLambda.* returned nothing"),
    ],
)
@pytest.mark.parametrize("entry_point", ["invoke", "astream"])
async def test_bad_prompts_are_refused_before_the_teacher_is_paid(
    prompt, error, said, entry_point, teacher, taught, student
) -> None:
    # on_teacher_error is for failing teachers; a wrong prompt is the caller's to mend.
    chain = make(teacher, student, teacher_prompt=prompt, on_teacher_error="student")
    with pytest.raises(error, match=said):
        await answer(chain, entry_point, ASKED)
    assert not taught


@pytest.mark.parametrize("value", [3, "last", LastTurns])
def test_what_is_no_prompt_is_refused(value, teacher, student) -> None:
    with pytest.raises(TypeError, match="teacher_prompt must be a TeacherPrompt"):
        make(teacher, student, teacher_prompt=value)
    with pytest.raises(TypeError, match="teacher_prompt must be a TeacherPrompt"):
        make(teacher, student).invoke(ASKED, teacher_prompt=value)


def test_keys_copies_and_pickles(teacher, student) -> None:
    prompts: list[Any] = [None, LastTurns(), SHORT, last, lambda m: m[-1:], lambda m: m[-1:]]
    chains = [make(teacher, student, teacher_prompt=prompt) for prompt in prompts]
    keys = [chain._get_llm_string(stop=None) for chain in chains]
    assert len(set(keys)) == len(keys)
    called = [chains[0]._get_llm_string(stop=None, teacher_prompt=prompt) for prompt in prompts]
    assert len(set(called)) == len(called)
    policies = [GuidancePolicy(teacher_prompt=prompt) for prompt in prompts]
    by_policy = [chains[0]._get_llm_string(stop=None, guidance=one) for one in policies]
    assert len(set(by_policy)) == len(by_policy)
    assert pickle.loads(pickle.dumps(chains[2])).teacher_prompt == SHORT
    assert pickle.loads(pickle.dumps(chains[3])).teacher_prompt is last


class Redacting:
    """Hides a name from the teacher, and puts it back."""

    def __call__(self, messages: list[BaseMessage]) -> PreparedPrompt:
        hidden = [
            m.model_copy(update={"content": str(m.text).replace("Ada", "[A]")}) for m in messages
        ]
        return PreparedPrompt(messages=hidden, restore=self.restore)

    def restore(self, text: str) -> str:
        begun, mark, rest = text.rpartition("[")
        whole = begun if mark and "]" not in rest else text  # what may become a mark is held back
        return whole.replace("[A]", "Ada")


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
async def test_what_a_prompt_changed_is_undone(entry_point, taught, student) -> None:
    teacher = ToolTeacher(log=taught)

    def greet(question: str, tools: Any, result: Any, **kwargs: Any) -> str:
        return "Dear [A], well met and well come, dear [A], to all of us here."

    class Greeting(type(teacher)):
        def _reply(self, messages, stop, kwargs):
            self.log.append({"messages": messages})
            text = greet("", None, None)
            cut = text[: 4 * (self.max_tokens or 99)]
            return AIMessage(
                cut,
                usage_metadata={
                    "input_tokens": 5,
                    "output_tokens": len(cut) // 4,
                    "total_tokens": 5 + len(cut) // 4,
                },
                response_metadata={"finish_reason": "length" if cut != text else "stop"},
            )

    chain = make(Greeting(log=taught), student, guidance_tokens=11, teacher_prompt=Redacting())
    found = await answer(chain, entry_point, "I am Ada")
    assert shown(taught) == ["I am [A]"]
    assert found.text.startswith("Dear Ada, well met")
    assert "[A" not in found.text
    assert found.response_metadata["gkt"]["guidance"].startswith("Dear Ada, well met and well come")


def test_undoing_reaches_tool_calls_and_joins(taught, student) -> None:
    chain = make(
        ToolTeacher(log=taught), student, teacher_prompt=LastTurns() | Redacting()
    ).bind_tools([note])
    found = chain.invoke("note 'Ada is here'")
    assert shown(taught) == ["note '[A] is here'"]
    assert found.tool_calls[0]["args"] == {"words": "Ada is here"}
    outer = PreparedPrompt(messages=ASKED, restore=lambda text: text.replace("{B}", "[A]"))
    both = LastTurns() | Redacting() | (lambda messages: outer)
    made = both.prepare([HumanMessage("Ada")], PromptContext())
    assert made.restore is not None
    assert made.restore("{B}!") == "Ada!"  # the last change is undone first


@pytest.mark.slow
def test_tools_and_schemas_reach_the_teacher(taught, whole_student) -> None:
    chain = make(ToolTeacher(log=taught), whole_student, guidance_tokens=9, teacher_prompt=SHORT)
    chain.bind_tools([note]).invoke([*EXAMPLES, HumanMessage("Hello there")])
    assert taught[-1]["tools"][0]["function"]["name"] == "note"
    assert "A tool call is used whole" in shown(taught)[0]
    chain.bind_tools([note], tool_choice="note").invoke([*EXAMPLES, HumanMessage("note 'x'")])
    assert shown(taught) == ["note 'x'"]  # the whole call is used: no instruction
    schema = {"title": "T", "type": "object", "properties": {"text": {"type": "string"}}}
    schema["required"] = ["text"]
    chain.with_structured_output(schema).invoke([*EXAMPLES, HumanMessage("A text")])
    said = shown(taught)
    assert len(said) == 2
    assert "JSON schema" in said[0]
    assert "first 9 tokens" not in said[0]


def test_a_summary_is_on_the_bill(teacher, taught, student) -> None:
    tracker = CostTracker(teacher_price=Price("1", "1"), keep_calls=True)
    chain = make(teacher, student, guidance_tokens=9, teacher_prompt=SummarizeOlder(max_tokens=8))
    talk = [HumanMessage("I am Ada. " * 9), AIMessage("Hello."), HumanMessage("3 + 4?")]
    found = chain.invoke(talk, {"callbacks": [tracker]}, max_tokens=30)
    by_role = [call for call in tracker.calls if call.role == "student"]
    assert len(by_role) == 2
    paid = found.response_metadata["gkt"]["student_usage"]
    assert paid["total_tokens"] == sum(call.usage["total_tokens"] for call in by_role)
    assert isinstance(taught[-1]["messages"][0], SystemMessage)
    assert "in short" in shown(taught)[0]


def test_the_bill_says_what_it_compares_with(teacher, student) -> None:
    tracker = CostTracker(teacher_price=Price("1", "1"))
    chain = make(teacher, student, guidance_tokens=9, teacher_prompt=WithoutExemplars())
    long = [*EXAMPLES * 9, HumanMessage("3 + 4?")]
    found = chain.invoke(long, {"callbacks": [tracker]}, max_tokens=30)
    estimate = tracker.report().to_dict()["teacher_only_estimate"]
    share = found.response_metadata["gkt"]["teacher_prompt_share"]
    assert estimate["against"] == "the teacher alone on the prompt that it was shown"
    assert estimate["naive"]["prompt_tokens"] == round(7 / share)
    assert estimate["prompt_tokens"] == estimate["own_prompt"]["prompt_tokens"] == 7
    assert estimate["own_prompt"]["calls"] == 1
    assert estimate["own_prompt"]["ratio"] == estimate["ratio"] > estimate["naive"]["ratio"]
    assert "a prompt of its own" in str(tracker.report())
    plain = CostTracker(teacher_price=Price("1", "1"))
    chain.invoke(long, {"callbacks": [plain]}, max_tokens=30, teacher_prompt=None)
    assert plain.report().to_dict()["teacher_only_estimate"]["own_prompt"] is None
    assert "a prompt of its own" not in str(plain.report())


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
async def test_guidance_too_short_to_help_is_dropped(entry_point, taught, student) -> None:
    text = "We add 3 + 4 = 7. The answer is 7."
    policy = GuidancePolicy(cut="step", min_tokens=10)
    teacher = WordTeacher(answer=text, asked=taught)
    chain = make(teacher, student, guidance_tokens=10, guidance=policy, temperature=0)
    found = await answer(chain, entry_point, ASKED, max_tokens=25)
    gkt = found.response_metadata["gkt"]
    assert gkt["guidance"] == ""
    assert gkt["guidance_tokens"] == 10  # paid for all the same
    assert gkt["fallback"] == (
        "the guidance was dropped: 9 of its 10 tokens were left, fewer than min_tokens=10"
    )
    # The student answers alone, with all the tokens of the answer.
    alone = chain.invoke(ASKED, mode="student", max_tokens=25)
    assert found.text == alone.text
    assert gkt["student_usage"] == alone.response_metadata["gkt"]["student_usage"]


def test_what_may_be_dropped_is_not_shown_before(taught, student) -> None:
    policy = GuidancePolicy(min_tokens=9)
    chain = make(ToolTeacher(log=taught), student, guidance_tokens=8, guidance=policy)
    dropped = [str(chunk.text) for chunk in chain.stream("Hello", max_tokens=20)]
    alone = [str(chunk.text) for chunk in chain.stream("Hello", max_tokens=20, mode="student")]
    assert "".join(dropped) == "".join(alone)
    kept = [str(chunk.text) for chunk in chain.stream("Hello", guidance_tokens=16, max_tokens=30)]
    assert kept[0].startswith("Hello there, and well met. This is what I have to say")


def test_enough_guidance_is_kept(taught, student) -> None:
    teacher = WordTeacher(answer="We add 3 + 4 = 7. The answer is 7.", asked=taught)
    policy = GuidancePolicy(cut="step", min_tokens=9)
    chain = make(teacher, student, guidance_tokens=20, guidance=policy)
    gkt = chain.invoke(ASKED).response_metadata["gkt"]
    assert gkt["guidance"] == "We add 3 + 4 = 7. "
    assert gkt["fallback"] is None
    whole = chain.invoke(ASKED, guidance_tokens=99)  # an answer that is complete is never dropped
    assert whole.response_metadata["gkt"]["finished_by"] == "teacher"
    short = chain.guide(ASKED[-1:])
    assert short.dropped is None


def test_a_failing_prompt_raises_its_own_error(teacher, taught, student) -> None:
    def broken(messages: list[BaseMessage]) -> list[BaseMessage]:
        raise KeyError("mine")

    chain = make(teacher, student, teacher_prompt=broken)
    with pytest.raises(KeyError, match="mine"):
        chain.invoke(ASKED)
    with pytest.raises(KeyError, match="mine"):
        chain.guide(ASKED)
    assert not isinstance(KeyError("mine"), TeacherError)
    assert not taught
