"""Where a student goes on in a text that it would have written itself, it writes that text.

Teacher and student are the same model here, so what the student makes of its own beginning can
be compared with what it writes by itself.
"""

from __future__ import annotations

import json

import jsonschema
from langchain_core.messages import AIMessage, HumanMessage

from benchmarks.seams import compare, own_texts, sum_of
from langchain_gkt import HuggingFaceStudent

PROMPTS = [
    "Tom has 14 pens and gives away 5, then buys 3 boxes of 12. How many pens does he have? "
    "Explain step by step.",
    "Write a Python function that reverses the words in a sentence, with a docstring.",
    "Give a JSON object with name, age and three hobbies of a made-up person.",
    "用中文简单解释什么是机器学习。",
    "What is the temperature in Paris in May? Give numbers and a markdown table of three months.",
    "List five facts about the Moon as bullet points with numbers.",
]
CUTS = (1, 2, 3, 5, 8, 12, 17, 23, 30, 38, 47, 57)
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "age": {"type": "integer"},
        "hobbies": {"type": "array", "items": {"type": "string", "maxLength": 30}, "maxItems": 3},
    },
    "required": ["name", "age", "hobbies"],
}


def test_a_student_goes_on_with_its_own_text(seam_student: HuggingFaceStudent) -> None:
    own = own_texts(seam_student, PROMPTS, max(CUTS) + 22)
    counts = sum_of(compare(seam_student, own, CUTS, tokens=12))
    assert counts.cuts >= 60
    assert counts.equal >= 57 / 60 * counts.cuts, counts.differences
    assert counts.blank_faults == 0, counts.differences


def test_an_object_cut_anywhere_goes_on_as_a_valid_one(real: HuggingFaceStudent) -> None:
    value = {"name": "Tom Ford", "age": 41, "hobbies": ["riding bikes", "阅读 🎉"]}
    texts = [json.dumps(value, ensure_ascii=False, indent=indent) for indent in (None, 4)]
    question = HumanMessage("Describe a person as a JSON object.")
    begun = [text[:end] for text in texts for end in range(1, len(text), 5)]
    answers = real.batch(
        [[question, AIMessage(text)] for text in begun],
        response_format={"type": "json_schema", "json_schema": {"schema": PERSON}},
        max_tokens=48,
    )
    for text, answer in zip(begun, answers, strict=True):
        jsonschema.validate(json.loads(text + str(answer.text)), PERSON)
