"""The ready-made teacher prompts: what they leave, add, and refuse."""

from __future__ import annotations

import pytest
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import (
    AIMessagePromptTemplate,
    ChatPromptTemplate,
    FewShotChatMessagePromptTemplate,
    HumanMessagePromptTemplate,
)

from langchain_gkt import (
    InstructTeacher,
    LastTurns,
    SummarizeOlder,
    WithoutExemplars,
    mark_exemplars,
)
from langchain_gkt.evaluation import Example, Task
from langchain_gkt.prompts.base import PromptContext, prepare

EXAMPLES = [
    Example("1 + 1?", "We add 1 + 1 = 2. The answer is 2."),
    Example("A long question: what is 2 + 2?", "We add 2 + 2 = 4. So it is. The answer is 4."),
]
TASK = Task("sums", [{"question": "3 + 4?"}], lambda text, row: True, examples=EXAMPLES)
CHAT = TASK.prompt(TASK.rows[0])
TALK = [
    SystemMessage("Be kind."),
    HumanMessage("I am Ada."),
    AIMessage("Hello Ada."),
    HumanMessage("What is the time?"),
    AIMessage("", tool_calls=[{"name": "clock", "args": {}, "id": "1"}]),
    ToolMessage("12:00", tool_call_id="1"),
    AIMessage("Noon."),
    HumanMessage("And my name?"),
]


def texts(prompt, messages, **context) -> list[str]:
    found = prepare(prompt, messages, PromptContext(conversation=messages, **context))
    return [str(message.text) for message in found.messages]


@pytest.mark.parametrize(("keep", "left"), [(0, 1), (1, 3), (2, 5), (9, 5)])
def test_marked_examples_are_left_out(keep, left) -> None:
    found = texts(WithoutExemplars(keep=keep), CHAT)
    assert found == [str(m.text) for m in CHAT[5 - left :]]


@pytest.mark.parametrize("style", ["chat", "text"])
@pytest.mark.parametrize(("keep", "left"), [(0, ""), (1, "b"), (2, "be"), (3, "bde"), (9, "abcde")])
def test_the_shortest_examples_stay_in_their_order(keep, left, style) -> None:
    lengths = {"a": 9, "b": 2, "c": 9, "d": 5, "e": 4}
    examples = [Example(name * length, "Yes.") for name, length in lengths.items()]
    row = {"question": "Open?"}
    task = Task("sums", [row], lambda text, row: True, examples=examples, style=style)
    found = "".join(texts(WithoutExemplars(keep=keep, shortest=True), task.prompt(row)))
    assert [name for name in lengths if name * lengths[name] in found] == list(left)
    assert "Open?" in found


def test_of_two_examples_as_short_the_later_one_stays() -> None:
    asked = [m for q in "xy" for m in mark_exemplars([("human", q), ("ai", "Yes.")])]
    found = texts(WithoutExemplars(keep=1, shortest=True), [*asked, HumanMessage("Open?")])
    assert found == ["y", "Yes.", "Open?"]


def test_examples_in_one_text_are_left_out() -> None:
    text = Task(
        "sums",
        [{"question": "3 + 4?"}],
        lambda text, row: True,
        examples=EXAMPLES,
        style="text",
        instruction="Add.",
    )
    whole = text.prompt(text.rows[0])
    assert texts(WithoutExemplars(), whole) == ["Add.\n\nQ: 3 + 4?\nA:"]
    kept = texts(WithoutExemplars(keep=1), whole)[0]
    assert kept.startswith("Add.\n\nQ: A long question")
    assert kept.endswith("The answer is 4.\n\nQ: 3 + 4?\nA:")
    for other in ("Q: Is this one?\nA: yes", "What does Q: mean?\nA:", "\n\nQ: a\nA: b\n\nmore"):
        assert texts(WithoutExemplars(), [HumanMessage(other)]) == [other]


def test_other_marks_and_unmarked_turns() -> None:
    named = [
        HumanMessage("1 + 1?", name="example_user"),
        AIMessage("2", name="example_assistant"),
        HumanMessage("3 + 4?"),
    ]
    assert texts(WithoutExemplars(), named) == ["3 + 4?"]
    template = FewShotChatMessagePromptTemplate(
        examples=[{"q": "1 + 1?", "a": "2"}],
        example_prompt=ChatPromptTemplate.from_messages(
            [
                HumanMessagePromptTemplate.from_template(
                    "{q}", additional_kwargs={"example": True}
                ),
                AIMessagePromptTemplate.from_template("{a}", additional_kwargs={"example": True}),
            ]
        ),
    )
    shown = [*template.format_messages(), HumanMessage("3 + 4?")]
    assert texts(WithoutExemplars(), shown) == ["3 + 4?"]
    unmarked = [HumanMessage("1 + 1?"), AIMessage("2"), HumanMessage("3 + 4?")]
    assert texts(WithoutExemplars(), unmarked) == ["1 + 1?", "2", "3 + 4?"]
    assert texts(WithoutExemplars(unmarked=True), unmarked) == ["3 + 4?"]
    marked = [*mark_exemplars(unmarked[:2]), unmarked[2]]
    assert texts(WithoutExemplars(), marked) == ["3 + 4?"]
    assert not unmarked[0].additional_kwargs  # what was given is left as it is


