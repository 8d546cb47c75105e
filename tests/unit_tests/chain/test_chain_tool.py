"""The chain as a tool."""

from __future__ import annotations

import pytest
from pydantic import BaseModel
from support.models.fakes import Recorder, make


async def test_the_tool_returns_text(teacher, whole_student, problem) -> None:
    chain = make(teacher, whole_student, guidance_tokens=len(problem.plan) + 3)
    tool = chain.as_tool(name="solve", description="Solves word problems.")
    recorder = Recorder()
    assert tool.invoke({"question": problem.question}, {"callbacks": [recorder]}) == (
        problem.solution
    )
    assert await tool.ainvoke({"question": problem.question}) == problem.solution
    (own,) = recorder.by_role(None)
    assert own["parent"] is not None
    assert {r["parent"] for r in recorder.by_role("teacher")} == {own["id"]}
    called = tool.invoke(
        {"name": "solve", "args": {"question": problem.question}, "id": "1", "type": "tool_call"}
    )
    assert (called.content, called.name) == (problem.solution, "solve")
    assert set(tool.args) == {"question"}

    class Two(BaseModel):
        topic: str
        length: int

    for two in (chain.as_tool(Two), chain.as_tool(arg_types={"topic": str, "length": int})):
        two.invoke({"topic": "cats", "length": 3})
        assert teacher.asked[-1]["messages"][0].text == "topic: cats\nlength: 3"
    with pytest.raises(ValueError, match="not both"):
        chain.as_tool(Two, arg_types={"a": str})
