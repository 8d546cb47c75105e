"""The gate learned from a sweep: how much of each answer the teacher should write.

Its predictor is a few logistic regressions in plain numbers, learned by `langchain_gkt.evaluation`.
Using it needs no further package.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, get_args

from langchain_core.messages import BaseMessage
from pydantic import BeforeValidator, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass
from pydantic_core import ArgsKwargs

from langchain_gkt.errors import KnownFields, count_field, is_number, refuse_unknown
from langchain_gkt.gates.base import ThresholdGate
from langchain_gkt.gates.confidence import confidence
from langchain_gkt.gates.first_tokens import first_token_signals, first_tokens_in
from langchain_gkt.modes import AMOUNTS, Amount
from langchain_gkt.students.protocol import FirstToken, FirstTokenDetail, Student

VERSION = 1
"""Grows when the meaning of a saved predictor changes."""

_AGAIN = "make the policy again with choose(predictor=True)"
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？]")  # noqa: RUF001
_LEAST = 1e-6


def question_of(messages: Sequence[BaseMessage]) -> str:
    """Return the question's text: the last message that is not a begun answer."""
    asked = [message for message in messages if message.type != "ai"]
    return str((asked or messages)[-1].text)


# --- features ---


def _numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in _NUMBER.findall(text)]


def _entropies(first: Sequence[FirstToken]) -> list[float]:
    return [token.entropy or 0.0 for token in first] or [0.0]


_OF_TEXT: dict[str, Callable[[str], float]] = {
    "log_characters": lambda text: math.log1p(len(text)),
    "sentences": lambda text: float(len(_SENTENCE_END.findall(text))),
    "numbers": lambda text: float(len(_numbers(text))),
    "log_largest_number": lambda text: math.log1p(min(max(_numbers(text), default=0.0), 1e12)),
}
_OF_PROBABILITIES: dict[str, Callable[[Sequence[FirstToken]], float]] = {
    "log_confidence": lambda first: (
        sum(math.log(max(token.probability, _LEAST)) for token in first) / max(1, len(first))
    ),
    "least_probability": lambda first: min((token.probability for token in first), default=1.0),
}
_OF_ENTROPIES: dict[str, Callable[[Sequence[FirstToken]], float]] = {
    "first_entropy": lambda first: _entropies(first)[0],
    "mean_entropy": lambda first: sum(_entropies(first)) / max(1, len(first)),
    "most_entropy": lambda first: max(_entropies(first)),
}
_OF_TOKENS = {**_OF_PROBABILITIES, **_OF_ENTROPIES}


def feature_names(*, probabilities: bool, entropies: bool) -> tuple[str, ...]:
    """Return the features that are known before the teacher is paid, by what a student reports."""
    names = [*_OF_TEXT]
    names += _OF_PROBABILITIES if probabilities else ()
    names += _OF_ENTROPIES if probabilities and entropies else ()
    return tuple(names)


def question_signals(question: str, first: Sequence[FirstToken | float]) -> dict[str, float]:
    """Return the inputs of all features: those of the text by their names, and the first tokens.

    ``first`` holds the first tokens of the student's own answer, or only their probabilities.
    """
    tokens = [token if isinstance(token, FirstToken) else FirstToken(token) for token in first]
    text = {name: measure(question) for name, measure in _OF_TEXT.items()}
    return {**text, **first_token_signals(tokens)}


def feature_values(
    names: Sequence[str], signals: Mapping[str, float], *, probe_tokens: int | None = None
) -> tuple[float, ...]:
    """Compute the features of these names from the result of `question_signals`.

    ``probe_tokens`` says how many first tokens to use. None for all.
    """
    first = first_tokens_in(signals, probe_tokens)
    return tuple(_OF_TOKENS[name](first) if name in _OF_TOKENS else signals[name] for name in names)


# --- the predictor ---


