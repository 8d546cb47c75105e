"""Dollars per finished task of two agents of several steps: ``python -m benchmarks.agents``.

The figures go into benchmarks/results/agents.json, and into docs/measurements/agents.md.

All models are fakes: the teacher is always right, and how often the student is right at a step is
a setting of this file. So the table shows how the ways spend, and what each spends is held against
a ledger of the fakes. How well a real student does is measured by `benchmarks.bfcl`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from benchmarks.agents_page import RESULTS, write_page
from langchain_gkt import GuidancePolicy, GuidedKnowledgeTransferChain, Price, track_costs
from langchain_gkt.advisor import AdvisorMiddleware
from langchain_gkt.gates import AgreementGate
from langchain_gkt.students.protocol import Student

PRICE = Price(input_mtok="0.15", output_mtok="0.60")
GATE = AgreementGate(samples=5, at_least=4)
RIGHT = (0.98, 0.9, 0.5)
"""How often the student's step is right: at easy, middling and hard steps, a third each."""
SAME_MISTAKE = 0.5
"""How many of its mistakes at one step are the same one."""
HELPED = {"plan": 0.5, "hint": 0.9}
"""The share of its mistakes that advice prevents."""
LAST = "All of it is done now, and here is a summary of every step for the customer. " * 3

Call = tuple[str, dict[str, str]]


def support(number: int) -> list[Call]:
    """The steps of a task of an agent that looks orders up and pays money back."""
    return [
        ("find_order", {"customer": f"customer-{number}"}),
        ("track", {"order": f"order-{number}"}),
        ("check_refund", {"order": f"order-{number}"}),
        ("refund", {"order": f"order-{number}"}),
    ]


def travel(number: int) -> list[Call]:
    """The steps of a task of an agent that plans a journey and books it."""
    return [
        ("weather", {"city": f"city-{number}"}),
        ("trains", {"city": f"city-{number}"}),
        ("hotels", {"city": f"city-{number}"}),
        ("compare", {"hotel": f"hotel-{number}"}),
        ("book", {"hotel": f"hotel-{number}"}),
    ]


AGENTS: dict[str, tuple[Callable[[int], list[Call]], str]] = {
    "support": (support, "refund"),
    "travel": (travel, "book"),
}
"""The steps of each agent's tasks, and its tool that pays."""


class Fake(BaseChatModel):
    """Makes the next step of a task, and notes what it is paid for that."""

    agent: str
    ledger: Any
    max_tokens: int | None = None
    temperature: float | None = None

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> Any:
        """Keep the tools, which count as a part of the prompt."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools])

    def _step(self, task: int, done: int, messages: list[BaseMessage], seed: int) -> Call | None:
        steps = AGENTS[self.agent][0](task)
        return steps[done] if done < len(steps) else None

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        said = "\n".join(str(message.text) for message in messages)
        asked = [str(m.text) for m in messages if isinstance(m, HumanMessage)]
        task = int(asked[0].split("#")[1].split()[0])
        done = said.count("result of step")
        step = (
            None
            if "You advise" in said
            else self._step(task, done, messages, kwargs.get("seed", 0))
        )
        text, calls = LAST, []
        if "You advise" in said:
            name, arguments = AGENTS[self.agent][0](task)[min(done, 3)]
            text = f"Call {name} with {json.dumps(arguments)}."
        elif step is not None:
            name, arguments = step
            text, calls = "", [{"name": name, "args": arguments, "id": f"{name}-{len(messages)}"}]
        used = (len(text) + len(json.dumps(calls)) * bool(calls)) // 4
        cut = self.max_tokens is not None and used > self.max_tokens and not calls
        if cut:
            text, used = text[: self.max_tokens * 4], self.max_tokens
        prompt = (len(said) + len(json.dumps(kwargs.get("tools") or []))) // 4
        self.ledger.append((prompt, used))
        message = AIMessage(
            text,
            tool_calls=calls,
            usage_metadata={
                "input_tokens": prompt,
                "output_tokens": used,
                "total_tokens": prompt + used,
            },
            response_metadata={"finish_reason": "length" if cut else "stop"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    def _llm_type(self) -> str:
        return "fake"


class FakeStudent(Student, Fake):
    """Is wrong now and then; see `RIGHT`."""

    def sample_arguments(self, index: int) -> dict[str, Any]:
        """Have the samples differ."""
        return {"seed": index}

    def _step(self, task: int, done: int, messages: list[BaseMessage], seed: int) -> Call | None:
        step = super()._step(task, done, messages, seed)
        if step is None:
            return None
        said = "\n".join(str(message.text) for message in messages)
        of_step = random.Random(f"{self.agent} {task} {done}")
        wrong = 1 - of_step.choice(RIGHT)
        usual = f"wrong-{of_step.random():.3f}"
        wrong *= 1 - HELPED["plan"] * ("A plan by" in said)
        wrong *= 1 - HELPED["hint"] * ("advisor says" in str(messages[-1].text))
        lot = random.Random(f"{self.agent} {task} {len(messages)} {seed}")
        if lot.random() >= wrong:
            return step
        name, arguments = step
        value = usual if lot.random() < SAME_MISTAKE else f"wrong-{lot.random():.3f}"
        return name, dict.fromkeys(arguments, value)


def tools_of(agent: str, paid: list[str]) -> list[StructuredTool]:
    """Make an agent's tools; what is paid is written down."""

    def tool_of(name: str, argument: str) -> StructuredTool:
        def run(value: str) -> str:
            if name == AGENTS[agent][1]:
                paid.append(value)
            return "nothing found" if value.startswith("wrong") else f"result of step {name}"

        schema = {
            "type": "object",
            "properties": {argument: {"type": "string"}},
            "required": [argument],
        }
        return StructuredTool(
            name=name,
            description=f"Does the step {name}.",
            args_schema=schema,
            func=lambda **given: run(given[argument]),
        )

    return [tool_of(name, *arguments) for name, arguments in AGENTS[agent][0](0)]


