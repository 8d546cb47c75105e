"""What a guided call says about itself: its mode, the roles, and the fields of "gkt"."""

from __future__ import annotations

from typing import Any

from langchain_core.messages.ai import UsageMetadata
from typing_extensions import TypedDict

from langchain_gkt.modes import Amount, Mode, Role

__all__ = ["GKTMetadata", "Mode", "Role", "from_cache"]


def from_cache(usage: Any) -> bool:
    """Whether usage is that of an answer from LangChain's cache.

    Args:
        usage: Usage metadata or None.

    Returns:
        Whether langchain-core marked it so (``_convert_cached_generations``): with a total of 0
        alone, which a model that is free does not have.
    """
    return bool(usage) and usage.get("total_cost") == 0 and "input_cost" not in usage


class GKTMetadata(TypedDict):
    """What ``message.response_metadata["gkt"]`` of an answer holds.

    Attributes:
        guidance: The teacher's text that the student continued. Empty without a teacher.
        guidance_tokens: Completion tokens of the teacher, what was cut away included.
        guidance_tokens_estimated: Whether that is our guess, because no usage was reported.
        finished_by: Which model wrote the end of the answer.
        teacher_usage: The teacher's usage. None if it reported none or was not asked.
        teacher_calls: How often the teacher was asked.
        student_usage: The student's usage. None if it wrote nothing.
        fallback: Why one model answered without the other. None if it did not have to.
        confidence: The student's confidence that decided about asking. None if it played
            no part.
        amount: How much the policy's gate had the teacher write: ``none``, ``some`` (the policy's
            ``tokens``, or the next step of its ladder) or ``all``. None without a gate.
        predicted: Share of right answers that it expects of each amount. None without one.
        written_chars: Characters that the teacher wrote, before cutting.
        mode: The mode of the call.
        strategy: The same: how the answer was made.
        agreement: The share of the student's answers that say what the shown one says. None if
            it answered once.
        vote_fallback: Why no vote was taken though ``samples`` asked for one. None otherwise.
        signals: What the policy's gate has measured of the question, by name. Empty without one.
            ``tool_agreement``: the share of the student's turns with tools that do the same.
        call_id: The id of the call. ``gkt_call_id`` in the metadata of both child runs.
        teacher_prompt_share: About how long the prompt that the teacher was shown is, as a share
            of the whole conversation (estimated by characters). None if it was shown the whole.
        refusal: That the teacher or its provider's content filter refused, with the reason and
            what it said. None if it did not. See the chain's ``on_refusal``.
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
