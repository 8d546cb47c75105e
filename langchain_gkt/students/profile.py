"""The profile of a local student."""

from __future__ import annotations

from langchain_core.language_models import ModelProfile


def student_profile(window: int | None, max_tokens: int, knows_tools: bool) -> ModelProfile:
    """Return a student's limits and abilities.

    Args:
        window: Tokens of its context, or None for no limit.
        max_tokens: Maximum tokens of an answer.
        knows_tools: Whether its chat template has a place for tools.

    Returns:
        The profile.
    """
    profile = ModelProfile(
        max_output_tokens=min(max_tokens, window or max_tokens),
        text_inputs=True,
        text_outputs=True,
        image_inputs=False,
        open_weights=True,
        tool_calling=knows_tools,
        tool_choice=knows_tools,
        structured_output=False,
        temperature=True,
    )
    if window:
        profile["max_input_tokens"] = window
    return profile
