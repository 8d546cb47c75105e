"""The guided pair in an LCEL pipeline: one answer, a stream, a batch, and the bill.

``pip install ".[demo]"``, then ``python examples/pipeline.py``. Takes some seconds.
"""

from __future__ import annotations

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_gkt import GuidedKnowledgeTransferChain, track_costs
from langchain_gkt.demo.pair import PRICE, STUDENT, demo_teacher

QUESTION = (
    "{name} has 29 shells. A parcel brings 15. He doubles them. How many shells are there now?"
)


def main() -> None:
    """Ask the same in three ways."""
    with demo_teacher() as embedded:
        teacher = embedded  # <- ChatOpenAI(model="gpt-4o-mini", stream_usage=True)
        student = STUDENT  # <- a Hugging Face model: a folder or hub id
        chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=18)
        pipeline = ChatPromptTemplate.from_template(QUESTION) | chain | StrOutputParser()
        with track_costs(teacher_price=PRICE) as costs:
            print(pipeline.invoke({"name": "Ben"}))
            for piece in pipeline.stream({"name": "Tom"}):
                print(piece, end="", flush=True)
            print()
            print(*pipeline.batch([{"name": "Max"}, {"name": "Jim"}]), sep="\n")
    print(costs.report())


if __name__ == "__main__":
    main()
