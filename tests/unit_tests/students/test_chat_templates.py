"""Chat templates that reason, write channels, or take few kinds of message."""

from __future__ import annotations

import json
import warnings

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from support.entry_points import answer
from support.models.fakes import MODELS, WordTeacher
from support.models.scripted import add, saying
from support.models.templates import (
    ALWAYS,
    CHANNEL_MARKS,
    CHANNELS,
    DROPS_LATER_SYSTEM,
    HYBRID,
    LAST_ONLY,
    NO_SYSTEM,
    ONE_SYSTEM,
    OPEN,
    OPEN_CHANNEL,
    SAID_SWITCH,
    SYSTEM_SWITCH,
    TURNS,
)
from transformers import AutoTokenizer

from langchain_gkt import GuidedKnowledgeTransferChain, HuggingFaceStudent
from langchain_gkt.errors import ConfigurationError
from langchain_gkt.students.prompting import PromptBuilder

ASKED = [HumanMessage("x")]
BEGUN = [*ASKED, AIMessage("The")]
EMPTY = "<think>\n\n</think>\n\n"
FINAL = "<|channel|>final<|message|>"


def builder(template: str, marks: tuple[str, ...] = ("<think>", "</think>")) -> PromptBuilder:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student")
    tokenizer.add_tokens(list(marks))
    tokenizer.chat_template = template
    return PromptBuilder(tokenizer)


def written(template: str, messages: list, **how: object) -> str:
    prompts = builder(template)
    prompt = prompts.write(messages, **how)
    return prompts.tokenizer.decode([*prompt.ids, *prompt.answer_prefix])


@pytest.fixture
def made(tmp_path):
    """A student that writes one text."""
    students = []

    def make(says: str, template: str, marks: tuple[str, ...] = (), **fields: object):
        model, tokenizer = saying(tmp_path, says, template, marks)
        students.append(HuggingFaceStudent(model=model, tokenizer=tokenizer, **fields))
        return students[-1]

    yield make
    for student in students:
        student.close()


@pytest.mark.parametrize("template", [HYBRID, OPEN, ALWAYS])
def test_guidance_lands_behind_reasoning_that_is_closed(template) -> None:
    assert written(template, BEGUN) == f"<|user|>x<|end|><|assistant|>{EMPTY}The"
    assert written(template, ASKED, direct=True).endswith(f"<|assistant|>{EMPTY}")
    assert not written(template, ASKED).endswith("</think>\n\n")  # alone it may reason


def test_other_tags_are_closed_too() -> None:
    prompts = builder(OPEN.replace("<think>\n", "◁think▷"), ("◁think▷", "◁/think▷"))
    ids, prefix = prompts.build(BEGUN)
    assert prompts.tokenizer.decode([*ids, *prefix]).endswith("<|assistant|>◁think▷◁/think▷The")


@pytest.mark.parametrize("name", ["THINK", "reasoning", "inner_voice"])
def test_an_open_block_of_any_name_is_closed(made, name) -> None:
    open_tag, close_tag = f"<{name}>", f"</{name}>"
    template = OPEN.replace("<think>", open_tag) + f"{{# {close_tag} #}}"
    assert written(template, BEGUN).endswith(f"{open_tag}\n\n{close_tag}\n\nThe")
    student = made(f"Hm.{close_tag} Yes.", template)
    assert student.invoke("x").text == "Yes."


def test_arguments_reach_the_template() -> None:
    on, off = {"thinking": True}, {"enable_thinking": False}
    assert written(SYSTEM_SWITCH, ASKED, template_kwargs=on) == (
        "<|system|>Think.<|end|><|user|>x<|end|><|assistant|>[THINK]"
    )
    assert written(SYSTEM_SWITCH, BEGUN, template_kwargs=on) == ("<|user|>x<|end|><|assistant|>The")
    for template in (HYBRID, OPEN, ALWAYS):  # some know no such argument
        assert written(template, ASKED, template_kwargs=off).endswith(EMPTY)


def test_a_question_may_turn_reasoning_off() -> None:
    asked = [HumanMessage("x /no_think")]
    for messages, end in [(asked, ""), ([*asked, AIMessage("The")], "The")]:
        prompt = written(SAID_SWITCH, messages)
        assert prompt == f"<|user|>x /no_think<|end|><|assistant|><think></think>{end}"
    assert written(SAID_SWITCH, BEGUN).endswith(f"{EMPTY}The")


