"""SmolLM2 as an exported folder: by OpenVINO, beside the folder that it was made of."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_gkt import HuggingFaceStudent

pytest.importorskip("openvino_genai", reason="the extra 'openvino' is not installed")

QUESTIONS = ["Name three colours.", "Why is the sky blue?", "What is 17 + 25?"]
BEGUN = ["", "The answ", "First, ", "Step 1:\n", "日本", "<"]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "country": {"enum": ["France", "Spain"]}},
    "required": ["name", "country"],
}
FORMAT = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}


@pytest.fixture(scope="module")
def openvino() -> Iterator[HuggingFaceStudent]:
    folder = Path(os.environ.get("GKT_SMOLLM2_OPENVINO", ""))
    if not (folder / "openvino_model.xml").is_file():
        pytest.skip("set GKT_SMOLLM2_OPENVINO to SmolLM2 exported with --weight-format fp16")
    student = HuggingFaceStudent(model=folder, max_tokens=24, dtype="float32")
    yield student
    student.close()


def conversation(question: str, begun: str) -> list:
    return [HumanMessage(question), *([AIMessage(begun)] if begun else [])]


def test_text_is_that_of_torch(openvino, smollm2) -> None:
    assert openvino.backend == "openvino"
    asked = [conversation(q, b) for q in QUESTIONS for b in BEGUN]
    pairs = [(smollm2.invoke(m, max_tokens=24), openvino.invoke(m)) for m in asked]
    # Keys and values are kept in 8 bits, so a near tie may turn.
    assert sum(a.content == b.content for a, b in pairs) >= 0.8 * len(pairs)
    equal = [(a, b) for a, b in pairs if a.content == b.content]
    assert all(a.usage_metadata == b.usage_metadata for a, b in equal)


def test_streams_batches_and_probes(openvino, smollm2) -> None:
    answer = openvino.invoke(QUESTIONS[0])
    assert "".join(chunk.text for chunk in openvino.stream(QUESTIONS[0])) == answer.content
    answers = openvino.batch([[HumanMessage(f"Name {n} colours.")] for n in range(16)])
    assert all(one.content for one in answers)
    probed = openvino.probe([HumanMessage(QUESTIONS[0])], tokens=3)
    assert probed == pytest.approx(smollm2.probe([HumanMessage(QUESTIONS[0])], tokens=3), abs=0.05)


def test_seeds_are_kept_also_beside_others(openvino) -> None:
    options = {"temperature": 1.0, "seed": 5}
    alone = openvino.invoke(QUESTIONS[1], **options).content
    assert alone in [m.content for m in openvino.batch([QUESTIONS[1], QUESTIONS[0]], **options)]
    assert openvino.invoke(QUESTIONS[1], temperature=1.0, seed=6).content != alone


@pytest.mark.parametrize("begun", ["", '{"name": "Par', '{"name": "Paris", "cou'])
def test_a_begun_object_is_finished(openvino, begun) -> None:
    messages = conversation("Tell me of Paris.", begun)
    answer = openvino.invoke(messages, response_format=FORMAT, max_tokens=60)
    assert set(json.loads(begun + answer.content)) == {"name", "country"}
