"""What LangChain tells a listener of runs, told by hand; and what a listener has left open."""

from __future__ import annotations

import uuid
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from langchain_gkt.costs.runs.listener import RunListener

PROMPT = [[HumanMessage("How many?")]]


def left_open(listener: RunListener) -> dict[str, Any]:
    """Return the runs, calls, roots, wrappers and watched tasks it still remembers, if any."""
    held = {
        "runs": listener._open,
        "calls": listener._calls,
        "roots": listener._roots,
        "wrappers": listener._wrappers,
        "tasks": listener._tasks._task_of,
    }
    return {name: one for name, one in held.items() if one}


def result(usage: tuple[int, int] | None, **metadata: Any) -> LLMResult:
    """Return a reply with usage: prompt and completion tokens."""
    counted: Any = usage and {
        "input_tokens": usage[0],
        "output_tokens": usage[1],
        "total_tokens": sum(usage),
    }
    message = AIMessage("Ten.", usage_metadata=counted, response_metadata=metadata)
    return LLMResult(generations=[[ChatGeneration(message=message)]])


def start(listener: RunListener, role: str, **metadata: Any) -> uuid.UUID:
    """Start a model's run; returns its id."""
    run_id = uuid.uuid4()
    known = {"gkt_role": role, "gkt_call_id": "1", "gkt_mode": "guided", "ls_model_name": role}
    known["gkt_compared"] = True
    listener.on_chat_model_start(
        {},
        PROMPT,
        run_id=run_id,
        parent_run_id=metadata.pop("parent", None),
        metadata={"ls_provider": "p", **known, **metadata},
    )
    return run_id


def guided_call(listener: RunListener, *, end: bool = True) -> None:
    """Tell of one guided call, the chain's own start left out."""
    root, call_id = uuid.uuid4(), str(uuid.uuid4())
    for role, usage in (("teacher", (9, 4)), ("student", (13, 5))):
        run_id = start(listener, role, parent=root, gkt_call_id=call_id)
        listener.on_llm_end(result(usage), run_id=run_id)
    if end:
        gkt = {
            "call_id": call_id,
            "finished_by": "student",
            "teacher_usage": {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13},
            "written_chars": 4,
        }
        listener.on_llm_end(result((22, 9), gkt=gkt), run_id=root)
