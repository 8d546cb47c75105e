"""Recognises a teacher's refusal: in its own words, or by its provider's content filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage

from langchain_gkt.errors import GuidanceError
from langchain_gkt.providers.errors import status_of
from langchain_gkt.teachers.replies import finish_reason

_REASONS = {
    "content_filter",  # OpenAI, Azure, Mistral
    "content_filtered",  # Bedrock
    "guardrail_intervened",  # Bedrock
    "refusal",  # Anthropic
    "safety",  # Google. The next ones, too
    "blocklist",
    "prohibited_content",
    "spii",
    "image_safety",
}
_CODES = ("content_filter", "content_policy_violation", "responsibleaipolicyviolation")


class TeacherRefused(GuidanceError):
    """The teacher, or its provider's content filter, refused and left no words to show."""

    hint = (
        "reword the question, or set on_refusal='student' to have the student answer what the "
        "teacher refuses"
    )


@dataclass(frozen=True)
class Refusal:
    """A teacher's refusal."""

    reason: str  # the provider's own word for it, such as content_filter, or refusal
    text: str  # its words instead of an answer, if any

    def __str__(self) -> str:
        """Return the reason, and the text."""
        return f"{self.reason}: {self.text}" if self.text else self.reason


def refusal_in(reply: AIMessage) -> Refusal | None:
    """Find a refusal in a reply. One in the form of an ordinary answer cannot be recognised."""
    words = reply.additional_kwargs.get("refusal")
    if not words and isinstance(reply.content, list):
        blocks = [block for block in reply.content if isinstance(block, dict)]
        own = [b for b in blocks if b.get("type") in ("refusal", "non_standard")]
        texts = [b.get("refusal") or (b.get("value") or {}).get("refusal") for b in own]
        words = "".join(str(text) for text in texts if text)
    reason = finish_reason(reply)
    if reason is not None and reason.lower() in _REASONS:
        return Refusal(reason.lower(), str(words or reply.text))
    if words:
        return Refusal("refusal", str(words))
    blocked = (reply.response_metadata.get("prompt_feedback") or {}).get("block_reason")
    if blocked and not str(reply.text):  # Google's
        return Refusal(f"prompt blocked ({blocked})", "")
    return None


def is_refusal(error: BaseException) -> bool:
    """Whether a call's error is a refusal: ours, or a content filter's answer to the prompt."""
    if isinstance(error, TeacherRefused):
        return True
    body: Any = getattr(error, "body", None)
    body = body if isinstance(body, dict) else {}
    inner = body.get("error") if isinstance(body.get("error"), dict) else body
    codes = (getattr(error, "code", None), inner.get("code"), inner.get("type"))
    return any(isinstance(code, str) and code.lower() in _CODES for code in codes)


def refused(error: BaseException) -> TeacherRefused:
    """Return the error to raise for one for which `is_refusal` is true."""
    if isinstance(error, TeacherRefused):
        return error
    refusal = TeacherRefused(
        f"the provider's content filter refused the prompt: {error}",
        hint=TeacherRefused.hint,
        status=status_of(error),
    )
    refusal.__cause__ = error
    return refusal
