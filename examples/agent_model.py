"""The guided pair as the model of an agent, with a budget over all of its calls.

``pip install ".[cli,demo]"``, then ``python examples/agent_model.py``.
"""

from __future__ import annotations

from langchain.agents import create_agent

from langchain_gkt import Budget, Price
from langchain_gkt.demo.pair import STUDENT, demo_teacher
from langchain_gkt.middleware import BudgetMiddleware, GuidanceMiddleware

QUESTION = (
    "Ben has 29 shells. A parcel brings 15. He doubles them. How many shells does Ben have now?"
)


def main() -> None:
    """Ask the agent."""
    price = Price(input_mtok="0.15", output_mtok="0.60")
    with demo_teacher() as embedded:
        teacher = embedded  # <- ChatOpenAI(model="gpt-4o-mini")
        student = STUDENT  # <- a Hugging Face model: a folder or hub id
        budget = BudgetMiddleware(Budget(usd="0.01"), teacher_price=price)
        agent = create_agent(
            model=teacher,
            tools=[],  # the embedded teacher knows none. With yours, tool calls are its own
            middleware=[budget, GuidanceMiddleware(student=student, guidance_tokens=18)],
        )
        state = agent.invoke({"messages": [("human", QUESTION)]})
    for message in state["messages"]:
        message.pretty_print()
    print("guidance:", state["messages"][-1].response_metadata["gkt"]["guidance"])
    print(budget.report())


if __name__ == "__main__":
    main()