@checked_dataclass(frozen=True, kw_only=True)
class Expectation(KnownFields):
    """The expectation for one amount of guidance: a logistic regression, and a price.

    Attributes:
        weights: One for each feature.
        bias: Log odds of a right answer where all features are 0.
        cost: Mean price of an answer, in the predictor's unit.
    """

    weights: tuple[float, ...]
    bias: float
    cost: float

    def accuracy(self, values: Sequence[float]) -> float:
        """Return the probability of a right answer to a question of these features."""
        odds = self.bias + sum(w * v for w, v in zip(self.weights, values, strict=True))
        return 1 / (1 + math.exp(-min(max(odds, -500.0), 500.0)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """A predictor's result for one question.

    Attributes:
        amount: How much the teacher should write.
        score: The expected gain from asking, in points of accuracy, minus its price.
        accuracy: Expected share of right answers by amount.
    """

    amount: Amount
    score: float
    accuracy: Mapping[Amount, float]


def _check_version(value: Any) -> Any:
    if value != VERSION:
        raise ValueError(
            f"GuidancePolicy.predictor.version is {value!r}, and this release reads {VERSION}; "
            f"{_AGAIN}"
        )
    return value


def _check_price(value: Any) -> Any:
    if not is_number(value) or not 0 < value < math.inf:
        raise ValueError(
            f"GuidancePolicy.predictor.price_per_point must be a number above 0, not {value!r}"
        )
    return value


@checked_dataclass(frozen=True, kw_only=True)
class Predictor:
    """Chooses, question by question, how much of the answer the teacher writes.

    Attributes:
        version: `VERSION` when it was made.
        features: Names of the features. See `feature_names`.
        probe_tokens: How many of the student's own first tokens it uses. 0 for none.
        none: The expectation for the student alone.
        some: The expectation for guidance of the policy's ``tokens``.
        all: The expectation for the teacher's whole answer.
        price_per_point: The value of one point of accuracy, in the unit of the costs.
        unit: The unit of the costs.
        threshold: The score above which to ask the teacher, in points of accuracy. 0 follows the
            price, another number gives a share of the questions.

    Raises:
        ValueError: If a value makes no sense, or it has another version.
        TypeError: If a field is unknown.
    """

    version: Annotated[int, BeforeValidator(_check_version)]
    features: tuple[str, ...]
    probe_tokens: Annotated[int, count_field("predictor.probe_tokens", 0)]
    none: Expectation
    some: Expectation
    all: Expectation
    price_per_point: Annotated[float, BeforeValidator(_check_price)]
    unit: str = ""
    threshold: float = 0.0

    @model_validator(mode="before")
    @classmethod
    def _check_fields(cls, values: Any) -> Any:
        arguments = (values.kwargs if isinstance(values, ArgsKwargs) else values) or {}
        # First, because another version may have other fields.
        _check_version(arguments.get("version") if isinstance(arguments, Mapping) else None)
        refuse_unknown(arguments, cls.__dataclass_fields__, "GuidancePolicy.predictor")
        return values

    @model_validator(mode="after")
    def _check_features(self) -> Predictor:
        known = {**_OF_TEXT, **_OF_TOKENS}
        if unknown := [name for name in self.features if name not in known]:
            raise ValueError(
                f"GuidancePolicy.predictor.features names {unknown[0]!r}, which this release does "
                f"not know; it knows: {', '.join(known)}; {_AGAIN}"
            )
        for amount in AMOUNTS:
            if len(getattr(self, amount).weights) != len(self.features):
                raise ValueError(
                    f"GuidancePolicy.predictor.{amount}.weights must be one for each of the "
                    f"{len(self.features)} features; {_AGAIN}"
                )
        if self.probe_tokens < 1 and any(name in _OF_TOKENS for name in self.features):
            raise ValueError(
                "GuidancePolicy.predictor.probe_tokens must be 1 or more for features of the "
                f"student's first tokens; {_AGAIN}"
            )
        return self

    @property
    def needs_entropies(self) -> bool:
        """Whether the student must report entropies, not only probabilities."""
        return any(name in _OF_ENTROPIES for name in self.features)

    def predict(self, question: str, first: Sequence[FirstToken | float]) -> Prediction:
        """Decide how much the teacher should write.

        Args:
            question: The text of the question.
            first: The first tokens of the student's own answer, or only their probabilities.

        Raises:
            ValueError: If it needs entropies, and the tokens have none.
        """
        return self.predict_from(question_signals(question, first))

    def predict_from(self, signals: Mapping[str, float]) -> Prediction:
        """Do what `predict` does, from the result of `question_signals`."""
        tokens = first_tokens_in(signals)
        if self.needs_entropies and any(token.entropy is None for token in tokens):
            raise ValueError(
                "GuidancePolicy.predictor is based on the entropies of the student's first "
                "tokens, which this student's engine does not report; learn a predictor from a "
                "sweep with this student, or give it backend='torch'"
            )
        values = feature_values(self.features, signals, probe_tokens=self.probe_tokens)
        expected: dict[Amount, Expectation] = {name: getattr(self, name) for name in AMOUNTS}
        accuracy = {
            amount: expectation.accuracy(values) for amount, expectation in expected.items()
        }
        worth = {
            amount: 100 * accuracy[amount] - expectation.cost / self.price_per_point
            for amount, expectation in expected.items()
        }
        best: Amount = "some" if worth["some"] >= worth["all"] else "all"
        score = worth[best] - worth["none"]
        return Prediction(
            amount=best if score > self.threshold else "none", score=score, accuracy=accuracy
        )


@checked_dataclass(frozen=True, kw_only=True)
class LearnedGate(ThresholdGate):
    """Has the teacher write the amount that a predictor expects to be worth its price.

    ``GuidancePolicy(predictor=...)`` is its short form.

    Attributes:
        predictor: The predictor of `Sweep.choose`.
    """

    kind: ClassVar[str] = "learned"
    predictor: Predictor

    def require(self, student: Student) -> None:
        """Refuse a student that does not report the predictor's signals."""
        details = get_args(FirstTokenDetail)  # each includes the one before it
        needed = "entropies" if self.predictor.needs_entropies else "probabilities"
        is_known = details.index(student.first_token_detail) >= details.index(needed)
        if self.predictor.probe_tokens and not is_known:
            raise ValueError(
                f"guidance.predictor is based on the {needed} of the student's first "
                f"{self.predictor.probe_tokens} tokens, which a "
                f"{type(student.chat_model).__name__} does not report; use a HuggingFaceStudent, "
                "or learn a predictor from a sweep with this student"
            )

    def measure(self, student: Student, messages: list[BaseMessage]) -> dict[str, float]:
        """Return the features' inputs, and ``confidence`` if it uses first tokens."""
        count = self.predictor.probe_tokens
        tokens = student.first_tokens(messages, tokens=count) if count else []
        return _signals(messages, tokens)

    async def ameasure(self, student: Student, messages: list[BaseMessage]) -> dict[str, float]:
        """Do what `measure` does, on the event loop."""
        count = self.predictor.probe_tokens
        tokens = await student.afirst_tokens(messages, tokens=count) if count else []
        return _signals(messages, tokens)

    def decide(self, signals: Mapping[str, float]) -> Amount:
        """Take the amount that the predictor expects to be worth most."""
        return self.predictor.predict_from(signals).amount

    def expectations(self, signals: Mapping[str, float]) -> Mapping[Amount, float]:
        """Return the share of right answers that the predictor expects of each amount."""
        return self.predictor.predict_from(signals).accuracy

    def score(self, signals: Mapping[str, float]) -> float:
        """Return the expected gain from asking, in points of accuracy, minus its price."""
        return self.predictor.predict_from(signals).score

    def asking_above(self, score: float) -> LearnedGate:
        """Return a copy with another threshold."""
        return LearnedGate(predictor=dataclasses.replace(self.predictor, threshold=score))


def _signals(messages: list[BaseMessage], tokens: Sequence[FirstToken]) -> dict[str, float]:
    signals = question_signals(question_of(messages), tokens)
    if tokens:
        signals["confidence"] = confidence([token.probability for token in tokens])
    return signals
