"""Where a student goes on in a text that it would have written itself, it writes that text.

Teacher and student are the same model here, so what the student makes of its own beginning can
be compared with what it writes by itself.
"""

from __future__ import annotations

from benchmarks.seams import compare
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
CUTS = (3, 5, 8, 12, 17, 23, 30, 38, 47, 57)


def test_a_student_goes_on_with_its_own_text(real: HuggingFaceStudent) -> None:
    counts = compare(real, PROMPTS, CUTS, tokens=30)
    assert counts.cuts >= 50
    assert counts.equal >= 0.95 * counts.cuts, counts.differences
    assert counts.blank_faults == 0, counts.differences
