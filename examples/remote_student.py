"""The student runs behind a server of its own, as with vLLM, SGLang, llama-server or Ollama.

``pip install ".[demo]"``, then ``python examples/remote_student.py``.
The embedded student's server stands for yours: it takes the fields that vLLM takes.
"""

from __future__ import annotations

from langchain_openai import ChatOpenAI

from langchain_gkt import GuidedKnowledgeTransferChain, remote_student
from langchain_gkt.demo.cloud import LocalCloud
from langchain_gkt.demo.pair import STUDENT, demo_teacher

QUESTION = (
    "Ben has 29 shells. A parcel brings 15. He doubles them. How many shells does Ben have now?"
)


def main() -> None:
    """Ask once."""
    with demo_teacher() as embedded, LocalCloud(STUDENT, name="student") as server:
        local = {"model": server.name, "base_url": server.base_url, "api_key": "local"}
        teacher = embedded  # <- ChatOpenAI(model="gpt-4o-mini")
        client = ChatOpenAI(**local, temperature=0)  # <- your server's base_url and model
        chain = GuidedKnowledgeTransferChain(
            teacher=teacher, student=remote_student(client, engine="vllm"), guidance_tokens=18
        )
        message = chain.invoke(QUESTION)
    print(message.text)
    print("guidance:", message.response_metadata["gkt"]["guidance"])


if __name__ == "__main__":
    main()
