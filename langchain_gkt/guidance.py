"""Guidance: the beginning of an answer, and the policy that sets how much of it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages.ai import UsageMetadata
from pydantic import BeforeValidator, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass
from pydantic_core import ArgsKwargs

from langchain_gkt.errors import (
    CheckedFields,
    ConfigurationError,
    choice_field,
    count_field,
    is_number,
    refuse_unknown,
    whole_number,
)
from langchain_gkt.gates import ConfidenceGate, Gate, LearnedGate, Predictor, calibrate
from langchain_gkt.gates.agreement import answer_gate_from, tool_gate_from
from langchain_gkt.prompts.base import check_teacher_prompt
from langchain_gkt.prompts.plain_data import from_data, name_prompt, to_data
from langchain_gkt.prompts.verdicts import check_verdict
from langchain_gkt.students.voting import check_answer_of
from langchain_gkt.texts import edges

Cut = Literal["word", "sentence", "step", "none"]
AskWhen = Literal["always", "never"] | int | float

FILE_VERSION = 2
"""Grows when a policy's file gets fields that must not be left out. 1 had no version."""

_WHOLE: dict[str, Callable[[str], str | None]] = {
    "sentence": edges.whole_sentences,
    "step": edges.whole_steps,
}


def _check_prompt(value: Any) -> Any:
    is_data = isinstance(value, Mapping | list)
    return from_data(value) if is_data else check_teacher_prompt(value)


def _check_ask(value: Any) -> Any:
    if value not in ("always", "never") and not (is_number(value) and 0 <= value <= 1):
        raise ValueError(
            "GuidancePolicy.ask must be 'always', 'never' or a confidence between 0 and 1 "
            f"below which the teacher is asked, not {value!r}"
        )
    return value


Rung = int | Literal["all"]
"""One amount of a ladder: a number of teacher tokens, or its whole answer."""


def _check_ladder(value: Any) -> Any:
    what = f"GuidancePolicy.ladder={value!r}"
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ValueError(f'{what} must be amounts that rise, such as (0, 40, "all")')
    if len(value) == 1 and value[0] != "all":
        raise ValueError(f"{what} has one amount; set GuidancePolicy.tokens instead")
    for rung in value:
        if rung != "all":
            whole_number("GuidancePolicy.ladder", rung, least=0, meaning="student only")
    sizes = [math.inf if rung == "all" else rung for rung in value]
    if any(low >= high for low, high in itertools.pairwise(sizes)):
        raise ValueError(f'{what} does not rise; order its amounts, and put "all" last')
    return tuple(value)


def _check_teacher_tools(value: Any) -> Any:
    if isinstance(value, str) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"GuidancePolicy.teacher_tools must be names of tools, not {value!r}")
    return tuple(value)