def test_a_tag_that_is_only_spoken_of_opens_nothing() -> None:
    template = HYBRID.replace("m.content", "m.content ~ ' Do not use <think>.'")
    assert written(template, BEGUN).endswith(f"<think>.<|end|><|assistant|>{EMPTY}The")
    typed = [HumanMessage("<think>"), AIMessage("The")]
    assert written(LAST_ONLY, typed).endswith("<|assistant|>The")


@pytest.mark.parametrize(
    ("template", "start"),
    [
        (CHANNELS, f"<|start|>assistant{FINAL}"),
        (
            OPEN_CHANNEL,
            f"<|start|>assistant<|channel|>analysis<|message|><|end|><|start|>assistant{FINAL}",
        ),
        (
            CHANNELS.replace("assistant{", "assistant<|channel|>analysis{"),
            f"<|start|>assistant{FINAL}",
        ),
        (CHANNELS.replace("assistant{", f"assistant{FINAL}{{"), f"<|start|>assistant{FINAL}"),
    ],
)
def test_guidance_lands_in_the_final_channel(template, start) -> None:
    assert written(template, BEGUN) == f"<|start|>user<|message|>x<|end|>{start}The"


def test_arguments_are_part_of_what_tells_students_apart(made) -> None:
    plain = made("Yes.", HYBRID)
    told = plain.model_copy(update={"chat_template_kwargs": {"enable_thinking": False}})
    assert "chat_template_kwargs" not in plain._identifying_params
    assert told._identifying_params["chat_template_kwargs"] == {"enable_thinking": False}
    assert plain._get_llm_string() != told._get_llm_string()
    assert plain._get_llm_string() != plain._get_llm_string(
        chat_template_kwargs={"enable_thinking": False}
    )


def test_arguments_of_a_field_and_of_a_call(made) -> None:
    student = made("Yes.", HYBRID, chat_template_kwargs={"enable_thinking": False})
    closed = student.invoke("x").usage_metadata["input_tokens"]
    opened = student.invoke("x", chat_template_kwargs={"enable_thinking": True})
    empty = len(student.get_token_ids(EMPTY))
    assert closed - opened.usage_metadata["input_tokens"] == empty > 0
    for call in (
        lambda **how: student.invoke("x", **how),
        lambda **how: student.check(ASKED, **how),
        lambda **how: student.prefill(ASKED, **how),
        lambda **how: HuggingFaceStudent(model=student.model, tokenizer=student.tokenizer, **how),
    ):
        with pytest.raises(ValueError, match=r"chat_template_kwargs holds 'tokenize'.*itself"):
            call(chat_template_kwargs={"tokenize": True})


def test_arguments_without_a_template_are_refused(plain_folders) -> None:
    student = HuggingFaceStudent(
        model=plain_folders["gpt2"], chat_template_kwargs={"enable_thinking": False}
    )
    with pytest.raises(ValueError, match=r"enable_thinking.*no effect.*leave it out"):
        student.check(ASKED)
    student.close()


@pytest.mark.parametrize("template", [HYBRID, OPEN, ALWAYS])
def test_a_probe_measures_the_answer(template, made) -> None:
    student = made("Yes.", template, ("<think>", "</think>"))
    asked = []
    student._engine.first_tokens = lambda request: asked.append(request) or []
    student.probe(ASKED)
    assert student.tokenizer.decode(asked[0].prompt).endswith(EMPTY)


REASONED = "<think>\nOne and\none.\n</think>\n\nIt is 2."


@pytest.mark.parametrize("how", ["invoke", "astream"])
@pytest.mark.parametrize("marks", [(), ("<think>", "</think>")])
@pytest.mark.parametrize(
    ("template", "says"),
    [(HYBRID, REASONED), (OPEN, REASONED.removeprefix("<think>\n")), (NO_SYSTEM, REASONED)],
)
async def test_reasoning_is_no_part_of_an_answer(how, marks, template, says, made) -> None:
    student = made(says, template, marks)
    message = await answer(student, how, "x")
    assert message.text == "It is 2."
    usage = message.usage_metadata
    reasoning = usage["output_token_details"]["reasoning"]
    said = len(student.get_token_ids("It is 2.")) + 1  # and the end of the turn
    assert usage["output_tokens"] - said - 2 <= reasoning <= usage["output_tokens"] - said


