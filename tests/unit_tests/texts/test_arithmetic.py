"""Lines of plain arithmetic are calculated exactly, and nothing else is."""

from __future__ import annotations

import pytest

from langchain_gkt.texts.arithmetic import worked_lines


@pytest.mark.parametrize(
    ("text", "worked"),
    [
        (
            "left = 16 - 3 - 4\nmoney = left * 2",
            "left = 16 - 3 - 4 = 9\nmoney = left * 2 = 9 * 2 = 18",
        ),
        # Names with blanks, numbering, signs of money and of multiplication.
        (
            "1. eggs left = 16 - 7\n2. money: Eggs left \u00d7 $2",
            "eggs left = 16 - 7 = 9\nmoney = eggs_left * 2 = 9 * 2 = 18",
        ),
        ("- 3x4", "3 * 4 = 12"),
        ("tip = 1,200 * 20%", "tip = 1200 * (20 / 100) = 240"),
        ("part = 1/3", "part = 1 / 3 = 0.33333333"),
        ("sum = 0.1 + 0.2", "sum = 0.1 + 0.2 = 0.3"),
        # A result that the teacher wrote is calculated again.
        ("a = 17 * 3 = 41.", "a = 17 * 3 = 51"),
        ("eggs = 16\nleft = eggs - 20", "eggs = 16\nleft = eggs - 20 = 16 - 20 = -4"),
        ("n = 5\nn = n * 2\nn + 1", "n = 5\nn = n * 2 = 5 * 2 = 10\nn + 1 = 10 + 1 = 11"),
        ("a = 2\nab = a + 1\nab * a", "a = 2\nab = a + 1 = 2 + 1 = 3\nab * a = 3 * 2 = 6"),
        ("a = 6 # apples\n`a / 4`", "a = 6\na / 4 = 6 / 4 = 1.5"),
        ("days = 7^2", "days = 7 ** 2 = 49"),
    ],
)
def test_results_are_written_out(text, worked) -> None:
    assert worked_lines(text) == f"{worked}\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "First we count the eggs.",
        "total = 5 + 6 eggs",
        "unknown * 2",
        "1 / 0",
        "5 % 0",
        "9 ** 9 ** 9",
        "2 ** 0.5",
        "2 ** -1",
        "7 ** 20 ** 3 ** 2",
        "9" * 200 + " * 2",
        "1e999 * 2",
        "1j * 2",
        "'a' * 3",
        "True + 1",
        "(lambda: 1)()",
        "__import__('os').getcwd()",
        "[1, 2][0]",
        "1 < 2",
        "(" * 2000 + "1" + ")" * 2000,
        "+".join("1" * 5000),
    ],
)
def test_what_is_no_arithmetic_is_left_out(text) -> None:
    assert worked_lines(text) == ""
    assert worked_lines(f"{text}\n1 + 1\n{text}") == "1 + 1 = 2\n"