@checked_dataclass(frozen=True, kw_only=True)
class GuidancePolicy(metaclass=CheckedFields):
    """Whether to ask the teacher, how many tokens it writes, and where to cut its text.

    Attributes:
        tokens: Maximum completion tokens of the teacher, or None to use the chain's
            ``guidance_tokens``. 0 asks no teacher at all.
        cut: How far to cut back guidance that stopped at the limit, before the student reads it.
            ``word``: to the last whole word with the space after it, which shows that the word is
            complete. Text without any edge of a word is kept whole. ``sentence``: to the last whole
            sentence, or word if no sentence is complete. ``step``: to the last whole step of a
            worked answer (a line, a sentence, or an equation up to its result), or word likewise.
            See `texts.edges.whole_steps`. ``none``: not at all. An answer that the teacher finished
            by itself is never cut.
        ask: ``always``, ``never``, or a number between 0 and 1, which asks the teacher only if the
            student's confidence is below it. Calls with tools always ask. ``ask_below`` is another
            name of it.
        probe_tokens: How many of the student's own first tokens its confidence uses. It is the
            geometric mean of their probabilities. 1 is known from prefilling the prompt alone. Each
            more costs one decoding step of the student.
        min_tokens: If fewer tokens of guidance are left after cutting, it is dropped, and the
            student answers alone. The teacher is paid all the same. An answer that the teacher
            finished is never dropped. Guidance is then shown only when it is complete.
        teacher_prompt: The part of the conversation for the teacher: a `TeacherPrompt`, or any
            Runnable or function from the messages to those that it sees. None to use the chain's.
        predictor: Chooses for each question whether the teacher writes nothing, ``tokens``, or the
            whole answer. `Sweep.choose` learns it. It has its own number of first tokens. Calls
            with tools or a schema get ``tokens``, as without it.
        gate: Decides for each question how much the teacher writes: any gate of
            `langchain_gkt.gates`, or one of your own. ``ask`` with a number and ``predictor`` are
            short forms of two of them.
        ladder: Rising amounts, such as ``(0, 40, "all")``. After each the gate looks at the
            question and the guidance so far. Only if it is unsure, the teacher writes the next. A
            gate that returns ``all`` skips to the last. With ``("all",)`` the teacher always writes
            the whole answer. None for one step of ``tokens``.
        samples: How often the student writes its part of an answer. With 2 or more the most
            common answer is shown. None for the chain's ``samples``.
        answer_of: When two answers are equal. None for the chain's ``answer_of``.
        tools: Who makes tool calls. ``teacher``, or an `AgreementGate`. With the gate, the student
            writes the turn ``samples`` times. If ``at_least`` of them make the same calls, which
            keep to the tools' schemas, the teacher is not asked.
        teacher_tools: Names of tools that only the teacher may call, such as those that pay. A tool
            can also declare it, with ``metadata={"gkt_tools": "teacher"}``.
        verdict: The form of the verdict on a draft in ``mode="verified"``. ``steps``: the first
            wrong step, corrected. ``option``: the letter of the right option, for questions with
            options. Or an instruction of your own, whose reply must have one of these forms.

    Raises:
        ValueError: If a value makes no sense. The message names the field and what it takes.
        TypeError: If a field is unknown. The message names the nearest known one.
    """

    tokens: Annotated[int, count_field("GuidancePolicy.tokens", 0, "student only")] | None = None
    cut: Annotated[Cut, choice_field("GuidancePolicy.cut", *get_args(Cut))] = "word"
    ask: Annotated[AskWhen, BeforeValidator(_check_ask)] = "always"
    probe_tokens: Annotated[int, count_field("GuidancePolicy.probe_tokens", 1)] = 1
    min_tokens: Annotated[int, count_field("GuidancePolicy.min_tokens", 0)] = 0
    teacher_prompt: Annotated[Any, BeforeValidator(_check_prompt)] = None
    predictor: Predictor | None = None
    gate: Annotated[Any, BeforeValidator(answer_gate_from)] = None
    ladder: Annotated[tuple[Rung, ...], BeforeValidator(_check_ladder)] | None = None
    samples: Annotated[int, count_field("GuidancePolicy.samples", 1, "no vote")] | None = None
    answer_of: Annotated[Any, BeforeValidator(check_answer_of)] | None = None
    tools: Annotated[Any, BeforeValidator(tool_gate_from)] = "teacher"
    teacher_tools: Annotated[tuple[str, ...], BeforeValidator(_check_teacher_tools)] = ()
    verdict: Annotated[str, BeforeValidator(check_verdict)] = "steps"

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, values: Any) -> Any:
        fields = dict((values.kwargs if isinstance(values, ArgsKwargs) else values) or {})
        if "ask_below" in fields:
            if "ask" in fields:
                raise ValueError("GuidancePolicy.ask is the same as ask_below; give one of them")
            fields["ask"] = fields.pop("ask_below")
        refuse_unknown(fields, cls.__dataclass_fields__, cls.__name__)
        return ArgsKwargs((), fields)

    @model_validator(mode="after")
    def _refuse_two_judges(self) -> GuidancePolicy:
        judges = [name for name in ("predictor", "gate") if getattr(self, name) is not None]
        if len(judges) == 2 or (judges and self.ask != "always"):
            first = f"ask={self.ask!r}" if self.ask != "always" else "predictor"
            raise ValueError(
                f"GuidancePolicy.{first} and GuidancePolicy.{judges[-1]} both say when the "
                f"teacher is asked; leave ask at 'always', or set {judges[-1]}=None"
            )
        return self

    @model_validator(mode="after")
    def _check_climb(self) -> GuidancePolicy:
        if self.ladder is not None and len(self.ladder) > 1 and self.active_gate is None:
            raise ValueError(
                f"GuidancePolicy.ladder={self.ladder!r} needs a gate that says when to go on; set "
                "gate=, or ask= a number"
            )
        if self.ladder == ("all",) and self.active_gate is not None:
            raise ValueError(
                'GuidancePolicy.ladder=("all",) always asks, so its gate has no effect; set '
                'ladder=(0, "all")'
            )
        if self.ladder is not None and self.tokens is not None:
            raise ValueError(
                f"GuidancePolicy.tokens={self.tokens} and GuidancePolicy.ladder={self.ladder!r} "
                "both say how much the teacher writes; give one of them"
            )
        return self

    @property
    def threshold(self) -> float | None:
        """The confidence below which to ask the teacher. None if it plays no part."""
        return None if isinstance(self.ask, str) else self.ask

    @property
    def active_gate(self) -> Gate | None:
        """The gate that decides by the question. None if none does."""
        if self.gate is not None:
            return self.gate  # type: ignore[no-any-return]
        if self.predictor is not None:
            return LearnedGate(predictor=self.predictor)
        if self.threshold is None:
            return None
        return ConfidenceGate(below=self.threshold, probe_tokens=self.probe_tokens)

    def calibrate(
        self, student: BaseChatModel, questions: Sequence[LanguageModelInput], *, share: float
    ) -> GuidancePolicy:
        """Make the gate ask for a share of the questions. See `langchain_gkt.gates.calibrate`.

        Args:
            student: The student, such as a chain's ``student``.
            questions: Questions as the chain will get them, exemplars included.
            share: From 0 to 1, such as 0.3 to ask the teacher in 30% of the questions.

        Returns:
            The policy with another threshold.

        Raises:
            ValueError: If there is no gate, the share makes no sense, the student does not
                report what the gate needs, or there are too few questions.
        """
        if (gate := self.active_gate) is None:
            raise ValueError(
                "calibrate() sets the threshold of GuidancePolicy.gate, ask or predictor, and "
                "there is none; make one with choose(predictor=True)"
            )
        gate = calibrate(gate, student, questions, share=share)
        if isinstance(gate, LearnedGate) and self.predictor is not None:
            return dataclasses.replace(self, predictor=gate.predictor)
        if isinstance(gate, ConfidenceGate) and self.gate is None:
            return dataclasses.replace(self, ask=gate.below)
        return dataclasses.replace(self, gate=gate)

    def save(self, path: str | Path) -> None:
        """Write the policy to a JSON file, which a chain takes as ``guidance="file.json"``.

        Args:
            path: The file. An existing one is replaced.

        Raises:
            ValueError: If ``teacher_prompt`` is not made of ready-made prompts, or
                ``answer_of`` is a function.
        """
        if callable(self.answer_of):
            raise ValueError(
                "GuidancePolicy.answer_of is a function, which a file cannot hold; give it to the "
                "chain instead"
            )
        data = {**self.to_dict(), "teacher_prompt": to_data(self.teacher_prompt)}
        text = json.dumps({"schema_version": FILE_VERSION, **data}, indent=2)
        Path(path).write_text(f"{text}\n")

    def to_dict(self) -> dict[str, Any]:
        """Return the policy as plain values. Prompts that are not data appear by name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["predictor"] = self.predictor and dataclasses.asdict(self.predictor)
        values["gate"] = self.gate and self.gate.to_dict()
        values["tools"] = None if self.tools == "teacher" else self.tools.to_dict()
        # Left out if they play no part, because older files and runs lack them.
        for name in ("gate", "ladder", "samples", "answer_of", "tools", "teacher_tools"):
            if not values[name]:
                del values[name]
        if values["verdict"] == "steps":
            del values["verdict"]
        return {**values, "teacher_prompt": name_prompt(self.teacher_prompt)}

    @classmethod
    def load(cls, path: str | Path) -> GuidancePolicy:
        """Read a policy from a JSON file.

        Args:
            path: A file of `save`.

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
            raise ConfigurationError(f"{path} does not hold a GuidancePolicy: {error}") from error

    def trim(self, text: str) -> str:
        """Cut text that stopped at the token limit back to a clean edge.

        The result for a longer text always begins with the result for a shorter one, so that it can
        be shown while the teacher is still writing.

        Args:
            text: The teacher's text so far.

        Returns:
            The part of ``text`` to keep. May be empty.
        """
        if self.cut == "none":
            return text
        text = text.rstrip("\ufffd")  # half a character
        whole = _WHOLE[self.cut](text) if self.cut in _WHOLE else None
        if whole is None:
            whole = edges.whole_words(text)
        return text if whole is None else whole


