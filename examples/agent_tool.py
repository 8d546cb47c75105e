"""The guided pair as a tool of an agent: a big model decides, the pair works word problems out.

``pip install ".[cli,demo]"``, then ``python examples/agent_tool.py``.
"""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt.demo.pair import STUDENT, demo_teacher

QUESTION = (
    "Ben has 29 shells. A parcel brings 15. He doubles them. How many shells does Ben have now?"
)


class Boss(GenericFakeChatModel):
    """Stands for a model that calls tools, which the embedded ones cannot."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """Take the tools; what is said is fixed."""
        return self


def main() -> None:
    """Let the agent ask the pair."""
    call = {"name": "word_problems", "args": {"question": QUESTION}, "id": "1"}
    boss = Boss(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("See above.")]))
    with demo_teacher() as embedded:
        teacher = embedded  # <- ChatOpenAI(model="gpt-4o-mini"), which may be the boss, too
        student = STUDENT  # <- a Hugging Face model: a folder or hub id
        chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=18)
        helper = chain.as_tool(name="word_problems", description="Works out a word problem.")
        agent = create_agent(model=boss, tools=[helper])
        state = agent.invoke({"messages": [("human", "Please work this out: " + QUESTION)]})
    for message in state["messages"]:
        message.pretty_print()


if __name__ == "__main__":
    main()
