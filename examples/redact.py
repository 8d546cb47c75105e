"""The teacher never sees e-mail addresses, telephone numbers and card numbers of a question.

Run it with `python examples/redact.py`: the embedded pair answers, and what the teacher was sent
is shown. With Microsoft Presidio installed (`pip install presidio-analyzer` and a spaCy model)
`presidio()` finds names and places, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from langchain_core.language_models import FakeListChatModel

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt.demo.pair import STUDENT
from langchain_gkt.prompts import Redact

BEGINNING = "I have written to <EMAIL_1> today, and will"
PATTERNS = {
    "EMAIL": re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w"),
    "CARD": re.compile(r"\b\d(?:[ -]?\d){12,18}\b"),
    "PHONE": re.compile(r"\+\d[\d -]{6,}\d"),
}


def by_pattern(text: str) -> Iterator[tuple[int, int, str]]:
    """Find what the patterns describe."""
    for label, pattern in PATTERNS.items():
        for match in pattern.finditer(text):
            yield match.start(), match.end(), label


def presidio(language: str = "en", **analyzer: Any) -> Redact:
    """Make a redaction that finds what Presidio's analyzer does."""
    from presidio_analyzer import AnalyzerEngine

    engine = AnalyzerEngine(**analyzer)

    def find(text: str) -> Iterator[tuple[int, int, str]]:
        for found in engine.analyze(text=text, language=language):
            yield found.start, found.end, found.entity_type

    return Redact(find)


class ShownTeacher(FakeListChatModel):
    """Stands for a teacher in the cloud, and shows what it is sent."""

    def _call(self, messages: Any, *args: Any, **kwargs: Any) -> str:
        print("sent: ", messages[-1].text)
        return str(super()._call(messages, *args, **kwargs))


def main() -> None:
    """Ask one question."""
    chain = GuidedKnowledgeTransferChain(
        teacher=ShownTeacher(responses=[BEGINNING]),  # <- ChatOpenAI(model="gpt-4o-mini")
        student=str(STUDENT),  # <- a Hugging Face model: a folder or hub id
        redact=Redact(by_pattern),
        max_tokens=20,
    )
    answer = chain.invoke("Please write to ann@example.org, card 4111 1111 1111 1111.")
    print("given:", answer.response_metadata["gkt"]["guidance"])


if __name__ == "__main__":
    main()
