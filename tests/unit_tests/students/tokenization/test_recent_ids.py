"""What a student remembers of prompts: few bytes, and none of their text."""

from __future__ import annotations

import gc
from types import FunctionType, ModuleType

from support.models.fakes import MODELS
from transformers import AutoTokenizer

from langchain_gkt.students.tokenization.control_tokens import ControlTokens
from langchain_gkt.students.tokenization.recent_ids import RecentIds


def test_ids_are_made_once_and_bounded_by_their_bytes() -> None:
    made: list[str] = []
    recent = RecentIds(most_bytes=10_000)

    def ask(text: str, length: int) -> list[int]:
        return recent.get(text, lambda: made.append(text) or list(range(length)))

    first = ask("a", 100)
    first.append(7)  # the caller's own
    assert ask("a", 100) == list(range(100))
    assert made == ["a"]
    for n in range(100):  # many different ones
        ask(f"n{n}", 500)
        assert recent.size <= 10_000
    assert ask("a", 100) == list(range(100))
    assert made.count("a") == 2
    before = recent.size
    ask("huge", 100_000)
    ask("huge", 100_000)
    assert made.count("huge") == 2  # larger than all that may be kept
    assert recent.size == before


def test_the_text_of_a_prompt_is_not_kept() -> None:
    tokens = ControlTokens(AutoTokenizer.from_pretrained(MODELS / "student"))
    secret = "".join(["my", "-", "secret", "-", "prompt"])
    ids = tokens.ids(f"{secret} 12", {})
    assert tokens.ids(f"{secret} 12", {}) == ids == tokens.encode(f"{secret} 12", {})[0]
    waiting, seen, texts = [tokens], set(), []
    while waiting:  # all that the object holds, caches in C included
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type | ModuleType | FunctionType):
            continue
        seen.add(id(one))
        texts += [one] if type(one) is str else []
        waiting += gc.get_referents(one)
    assert not [text for text in texts if secret in text]
