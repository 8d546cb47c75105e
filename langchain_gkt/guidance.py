"""Guidance: the beginning of an answer, and the policy that says how much of it."""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.messages.ai import UsageMetadata
from pydantic import BeforeValidator, ValidationError, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass
from pydantic_core import ArgsKwargs

from langchain_gkt._langchain_compat import to_messages
from langchain_gkt.errors import explain, refuse_unknown, whole_number
from langchain_gkt.predictor import (
    Predictor,
    SupportsFirstTokens,
    check_share,
    question_of,
    threshold_for,
)

Cut = Literal["word", "sentence", "none"]
AskWhen = Literal["always", "never"] | int | float

# Scripts that set no blanks between words: most of their characters may end a word.
_UNSPACED = (
    "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"  # CJK
    "\u0e01-\u0e3a\u0e45-\u0e5b"  # Thai, without the vowels that come before their consonant
    "\u0e81-\u0ebf\u0ec5-\u0eff"  # Lao, likewise
    "\u1000-\u1038\u103a-\u109f"  # Myanmar, without the sign that stacks consonants
    "\u1780-\u17d1\u17d3-\u17ff"  # Khmer, likewise
    "\u2600-\u27bf\ufe0f\U0001f000-\U0001faff"  # emoji
)
# What belongs to the character before it: combining marks, joiners, skin tones, flags' letters.
_ATTACHED = (
    "\u0300-\u036f\u0e30-\u0e3a\u0e45-\u0e4e\u0eb0-\u0ebd\u0ec6-\u0ece\u102b-\u103e"
    "\u1056-\u1060\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d\u108f\u109a-\u109d"
    "\u17b4-\u17d3\u17dd\u200d\u20d0-\u20ff\u3099\u309a\ufe00-\ufe0f"
    "\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f\U000e0100-\U000e01ef"
)
_WHOLE_WORDS = re.compile(rf"\s*\S.*(?:(?=\s)|(?<=[{_UNSPACED}])(?=[^{_ATTACHED}]))\s*", re.DOTALL)
_WHOLE_SENTENCES = re.compile(
    r"\s*\S.*(?:[.!?][\"')\]]*(?=\s)|[。！？]|\n)\s*",  # noqa: RUF001
    re.DOTALL,
)


def _check_tokens(value: Any) -> int | None:
    check = partial(whole_number, "GuidancePolicy.tokens", least=0, meaning="student only")
    return None if value is None else check(value)


def _check_cut(value: Any) -> Any:
    if value not in ("word", "sentence", "none"):
        raise ValueError(f"GuidancePolicy.cut must be 'word', 'sentence' or 'none', not {value!r}")
    return value


