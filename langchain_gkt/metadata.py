"""The report of a guided call about itself: its mode, the roles, and the fields of "gkt"."""

from __future__ import annotations

from typing import Any

from langchain_core.messages.ai import UsageMetadata
from typing_extensions import TypedDict

from langchain_gkt.modes import Amount, Mode, Role

__all__ = ["GKTMetadata", "Mode", "Role", "from_cache"]


def from_cache(usage: Any) -> bool:
    """Whether usage is that of an answer from LangChain's cache.

    langchain-core marks it (``_convert_cached_generations``) with only a total cost of 0. Even a
    free model does not report that.
    """
    return bool(usage) and usage.get("total_cost") == 0 and "input_cost" not in usage


class GKTMetadata(TypedDict):
    """The contents of ``message.response_metadata["gkt"]``.

    Attributes:
        guidance: The teacher's text that the student continued. Empty without a teacher.
        guidance_tokens: Completion tokens of the teacher, including those cut away.
        guidance_tokens_estimated: Whether that is our estimate, because no usage was reported.
        finished_by: Which model wrote the end of the answer.
        teacher_usage: The teacher's usage. None if it reported none or was not asked.
        teacher_calls: How often the teacher was asked.
        student_usage: The student's usage. None if it wrote nothing.
        fallback: Why one model answered without the other. None if it did not have to.
        confidence: The student's confidence that decided about asking. None if it played no part.
        amount: How much the policy's gate had the teacher write: ``none``, ``some`` (the policy's
            ``tokens``, or the next step of its ladder) or ``all``. None without a gate.
        predicted: The gate's expected share of right answers, by amount. None without one.
        written_chars: Characters that the teacher wrote, before cutting.
        mode: The mode of the call.
        strategy: The same, as the name of the strategy.
        agreement: The share of the student's answers that agree with the shown one. None if it
            answered once.
        vote_fallback: Why there was no vote though ``samples`` asked for one. None otherwise.
        signals: The gate's measurements of the question, by name. Empty without one.
            ``tool_agreement``: the share of the student's turns with tools that agree.
        call_id: The id of the call. ``gkt_call_id`` in the metadata of both child runs.
        teacher_prompt_share: About how long the teacher's prompt is, as a share of the whole
            conversation (estimated by characters). None if it saw the whole.
        refusal: A refusal by the teacher or its provider's content filter, with the reason and the
            text. None if there was none. See the chain's ``on_refusal``.
    """

    guidance: str
    guidance_tokens: int
    guidance_tokens_estimated: bool
    finished_by: Role
    teacher_usage: UsageMetadata | None
    teacher_calls: int
    student_usage: UsageMetadata | None
    fallback: str | None
    confidence: float | None
    amount: Amount | None
    predicted: dict[Amount, float] | None
    written_chars: int
    mode: Mode
    strategy: str
    signals: dict[str, float]
    agreement: float | None
    vote_fallback: str | None
    call_id: str
    teacher_prompt_share: float | None
    refusal: str | None