def test_last_turns_are_whole() -> None:
    assert texts(LastTurns(), TALK) == ["Be kind.", "And my name?"]
    assert texts(LastTurns(count=2), TALK) == [
        "Be kind.",
        "What is the time?",
        "",
        "12:00",
        "Noon.",
        "And my name?",
    ]
    assert texts(LastTurns(system=False), TALK) == ["And my name?"]
    begun = [*TALK, AIMessage("You are")]
    assert texts(LastTurns(), begun)[-2:] == ["And my name?", "You are"]


def test_the_teacher_is_told_how_much_and_in_which_style() -> None:
    both = WithoutExemplars() | InstructTeacher()
    told, asked = texts(both, CHAT, guidance_tokens=12)
    assert asked == "3 + 4?"
    assert "your first 12 tokens" in told
    assert "one paragraph of 2 to 3 short sentences" in told
    assert "no headings, lists, LaTeX or code" in told
    assert "equations written as 1 + 1 = 2" in told
    assert 'the last sentence begins with "The answer is"' in told
    example = texts(InstructTeacher(style="example"), CHAT, guidance_tokens=12)[0]
    assert example.endswith("Question: 1 + 1?\nAnswer: We add 1 + 1 = 2. The answer is 2.")
    plain = texts(InstructTeacher(style="none"), CHAT, guidance_tokens=12)[0]
    assert "tyle" not in plain
    own = InstructTeacher(text="Plan in {tokens}! {style} Go {on}.", tokens=5)
    assert texts(own, TALK, guidance_tokens=12)[0] == "Be kind.\n\nPlan in 5!  Go {on}."
    assert InstructTeacher().for_tokens(9) == InstructTeacher(tokens=9)
    assert own.for_tokens(9) is own


def test_whole_replies_need_no_instruction() -> None:
    assert texts(InstructTeacher(), TALK, guidance_tokens=5, whole_reply=True)[0] == "Be kind."
    assert (
        "tool call is used whole"
        in texts(InstructTeacher(), TALK, guidance_tokens=5, has_tools=True)[0]
    )


def test_a_whole_answer_is_not_told_that_it_is_cut() -> None:
    def told(prompt: InstructTeacher) -> str:
        return texts(prompt, TALK, guidance_tokens=5, whole_answer=True)[0]

    assert told(InstructTeacher()) == "Be kind."
    assert told(InstructTeacher(text="Be brief.")) == "Be kind.\n\nBe brief."
    assert "first 9 tokens" in told(InstructTeacher().for_tokens(9))  # a sweep cuts it


async def test_the_student_sums_up_older_turns() -> None:
    student = FakeMessagesListChatModel(
        responses=[
            AIMessage(
                "Ada asked the time.",
                usage_metadata={"input_tokens": 9, "output_tokens": 5, "total_tokens": 14},
            )
        ]
    )
    context = PromptContext(conversation=TALK, student=student)
    found = prepare(SummarizeOlder(), TALK, context).messages
    assert [str(m.text) for m in found] == [
        "Be kind.\n\nWhat was said before, in short:\nAda asked the time.",
        "And my name?",
    ]
    assert context.student_usage["total_tokens"] == 14
    again = await SummarizeOlder().aprepare(TALK, context)
    assert again == list(found)
    assert context.student_usage["total_tokens"] == 28
    assert texts(SummarizeOlder(keep=3), TALK) == [str(m.text) for m in TALK]  # asks nobody
    silent = FakeMessagesListChatModel(responses=[AIMessage(" ")])
    assert texts(SummarizeOlder(), TALK, student=silent) == [str(m.text) for m in TALK]
    with pytest.raises(ValueError, match="needs a student"):
        texts(SummarizeOlder(), TALK)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: WithoutExemplars(keep=-1), ValueError, "WithoutExemplars.keep must be"),
        (lambda: WithoutExemplars(shortest=1), ValueError, "WithoutExemplars.shortest must be"),
        (lambda: WithoutExemplars(unmarked="no"), ValueError, "unmarked must be True or False"),
        (lambda: WithoutExemplars(kep=1), TypeError, "did you mean 'keep'"),
        (lambda: LastTurns(count=0), ValueError, "LastTurns.count must be"),
        (lambda: InstructTeacher(text=" "), ValueError, "InstructTeacher.text must be"),
        (lambda: InstructTeacher(style="loud"), ValueError, "'describe', 'example' or 'none'"),
        (lambda: InstructTeacher(tokens=0), ValueError, "InstructTeacher.tokens must be"),
        (lambda: SummarizeOlder(max_tokens=0), ValueError, "SummarizeOlder.max_tokens must be"),
        (lambda: LastTurns() | 3, TypeError, "teacher_prompt must be"),
    ],
)
def test_bad_values_are_refused(make, error, said) -> None:
    with pytest.raises(error, match=said):
        make()
