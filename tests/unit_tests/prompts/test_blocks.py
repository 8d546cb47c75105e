"""Content blocks keep their form where the package adds a text or leaves one out."""

from __future__ import annotations

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from support.models.fakes import WordTeacher

from langchain_gkt import GuidancePolicy, GuidedKnowledgeTransferChain
from langchain_gkt.prompts.base import PromptContext
from langchain_gkt.prompts.conversation import with_system_text
from langchain_gkt.prompts.exemplars import exemplars, without_exemplars
from langchain_gkt.prompts.ready_made import InstructTeacher
from langchain_gkt.structured_output.schema import with_instruction
from langchain_gkt.teachers.prefill import as_instruction, without_repetition

CACHED = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
ASKED = HumanMessage("q")


def test_a_cached_system_message_is_added_to() -> None:
    system = SystemMessage([CACHED], id="s", additional_kwargs={"a": 1})
    made = with_system_text([system, ASKED], "More.")
    assert made[0] == system.model_copy(
        update={"content": [CACHED, {"type": "text", "text": "\n\nMore."}]}
    )
    assert made[1] is ASKED
    assert made[0].text == "Be brief.\n\nMore."
    first, second, _ = with_system_text([system, SystemMessage("b"), ASKED], "More.")
    assert first is system
    assert second.content == "b\n\nMore."


def test_texts_are_joined_and_keep_their_fields() -> None:
    system = SystemMessage("a", additional_kwargs={"__openai_role__": "developer"})
    made = with_system_text([system, SystemMessage("b"), ASKED], "c")
    assert made == [system.model_copy(update={"content": "a\n\nb\n\nc"}), ASKED]
    assert with_system_text([ASKED], "c") == [SystemMessage("c"), ASKED]


def test_schema_and_instruction_keep_the_cache(student) -> None:
    messages = [SystemMessage([CACHED]), ASKED]
    context = PromptContext(guidance_tokens=5)
    for made in (
        with_instruction(messages, {"type": "object"}),
        InstructTeacher().prepare(messages, context),
    ):
        assert made[0].content[0] == CACHED
    asked: list = []
    chain = GuidedKnowledgeTransferChain(
        teacher=WordTeacher(answer="It is so.", asked=asked),
        student=student,
        guidance=GuidancePolicy(tokens=5, teacher_prompt=InstructTeacher()),
    )
    chain.invoke(messages)
    assert asked[0]["messages"][0].content[0] == CACHED


def test_a_begun_answer_is_asked_for_in_the_question_itself() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    asked = HumanMessage([CACHED, picture])
    (made,) = as_instruction([asked, AIMessage("The")])
    assert made.content[:2] == [CACHED, picture]
    assert "The" in made.content[2]["text"]
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    reply = AIMessage([thinking, {"type": "text", "text": "The sum is 2."}])
    rest = without_repetition("The sum", reply)
    assert rest.content == [thinking, {"type": "text", "text": " is 2."}]


def test_examples_in_blocks_are_found_and_left_out() -> None:
    texts = ["Answer.", "Q: a\nA: b\n\nQ: c\nA: d", "Q: open\nA:"]
    intro, examples, question = ({**CACHED, "text": text} for text in texts)
    asked = HumanMessage([intro, examples, question])
    assert exemplars([asked]) == [("a", "b"), ("c", "d")]
    assert without_exemplars([asked], 0)[0].content == [intro, question]
    kept = without_exemplars([asked], 1)[0].content
    assert kept == [intro, {**CACHED, "text": "Q: c\nA: d"}, question]
    plain = HumanMessage([examples])
    assert without_exemplars([plain], 0) == [plain]  # no open question