def as_policy(
    policy: GuidancePolicy | Mapping[str, Any] | str | Path | None,
) -> GuidancePolicy | None:
    """Read a policy, its fields, or the name of a file that holds one. None stays None."""
    if isinstance(policy, str | Path):
        return GuidancePolicy.load(policy)
    if isinstance(policy, Mapping):
        return GuidancePolicy(**policy)
    if policy is not None and not isinstance(policy, GuidancePolicy):
        raise TypeError(
            "guidance must be a GuidancePolicy or a file that GuidancePolicy.save wrote, not "
            f"{type(policy).__name__}"
        )
    return policy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guidance:
    """The teacher's guidance for one question.

    Attributes:
        text: The part that the student continues: the teacher's text, cut by the policy.
        token_count: The teacher's reported completion tokens. If it reported none, an estimate from
            the text's length. It includes the part that was cut away, which was paid for.
        finish_reason: The provider's own reason for the end, or None.
        usage: The teacher's usage metadata, or None if it reported none.
        complete: Whether the teacher finished its answer inside the limit.
        written: All the teacher wrote, before cutting.
        dropped: How many tokens were left after cutting, if they were too few to help and the text
            is therefore empty. None otherwise.
        estimated: Whether ``token_count`` is our estimate, because no usage was reported.
        logprob: Log-probability of its first token. None if the provider did not report it.
    """

    text: str
    token_count: int
    finish_reason: str | None = None
    usage: UsageMetadata | None = None
    complete: bool = False
    written: str = ""
    dropped: int | None = None
    estimated: bool = False
    logprob: float | None = None

    @property
    def kept_tokens(self) -> int:
        """How many of the teacher's tokens are in the text. Some are hidden or cut away."""
        details = self.usage.get("output_token_details") if self.usage else None
        visible = max(0, self.token_count - ((details or {}).get("reasoning") or 0))
        return round(visible * min(1.0, len(self.text) / max(1, len(self.written))))
