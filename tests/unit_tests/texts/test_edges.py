"""Where a step of a worked answer ends."""

from __future__ import annotations

import pytest

from langchain_gkt import GuidancePolicy
from langchain_gkt.texts.edges import sentences, whole_steps


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("She has 16 - 3 = 13 eggs left. Then she", "She has 16 - 3 = 13 eggs left. "),
        ("The books cost 3 * 4 = 12 dollars, so the", "The books cost 3 * 4 = 12 dollars, "),
        ("They cost 3 * 400 = 1,200, which", "They cost 3 * 400 = 1,200, "),
        ("He buys apples, pears and", None),  # a comma ends a step only behind a result
        ("1. Find the eggs: 16 - 3 = 13\n2. Mult", "1. Find the eggs: 16 - 3 = 13\n"),
        ("1. ", None),
        ("Step 2. ", None),
        ("1.\nThe", None),
        ("Step 1: Find the number of eggs:\nShe has", None),
        ("**Step 1:**\nShe has 16 eggs.\nThen", "**Step 1:**\nShe has 16 eggs.\n"),
        ("## Plan\nFirst we", None),
        ("Dr. Smith pays Mr. Jones 3", None),
        ("It is 3.5 dollars, and", None),
        ("Let us compute:\n\\[\n16 - 3 = 13\n", None),
        ("We get\n\\[\n16 - 3 = 13\n\\]\nSo", "We get\n\\[\n16 - 3 = 13\n\\]\n"),
        ("```python\nx = 16 - 3\nprint(x)\n", None),
        ("先算一下。然后", "先算一下。"),
        ("", None),
    ],
)
def test_steps(written, kept) -> None:
    assert whole_steps(written) == kept


def test_without_a_whole_step_whole_words_are_kept() -> None:
    assert GuidancePolicy(cut="step").trim("The ferry starts wi") == "The ferry starts "


def test_what_can_be_shown_only_grows() -> None:
    text = (
        "**Step 1:** Dr. Ho has 3.5 apples.\n1. 3 * 4 = 12 pears, so\n\\[\n a = 1, b = 2;\n\\]\n"
        "## Next\n```\nx = 1, \n```\n She pays 1,200. 我们先算。 The end\n"
    )
    policy = GuidancePolicy(cut="step")
    for size in range(len(text)):
        shorter, longer = policy.trim(text[:size]), policy.trim(text[: size + 1])
        assert longer.startswith(shorter)
        assert text.startswith(longer)


def test_sentences() -> None:
    assert sentences("It is 3.5 m. Really?\nYes.") == ["It is 3.5 m.", "Really?", "Yes."]
