"""Guidance: the beginning of an answer, and the policy that says how much of it."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from langchain_core.messages.ai import UsageMetadata

from langchain_gkt.errors import refuse_unknown

Cut = Literal["word", "sentence", "none"]
Ask = Literal["always", "never"] | float

# Scripts that set no blanks between words: each of their characters may end a word.
_UNSPACED = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
_WHOLE_WORDS = re.compile(rf".*(?:(?=\s)|(?<=[{_UNSPACED}])(?=.))", re.DOTALL)
_WHOLE_SENTENCES = re.compile(r".*(?:[.!?][\"')\]]*(?=\s)|[。！？]|\n)", re.DOTALL)  # noqa: RUF001


@dataclass(frozen=True, kw_only=True)
class GuidancePolicy:
    """Whether the teacher is asked, how many tokens it writes, and where its text is cut.

    Attributes:
        tokens: Most completion tokens the teacher may write, or None to use the chain's
            ``guidance_tokens``. 0 asks no teacher at all.
        cut: Where guidance that stopped at the limit is cut back to before the student
            reads it. ``word``: to the last whole word, without trailing blanks: half a word
            is tokenised in a way the student has never seen. ``sentence``: to the last whole
            sentence, or word where no sentence is complete. ``none``: not at all. An answer
            the teacher finished by itself is never cut.
        ask: ``always``, ``never``, or a number between 0 and 1: the teacher is asked only
            where the student's confidence is below it. Calls with tools always ask.
        probe_tokens: How many of its own first tokens the student's confidence is taken over:
            the geometric mean of the probabilities it gives them. 1 is known from prefilling
            the prompt alone; each more costs one decoding step of the student.
    """

    tokens: int | None = None
    cut: Cut = "word"
    ask: Ask = "always"
    probe_tokens: int = 1

    def __post_init__(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            ValueError: If ``tokens`` is negative, ``cut`` or ``ask`` unknown, or
                ``probe_tokens`` below 1.
        """
        for name in ("tokens", "probe_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | None):
                raise ValueError(f"GuidancePolicy.{name} must be a whole number, not {value!r}")
        if self.tokens is not None and self.tokens < 0:
            raise ValueError(
                f"GuidancePolicy.tokens must be 0 (student only) or more, not {self.tokens}"
            )
        if self.cut not in ("word", "sentence", "none"):
            raise ValueError(
                f"GuidancePolicy.cut must be 'word', 'sentence' or 'none', not {self.cut!r}"
            )
        number = isinstance(self.ask, int | float) and not isinstance(self.ask, bool)
        if self.ask not in ("always", "never") and not (number and 0 <= float(self.ask) <= 1):
            raise ValueError(
                "GuidancePolicy.ask must be 'always', 'never' or a confidence between 0 and 1 "
                f"below which the teacher is asked, not {self.ask!r}"
            )
        if self.probe_tokens is None or self.probe_tokens < 1:
            raise ValueError(
                f"GuidancePolicy.probe_tokens must be 1 or more, not {self.probe_tokens}"
            )

    @property
    def threshold(self) -> float | None:
        """The confidence below which the teacher is asked; None where it plays no part."""
        return None if isinstance(self.ask, str) else self.ask

    def save(self, path: str | Path) -> None:
        """Write the policy to a JSON file, which a chain takes as ``guidance="file.json"``.

        Args:
            path: The file; an existing one is replaced.
        """
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> GuidancePolicy:
        """Read a policy from a JSON file.

        Args:
            path: What `save` wrote.

        Returns:
            The policy.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file does not hold a policy.
        """
        try:
            values: Any = json.loads(Path(path).read_text())
            if not isinstance(values, dict):
                raise ValueError(f"it holds a {type(values).__name__}, not an object")
            refuse_unknown(values, [field.name for field in fields(cls)], "GuidancePolicy")
            return cls(**values)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} does not hold a GuidancePolicy: {error}") from error

    def trim(self, text: str) -> str:
        """Cut text that stopped at the token limit back to a clean edge.

        The result for a longer text always begins with the result for a shorter one, so
        that it can be shown while the teacher still writes.

        Args:
            text: What the teacher has written so far.

        Returns:
            The part of ``text`` to keep; may be empty.
        """
        if self.cut == "none":
            return text
        if self.cut == "sentence":
            sentences = _WHOLE_SENTENCES.match(text)
            if sentences and sentences[0].strip():
                return sentences[0].rstrip()
        words = _WHOLE_WORDS.match(text)
        return words[0].rstrip() if words else ""


def as_policy(
    given: GuidancePolicy | Mapping[str, Any] | str | Path | None,
) -> GuidancePolicy | None:
    """Take a policy, its fields, or the name of a file that holds one.

    Args:
        given: One of them, or None.

    Returns:
        The policy, or None.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not hold a policy.
        TypeError: If it is something else.
    """
    if isinstance(given, str | Path):
        return GuidancePolicy.load(given)
    if isinstance(given, Mapping):
        return GuidancePolicy(**given)
    if given is not None and not isinstance(given, GuidancePolicy):
        raise TypeError(
            "guidance must be a GuidancePolicy or a file that GuidancePolicy.save wrote, not "
            f"{type(given).__name__}"
        )
    return given


def confidence(probabilities: Sequence[float]) -> float:
    """Return a student's confidence in the answer it would begin by itself.

    Args:
        probabilities: What it gives its own first tokens.

    Returns:
        Their geometric mean, between 0 and 1; 1 where there are none.
    """
    if not probabilities or min(probabilities) <= 0:
        return 1.0 if not probabilities else 0.0
    return statistics.geometric_mean(probabilities)


def before_stop(text: str, stop: Sequence[str] | None) -> str:
    """Return what of a growing text is certain to come before a stop string.

    Args:
        text: The text so far.
        stop: Stop strings, or None.

    Returns:
        The text up to the first of them, or without an end that may grow into one.
    """
    ends = [end for end in stop or () if end]
    if found := [text.find(end) for end in ends if end in text]:
        return text[: min(found)]
    held = (size for end in ends for size in range(1, len(end)) if text.endswith(end[:size]))
    return text[: len(text) - max(held, default=0)]


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """What the teacher gave for one question.

    Attributes:
        text: The part the student continues: the teacher's text, cut by the policy.
        token_count: Completion tokens the teacher wrote, as it reported them; estimated
            from the text's length where it reported none. What was cut away is included:
            it was paid for.
        finish_reason: The provider's own word for why it stopped, or None.
        usage: The teacher's usage metadata, or None where it reported none.
        complete: Whether the teacher finished its answer inside the limit.
        written: All the teacher wrote, before cutting.
    """

    text: str
    token_count: int
    finish_reason: str | None = None
    usage: UsageMetadata | None = None
    complete: bool = False
    written: str = ""