def ways(agent: str, teacher: Fake, student: FakeStudent) -> dict[str, dict[str, Any]]:
    """Return the ways to run an agent, as arguments of ``create_agent``."""

    def chain(**fields: Any) -> GuidedKnowledgeTransferChain:
        return GuidedKnowledgeTransferChain(teacher=teacher, student=student, **fields)

    reserved = GuidancePolicy(tools=GATE, teacher_tools=[AGENTS[agent][1]])
    advisor = AdvisorMiddleware(teacher, plan_tokens=60, gate=GATE)
    return {
        "teacher alone": {"model": chain(mode="teacher")},
        "chain as it is": {"model": chain()},
        "agreement": {"model": chain(guidance=GuidancePolicy(tools=GATE))},
        "agreement, paying tool reserved": {"model": chain(guidance=reserved)},
        "advisor": {"model": student, "middleware": [advisor]},
        "student alone": {"model": student},
    }


def measure(agent: str, way: str, tasks: int) -> dict[str, Any]:
    """Run an agent's tasks in one way.

    Returns:
        What came of it; ``dollars`` are for 1,000 finished tasks.

    Raises:
        RuntimeError: If the bill is not what the fakes have written down.
    """
    paid: list[str] = []
    teacher = Fake(agent=agent, ledger=[])
    student = FakeStudent(agent=agent, ledger=[])
    made = create_agent(tools=tools_of(agent, paid), **ways(agent, teacher, student)[way])
    finished = 0
    with track_costs(teacher_price=PRICE) as costs:
        for task in range(tasks):
            paid.clear()
            asked = {"messages": [("human", f"Do task #{task} now")]}
            state = made.invoke(asked, {"recursion_limit": 60})
            results = [m for m in state["messages"] if isinstance(m, ToolMessage)]
            done = sum("result of step" in str(m.text) for m in results)
            right_payment = [one for one in paid if not one.startswith("wrong")] == paid
            finished += done == len(AGENTS[agent][0](task)) and right_payment
    bill = costs.report().teacher
    owed = sum(
        PRICE.input_mtok * prompt + PRICE.output_mtok * used for prompt, used in teacher.ledger
    )
    if (bill.calls, bill.known_cost) != (len(teacher.ledger), owed / 10**6):
        raise RuntimeError(f"{way}: the bill says {bill.known_cost}, the ledger {owed / 10**6}")
    each = Decimal(bill.known_cost) / max(1, finished) * 1000
    return {
        "way": way,
        "finished": finished,
        "tasks": tasks,
        "teacher_calls": bill.calls,
        "student_answers": len(student.ledger),
        "dollars": float(each),
    }


def main() -> None:
    """Measure both agents in all ways, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=60)
    args = parser.parse_args()
    found = {}
    for agent in AGENTS:
        nobody = Fake(agent=agent, ledger=[]), FakeStudent(agent=agent, ledger=[])
        found[agent] = [measure(agent, way, args.tasks) for way in ways(agent, *nobody)]
    text = json.dumps(found, indent=1)
    (RESULTS / "agents.json").write_text(f"{text}\n", encoding="utf-8")
    write_page()


if __name__ == "__main__":
    main()
