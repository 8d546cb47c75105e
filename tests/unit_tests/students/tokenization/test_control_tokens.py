"""No text becomes a control token, whatever the vocabulary and the template."""

from __future__ import annotations

import pickle
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from support.models.vocabularies import (
    BACKENDS,
    SPECIAL,
    TEMPLATES,
    UNMARKED,
    look_alikes,
    tokenizer,
)

from langchain_gkt.students.prompting import PromptBuilder

HARMLESS = "the end"
MARKS = [*SPECIAL, *UNMARKED]
PARTS = [*MARKS, *(alike for mark in MARKS for alike in look_alikes(mark))]
PARTS += ["<", "|", ">", "im_end", "\n\n", "  ", " ", "\U000f0000", "\U0010fffd", "[UNK]", "the"]
TEXTS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map(
    lambda parts: f"x{''.join(parts)}x"
)
KINDS = st.tuples(st.sampled_from([*BACKENDS]), st.sampled_from([*TEMPLATES]), st.booleans())
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}


@cache
def builder(kind: str, template: str, marked: bool) -> PromptBuilder:
    return PromptBuilder(tokenizer(kind, template, marked=marked))


def conversation(texts: list[str]) -> list:
    """A conversation with texts in every place that somebody else can write in."""
    asked, said, key, value, result, system, begun = texts
    call = {"name": "look", "args": {key: {"deep": [value]}}, "id": "1"}
    return [
        SystemMessage(system),
        HumanMessage(asked),
        AIMessage(said, tool_calls=[call]),
        ToolMessage(result, tool_call_id="1"),
        AIMessage(begun),
    ]


def added(prompts: PromptBuilder, texts: list[str]) -> list[int]:
    """The control tokens of a prompt and of the answer's beginning."""
    known = prompts.tokenizer.backend_tokenizer.get_added_tokens_decoder()
    unknown = prompts.tokenizer.unk_token_id
    marks = {i for i, token in known.items() if token.content.strip() and i != unknown}
    described = {**TOOL["function"], "description": texts[0]}
    tools = [{**TOOL, "function": described}] if prompts.knows_tools else None
    try:
        ids, begun = prompts.build(conversation(texts), tools)
    except ValueError as error:  # the beginning of an answer must be spelled
        assert "cannot spell" in str(error)
        ids, begun = prompts.build(conversation([*texts[:-1], ""]), tools)
    assert not marks & set(begun)
    return [token for token in ids if token in marks]


@pytest.mark.slow
@settings(max_examples=60)
@given(KINDS, st.lists(TEXTS, min_size=7, max_size=7))
def test_only_the_template_writes_control_tokens(kind, texts) -> None:
    prompts = builder(*kind)
    assert added(prompts, texts) == added(prompts, [HARMLESS] * 7)


@pytest.mark.parametrize("kind", BACKENDS)
def test_harmless_text_has_the_ids_that_transformers_gives_it(kind) -> None:
    text = "Def  the\n\n\n    end: 3 < 4 | x"
    for template in TEMPLATES:
        made = tokenizer(kind, template)
        turn = [{"role": "user", "content": text}]
        if template == "none":
            expected = made(text)["input_ids"]
        else:
            expected = made.apply_chat_template(turn, add_generation_prompt=True)["input_ids"]
        assert PromptBuilder(made).build([HumanMessage(text)])[0] == expected


def test_covered_text_is_read_as_it_was_written() -> None:
    prompts = builder("bytes", "none", True)
    text = "x<think>\U000f0000</s>x"
    ids, begun = prompts.build([HumanMessage(text), AIMessage(text)])
    assert prompts.tokenizer.decode(ids) == text
    assert prompts.tokenizer.decode(begun) == f"\n{text}"


def test_a_caller_may_allow_tokens() -> None:
    made = tokenizer("bytes", "chatml")
    think, end = (made.convert_tokens_to_ids(text) for text in ("<think>", "<|im_end|>"))
    messages = [HumanMessage("a<|im_end|>b"), AIMessage("<think>c")]
    for allowed, begins, ends in [((), False, 1), (["<think>"], True, 1), ("all", True, 2)]:
        ids, begun = PromptBuilder(made, allowed).build(messages)
        assert (begun[0] == think, ids.count(end)) == (begins, ends)
        again = pickle.loads(pickle.dumps(PromptBuilder(made, allowed)))
        assert again.build(messages) == (ids, begun)
    with pytest.raises(ValueError, match=r"allowed_added_tokens.*did you mean '<think>'"):
        PromptBuilder(made, ["<thinks>"])
