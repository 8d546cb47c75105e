"""What a model's reply says of itself is checked before anything is based on it."""

from __future__ import annotations

from langchain_core.messages import AIMessage

from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.metadata import Role
from langchain_gkt.teachers.replies import believed


def received(settings: CallSettings, reply: AIMessage, role: Role) -> AIMessage:
    """Leave out of a reply what cannot be true, and say so once.

    Args:
        settings: The settings of the call.
        reply: The reply.
        role: Whose it is.

    Returns:
        The reply, without absurd usage and halves of characters.
    """
    reply, refused = believed(reply)
    if refused:
        settings.warn_once(
            f"odd-usage-{role}",
            f"the {role} reported usage that cannot be true ({refused}), which is not believed; "
            "what it bills is not known. Fix its server.",
        )
    return reply