def _check_ask(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value not in ("always", "never") and not (number and 0 <= value <= 1):
        raise ValueError(
            "GuidancePolicy.ask must be 'always', 'never' or a confidence between 0 and 1 "
            f"below which the teacher is asked, not {value!r}"
        )
    return value


@checked_dataclass(frozen=True, kw_only=True)
class GuidancePolicy:
    """Whether the teacher is asked, how many tokens it writes, and where its text is cut.

    Attributes:
        tokens: Most completion tokens the teacher may write, or None to use the chain's
            ``guidance_tokens``. 0 asks no teacher at all.
        cut: Where guidance that stopped at the limit is cut back to before the student
            reads it. ``word``: to the last whole word with the blanks behind it, which say
            that the word is finished; text without any edge of a word is kept whole.
            ``sentence``: to the last whole sentence, or word if no sentence is complete.
            ``none``: not at all. An answer that the teacher finished by itself is never cut.
        ask: ``always``, ``never``, or a number between 0 and 1: the teacher is asked only
            if the student's confidence is below it. Calls with tools always ask.
        probe_tokens: How many of the student's own first tokens its confidence is measured
            on: the geometric mean of their probabilities. 1 is known from prefilling the
            prompt alone; each more costs one decoding step of the student.
        predictor: Chooses for each question whether the teacher writes nothing, ``tokens``, or
            the whole answer; learned by `Sweep.choose`. It looks at first tokens of its own
            number. Calls with tools or a schema get ``tokens``, as without it.

    Raises:
        ValueError: If a value makes no sense; the message names the field and what it takes.
        TypeError: If a field is unknown; the message names the nearest known one.
    """

    tokens: Annotated[int | None, BeforeValidator(_check_tokens)] = None
    cut: Annotated[Cut, BeforeValidator(_check_cut)] = "word"
    ask: Annotated[AskWhen, BeforeValidator(_check_ask)] = "always"
    probe_tokens: Annotated[
        int, BeforeValidator(partial(whole_number, "GuidancePolicy.probe_tokens", least=1))
    ] = 1
    predictor: Predictor | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, values: Any) -> Any:
        given = values.kwargs if isinstance(values, ArgsKwargs) else values
        refuse_unknown(given or (), cls.__dataclass_fields__, cls.__name__)
        return values

    @model_validator(mode="after")
    def _refuse_two_judges(self) -> GuidancePolicy:
        if self.predictor is not None and self.ask != "always":
            raise ValueError(
                f"GuidancePolicy.ask={self.ask!r} and GuidancePolicy.predictor both say when the "
                "teacher is asked; leave ask at 'always', or set predictor=None"
            )
        return self

    @property
    def gated(self) -> bool:
        """Whether it depends on the question if the teacher is asked."""
        return self.predictor is not None or self.threshold is not None

    @property
    def probed(self) -> int:
        """How many of the student's own first tokens are looked at; 0 for none."""
        if self.predictor is not None:
            return self.predictor.probe_tokens
        return 0 if self.threshold is None else self.probe_tokens

    @property
    def threshold(self) -> float | None:
        """The confidence below which the teacher is asked; None if it plays no part."""
        return None if isinstance(self.ask, str) else self.ask

    def calibrate(
        self, student: BaseChatModel, questions: Sequence[LanguageModelInput], *, share: float
    ) -> GuidancePolicy:
        """Have the predictor ask for a share of the questions, going by examples of them.

        The student looks at each question; no answer need be known and no teacher is asked.

        Args:
            student: The student, such as a chain's ``student``.
            questions: What a chain will be asked, exemplars included.
            share: From 0 to 1, such as 0.3 to ask the teacher in 30% of the questions.

        Returns:
            The policy with another threshold.

        Raises:
            ValueError: If there is no predictor, the share makes no sense, the student does not
                tell what the predictor looks at, or there are too few questions.
        """
        check_share(share)
        if self.predictor is None:
            raise ValueError(
                "calibrate() sets the threshold of GuidancePolicy.predictor, and there is none; "
                "make one with choose(predictor=True)"
            )
        require_confidence(student, self)
        asked = [to_messages(student, question) for question in questions]

        def score(messages: list[BaseMessage]) -> float:
            assert self.predictor is not None
            first = first_token_calls(student, messages, self)[0]() if self.probed else ()
            return self.predictor.predict(question_of(messages), first).score

        with ThreadPoolExecutor() as pool:  # the student batches them
            scores = list(pool.map(score, asked))
        threshold = threshold_for(scores, share)
        return dataclasses.replace(
            self, predictor=dataclasses.replace(self.predictor, threshold=threshold)
        )

    def save(self, path: str | Path) -> None:
        """Write the policy to a JSON file, which a chain takes as ``guidance="file.json"``.

        Args:
            path: The file; an existing one is replaced.
        """
        Path(path).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

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
            return cls(**values)
        except (ValueError, TypeError) as error:
            reason = explain(error) if isinstance(error, ValidationError) else error
            raise ValueError(f"{path} does not hold a GuidancePolicy: {reason}") from error

    def trim(self, text: str) -> str:
        """Cut text that stopped at the token limit back to a clean edge.

        The result for a longer text always begins with the result for a shorter one, so
        that it can be shown while the teacher is still writing.

        Args:
            text: What the teacher has written so far.

        Returns:
            The part of ``text`` to keep; may be empty.
        """
        if self.cut == "none":
            return text
        text = text.rstrip("\ufffd")  # half a character
        if self.cut == "sentence" and (sentences := _WHOLE_SENTENCES.match(text)):
            return sentences[0]
        words = _WHOLE_WORDS.match(text)
        return words[0] if words else text


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


