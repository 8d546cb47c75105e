"""Every entry point of a chat model, asked in the same way."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk

ENTRY_POINTS = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch", "astream_events")
"""The ways into a chat model that `answer` knows."""


async def answer(
    runnable: Any, entry_point: str, asked: Any, config: Any = None, **kwargs: Any
) -> AIMessage:
    """Ask a chat model, bound or not, through one of its entry points.

    Args:
        runnable: The model.
        entry_point: One of `ENTRY_POINTS`.
        asked: The prompt.
        config: Runnable config.
        **kwargs: Arguments of the call.

    Returns:
        The whole answer; for streams, the joined chunks.
    """
    if entry_point == "invoke":
        return runnable.invoke(asked, config, **kwargs)
    if entry_point == "ainvoke":
        return await runnable.ainvoke(asked, config, **kwargs)
    if entry_point == "stream":
        return joined(runnable.stream(asked, config, **kwargs))
    if entry_point == "astream":
        return joined([chunk async for chunk in runnable.astream(asked, config, **kwargs)])
    if entry_point == "batch":
        return runnable.batch([asked], config, **kwargs)[0]
    if entry_point == "abatch":
        return (await runnable.abatch([asked], config, **kwargs))[0]
    if entry_point == "astream_events":
        events = runnable.astream_events(asked, config, version="v2", **kwargs)
        ended = [e async for e in events if e["event"] == "on_chat_model_end"]
        return next(e for e in ended if not e["parent_ids"])["data"]["output"]
    raise ValueError(f"no entry point {entry_point!r}")


def joined(chunks: Any) -> AIMessageChunk:
    """Join the chunks of a stream."""
    whole = None
    for chunk in chunks:
        whole = chunk if whole is None else whole + chunk
    assert whole is not None, "the stream was empty"
    return whole