def test_stop_strings_are_looked_for_in_the_answer(made) -> None:
    student = made(REASONED, HYBRID)
    for stop, text in ((["\n"], "It is 2."), (["one."], "It is 2."), ([" is"], "It")):
        assert student.invoke("x", stop=stop).text == text
        assert "".join(c.text for c in student.stream("x", stop=stop)) == text


def test_reasoning_that_fills_the_limit_leaves_no_text(made) -> None:
    student = made(REASONED, HYBRID, max_tokens=5)
    message = student.invoke("x")
    assert (message.text, message.response_metadata["finish_reason"]) == ("", "length")
    assert message.usage_metadata["output_token_details"] == {"reasoning": 5}


def test_tools_are_called_behind_reasoning(made) -> None:
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
    student = made(f"<think>I call add.</think>\n{call}", f"{HYBRID}{{% if tools %}}{{% endif %}}")
    message = student.bind_tools([add]).invoke("x")
    assert (message.text, message.tool_calls[0]["args"]) == ("", {"a": 1, "b": 2})


def test_a_tokenizers_own_format_is_read_without_tools(made) -> None:
    student = made("<think>hm</think>I see.", NO_SYSTEM, ("<think>", "</think>"))
    student._loader.load().prompts.tokenizer.response_template = {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|assistant|>",
        "fields": {"thinking": {"open": "<think>", "close": "</think>"}, "content": {}},
    }
    assert student.invoke("x").text == "I see."
    assert "".join(chunk.text for chunk in student.stream("x")) == "I see."


SAID = "<|channel|>analysis<|message|>One and one.<|end|><|start|>assistant"


@pytest.mark.parametrize("how", ["invoke", "astream"])
@pytest.mark.parametrize(
    ("template", "says"),
    [
        (CHANNELS, f"{SAID}{FINAL}It is 2.<|return|>"),
        (OPEN_CHANNEL, f"{SAID}{FINAL}It is 2.".removeprefix("<|channel|>analysis<|message|>")),
        (CHANNELS, "It is 2."),
    ],
)
async def test_only_the_final_channel_is_shown(how, template, says, made) -> None:
    student = made(says, template, CHANNEL_MARKS)
    student._engine.end_ids.discard(student._engine.tokenizer.eos_token_id)
    student._engine.end_ids.add(student._engine.tokenizer.convert_tokens_to_ids("<|return|>"))
    student.model.script.eos_token = "<|return|>"
    message = await answer(student, how, "x")
    assert message.text == "It is 2."
    assert message.response_metadata["finish_reason"] == "stop"


def test_calls_on_a_channel_are_tool_calls(made) -> None:
    call = '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1, "b": 2}'
    student = made(f"{SAID}{call}", CHANNELS, CHANNEL_MARKS)
    student._engine.end_ids.discard(student._engine.tokenizer.eos_token_id)
    student._engine.end_ids.add(student._engine.tokenizer.convert_tokens_to_ids("<|call|>"))
    student.model.script.eos_token = "<|call|>"
    message = student.bind_tools([add]).invoke("x")
    assert (message.text, message.tool_calls[0]["name"]) == ("", "add")
    assert message.tool_calls[0]["args"] == {"a": 1, "b": 2}


SEVERAL = [
    SystemMessage("s1"),
    SystemMessage("s2"),
    HumanMessage("q1"),
    AIMessage("a"),
    SystemMessage("s3"),
    HumanMessage("q2"),
]


@pytest.mark.parametrize(
    ("template", "system", "first"),
    [
        (NO_SYSTEM, "", "s1\n\ns2\n\nq1"),
        (ONE_SYSTEM, "<|system|>s1\n\ns2<|end|>", "q1"),
        (DROPS_LATER_SYSTEM, "<|system|>s1\n\ns2<|end|>", "q1"),
    ],
)
def test_system_texts_without_a_place_go_to_the_next_user_message(template, system, first) -> None:
    prompts = builder(template)
    with pytest.warns(UserWarning, match="put into the next user message") as warned:
        ids, _ = prompts.build(SEVERAL)
        prompts.build(SEVERAL)
    assert len(warned) == 1
    assert prompts.tokenizer.decode(ids) == (
        f"{system}<|user|>{first}<|end|><|assistant|>a<|end|><|user|>s3\n\nq2<|end|><|assistant|>"
    )