@runtime_checkable
class SupportsConfidence(Protocol):
    """A student that can say how confident it is; see `HuggingFaceStudent.probe`."""

    def probe(self, messages: list[BaseMessage], *, tokens: int = 1) -> list[float]:
        """Return the probabilities of the first tokens of its own answer."""
        ...

    async def aprobe(self, messages: list[BaseMessage], *, tokens: int = 1) -> list[float]:
        """Do the same, on the event loop."""
        ...


def require_confidence(student: object, policy: GuidancePolicy) -> None:
    """Refuse a student that cannot say what a policy decides by.

    Args:
        student: The student.
        policy: Any policy.

    Raises:
        ValueError: If it cannot.
    """
    name, predictor = type(student).__name__, policy.predictor
    if policy.threshold is not None and not isinstance(student, SupportsConfidence):
        raise ValueError(
            f"guidance.ask={policy.ask} goes by the student's confidence, which a "
            f"{name} does not tell; use a HuggingFaceStudent or ask='always'"
        )
    if predictor is None or not predictor.probe_tokens:
        return
    if predictor.needs_entropies and not isinstance(student, SupportsFirstTokens):
        what = "entropies"
    elif not isinstance(student, SupportsConfidence | SupportsFirstTokens):
        what = "probabilities"
    else:
        return
    raise ValueError(
        f"guidance.predictor goes by the {what} of the student's first {predictor.probe_tokens} "
        f"tokens, which a {name} does not tell; use a HuggingFaceStudent, or learn a predictor "
        "from a sweep with this student"
    )


def first_token_calls(
    student: Any, messages: list[BaseMessage], policy: GuidancePolicy
) -> tuple[Callable[[], Any], Callable[[], Awaitable[Any]]]:
    """Return the calls that ask a student for the first tokens a policy looks at.

    Args:
        student: A student that `require_confidence` accepts.
        messages: The conversation.
        policy: The policy.

    Returns:
        A call, and the same for an event loop; both give tokens, or their probabilities alone.
    """
    if policy.predictor is not None and isinstance(student, SupportsFirstTokens):
        call, acall = student.first_tokens, student.afirst_tokens
    else:
        call, acall = student.probe, student.aprobe
    return partial(call, messages, tokens=policy.probed), partial(
        acall, messages, tokens=policy.probed
    )


def confidence(probabilities: Sequence[float]) -> float:
    """Return a student's confidence in the answer it would begin by itself.

    Args:
        probabilities: The probabilities of its own first tokens.

    Returns:
        Their geometric mean, between 0 and 1; 1 if there are none.
    """
    if not probabilities or min(probabilities) <= 0:
        return 1.0 if not probabilities else 0.0
    return statistics.geometric_mean(probabilities)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guidance:
    """What the teacher gave for one question.

    Attributes:
        text: The part the student continues: the teacher's text, cut by the policy.
        token_count: Completion tokens of the teacher, as it reported them; estimated from
            the text's length if it reported none. What was cut away is included: it was
            paid for.
        finish_reason: The provider's own word for why it stopped, or None.
        usage: The teacher's usage metadata, or None if it reported none.
        complete: Whether the teacher finished its answer inside the limit.
        written: All the teacher wrote, before cutting.
    """

    text: str
    token_count: int
    finish_reason: str | None = None
    usage: UsageMetadata | None = None
    complete: bool = False
    written: str = ""
