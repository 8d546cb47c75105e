"""Text that looks like control tokens, read by tokenizers that others made."""

from __future__ import annotations

import random

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langchain_gkt.students.prompting import PromptBuilder


def marks(tokenizer) -> dict[int, str]:
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return {i: token.content for i, token in added.items() if token.content.strip()}


@pytest.fixture(scope="module")
def prompts(seam_student) -> PromptBuilder:
    return PromptBuilder(seam_student._loader.load().prompts.tokenizer)


def test_only_the_template_writes_control_tokens(prompts) -> None:
    known, chance = marks(prompts.tokenizer), random.Random(7)
    parts = [*known.values(), "<", "|", ">", "the", " ", "\n\n"]

    def messages(text: str) -> list:
        return [SystemMessage(text), HumanMessage(text), AIMessage(text), HumanMessage(text)]

    def added(text: str) -> list[int]:
        ids, begun = prompts.build([*messages(text), AIMessage(text)])
        assert not known.keys() & set(begun)
        return [token for token in ids if token in known]

    harmless = added("the end")
    for _ in range(200):
        assert added(f"x{''.join(chance.choices(parts, k=6))}x") == harmless
    everything = f"x{''.join(known.values())}x"
    assert added(everything) == harmless


def test_harmless_text_has_the_ids_that_transformers_gives_it(prompts) -> None:
    made = prompts.tokenizer
    text = "def f(x):\n\n\n    return x < 3  # \u00e4\u4e16 \U0001f600\n\tWhy?\n"
    if made.chat_template:
        turn = [{"role": "user", "content": text}]
        expected = made.apply_chat_template(turn, add_generation_prompt=True)["input_ids"]
    else:
        expected = made(text)["input_ids"]
    assert prompts.build([HumanMessage(text)])[0] == expected