def test_a_last_system_text_goes_behind_the_question() -> None:
    for template in (NO_SYSTEM, DROPS_LATER_SYSTEM):
        with pytest.warns(UserWarning, match="next user message"):
            prompt = written(template, [HumanMessage("q"), SystemMessage("s")])
        assert prompt == "<|user|>q\n\ns<|end|><|assistant|>"


@pytest.mark.parametrize("template", [NO_SYSTEM, TURNS])
def test_messages_of_one_role_take_one_turn_where_they_have_to(template) -> None:
    prompts = builder(template)
    blocks = HumanMessage([{"type": "text", "text": "q2"}])
    asked = [HumanMessage("q1"), blocks, AIMessage("a"), AIMessage("b"), HumanMessage("q3")]
    with pytest.warns(UserWarning, match="user and assistant in turns; .* joined") as warned:
        ids, _ = prompts.build(asked)
        prompts.build([*asked, HumanMessage("q4")])
    assert len(warned) == 1
    assert prompts.tokenizer.decode(ids) == (
        "<|user|>q1\n\nq2<|end|><|assistant|>a\n\nb<|end|><|user|>q3<|end|><|assistant|>"
    )


def test_system_texts_and_turns_are_both_folded() -> None:
    asked = [SystemMessage("s"), HumanMessage("q1"), SystemMessage("t"), HumanMessage("q2")]
    with pytest.warns(UserWarning, match="the student's chat template takes") as warned:
        assert written(NO_SYSTEM, asked) == "<|user|>s\n\nq1\n\nt\n\nq2<|end|><|assistant|>"
    assert len(warned) == 2
    with pytest.warns(UserWarning, match="in turns"):
        end = "<|user|>q1\n\nq2<|end|><|assistant|>"
        assert written(TURNS, [asked[0], asked[1], asked[3]]) == f"<|system|>s<|end|>{end}"


def test_the_beginning_of_an_answer_is_joined_with_nothing() -> None:
    with pytest.warns(UserWarning, match="in turns"):
        prompt = written(NO_SYSTEM, [HumanMessage("q1"), HumanMessage("q2"), AIMessage("The")])
    assert prompt == "<|user|>q1\n\nq2<|end|><|assistant|>The"


def test_what_has_its_place_is_left_alone() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert written(HYBRID, SEVERAL).count("<|system|>") == 3
        assert written(HYBRID, [*ASKED, *ASKED]).count("<|user|>") == 2
        assert written(ONE_SYSTEM, SEVERAL[:4] + SEVERAL[5:]).count("<|system|>") == 1
        developer = SystemMessage("d", additional_kwargs={"__openai_role__": "developer"})
        assert written(DROPS_LATER_SYSTEM, [developer, *ASKED]).startswith("<|system|>d")
        assert written(HYBRID, [developer, *ASKED]).startswith("<|developer|>d")


def test_our_own_sentence_is_never_refused(made) -> None:
    student = made("{}", NO_SYSTEM)
    schema = {"title": "A", "type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "A", "schema": schema}}
    with pytest.warns(UserWarning, match="takes no system message"):
        student.check(ASKED, response_format=form)


def test_a_dropped_message_is_named_before_the_teacher_is_paid(made) -> None:
    asked: list = []
    teacher = WordTeacher(answer="Yes, it is so.", asked=asked)
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=made("Yes.", LAST_ONLY))
    with pytest.raises(ConfigurationError, match=r"drops messages\[0\] \(human\)"):
        chain.invoke([HumanMessage("q1"), AIMessage("a"), HumanMessage("q2")])
    with (
        pytest.raises(ConfigurationError, match="Conversation roles must alternate"),
        pytest.warns(UserWarning, match="takes no system message"),
    ):
        builder(NO_SYSTEM).build([SystemMessage("s"), AIMessage("a"), HumanMessage("q")])
    assert asked == []


def test_what_templates_escape_or_leave_out_is_not_called_dropped() -> None:
    escaped = HYBRID.replace("m.content ~", "(m.content | tojson) ~")
    assert json.dumps('"x"') in written(escaped, [HumanMessage('"x"')])
