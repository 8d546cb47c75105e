"""Guidance: the beginning of an answer, and the policy that says how much of it."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, get_args, runtime_checkable

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
from langchain_gkt.prompts.base import check_teacher_prompt
from langchain_gkt.prompts.plain_data import from_data, name_prompt, to_data
from langchain_gkt.texts import edges

Cut = Literal["word", "sentence", "step", "none"]
AskWhen = Literal["always", "never"] | int | float

FILE_VERSION = 2
"""Grows when a policy's file gets fields that must not be left out; 1 had no version."""

_WHOLE: dict[str, Callable[[str], str | None]] = {
    "sentence": edges.whole_sentences,
    "step": edges.whole_steps,
}


def _check_tokens(value: Any) -> int | None:
    check = partial(whole_number, "GuidancePolicy.tokens", least=0, meaning="student only")
    return None if value is None else check(value)


def _check_cut(value: Any) -> Any:
    if value not in get_args(Cut):
        raise ValueError(
            f"GuidancePolicy.cut must be 'word', 'sentence', 'step' or 'none', not {value!r}"
        )
    return value


def _check_prompt(value: Any) -> Any:
    is_data = isinstance(value, Mapping | list)
    return from_data(value) if is_data else check_teacher_prompt(value)


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
            ``step``: to the last whole step of a worked answer (a line, a sentence, or an
            equation up to its result; see `texts.edges.whole_steps`), or word likewise.
            ``none``: not at all. An answer that the teacher finished by itself is never cut.
        ask: ``always``, ``never``, or a number between 0 and 1: the teacher is asked only
            if the student's confidence is below it. Calls with tools always ask.
        probe_tokens: How many of the student's own first tokens its confidence is measured
            on: the geometric mean of their probabilities. 1 is known from prefilling the
            prompt alone; each more costs one decoding step of the student.
        min_tokens: Guidance of which fewer tokens are left after cutting is dropped, and the
            student answers alone; the teacher is paid all the same. An answer that the teacher
            finished is never dropped. Guidance is then shown only when it is complete.
        teacher_prompt: What of the conversation the teacher is shown: a `TeacherPrompt`, or any
            Runnable or function from the messages to those it sees; None to use the chain's.
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
    min_tokens: Annotated[
        int, BeforeValidator(partial(whole_number, "GuidancePolicy.min_tokens", least=0))
    ] = 0
    teacher_prompt: Annotated[Any, BeforeValidator(_check_prompt)] = None
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

        Raises:
            ValueError: If ``teacher_prompt`` is not made of ready-made prompts.
        """
        data = {**self.to_dict(), "teacher_prompt": to_data(self.teacher_prompt)}
        text = json.dumps({"schema_version": FILE_VERSION, **data}, indent=2)
        Path(path).write_text(f"{text}\n")

    def to_dict(self) -> dict[str, Any]:
        """Return the policy as plain values; a prompt that is no data is there by its name."""
        values = dataclasses.asdict(dataclasses.replace(self, teacher_prompt=None))
        return {**values, "teacher_prompt": name_prompt(self.teacher_prompt)}

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
            version = values.pop("schema_version", 1)
            if not isinstance(version, int) or not 1 <= version <= FILE_VERSION:
                raise ValueError(
                    f"it has schema_version {version!r}, and this release reads 1 to "
                    f"{FILE_VERSION}; upgrade langchain-gkt, or let sweep write the file again"
                )
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
        whole = _WHOLE[self.cut](text) if self.cut in _WHOLE else None
        if whole is None:
            whole = edges.whole_words(text)
        return text if whole is None else whole


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
        dropped: How many tokens were left after cutting if they were too few to help, and the
            text is empty for that; None otherwise.
        estimated: Whether ``token_count`` is our guess, because no usage was reported.
    """

    text: str
    token_count: int
    finish_reason: str | None = None
    usage: UsageMetadata | None = None
    complete: bool = False
    written: str = ""
    dropped: int | None = None
    estimated: bool = False

    @property
    def kept_tokens(self) -> int:
        """How many of the teacher's tokens are in the text; some are hidden or cut away."""
        details = self.usage.get("output_token_details") if self.usage else None
        visible = max(0, self.token_count - ((details or {}).get("reasoning") or 0))
        return round(visible * min(1.0, len(self.text) / max(1, len(self.written))))
