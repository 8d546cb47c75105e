from __future__ import annotations

import re
import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_gkt.evaluation.scoring import (
    exact_number,
    extract_number,
    extract_option,
    number_matches,
    numbers_in,
    option_matches,
    states_number,
    states_option,
)
from langchain_gkt.evaluation.scoring.reference import reference_number, reference_option


def table(rows: dict[str, str]) -> list[tuple[str, str]]:
    """Pairs of a text and what it gives; texts are parted by bars or lines, ¶ is a line's end."""
    texts = [(text.strip(), want) for want, row in rows.items() for text in re.split(r"[|\n]", row)]
    return [(text.replace("¶", "\n"), want) for text, want in texts]


STATED = table(
    {
        "18": r"""The answer is 18. | So the answer is 18 | #### 18 | Answer: 18 | ANSWER = 18
        The answer is $18.00. | The answer is¶¶18¶ | The answer is \(18\) | The answer is _18_.
        Therefore, the answer, then, is 18 | **Final answer:** \$18
        the answer (arabic numerals) is 18 | The answer to how many eggs 12 ducks lay is 18.
        The answer is 16-7 = 9*2 = 18. | The answer is 9 eggs * $2 per egg, which is $18.
        The answer is 2x = 36, x = 18. | The answer is 18 = 9 * 2.
        The answer is 18 (9 x 2 = 18, and 1 = 1). | The answer is 18 because 20 - 1 = 19.
        The answer is that the 3 shirts are $18. | \boxed{18\text{ dollars}} for 7 days
        #### 1. Eat 3 eggs¶#### Step 2¶#### 18
        Answer: 18¶¶Explanation: 6 * 3 = 18, and 1 is not.
        Answer: $18 every day at the farmers' market.
        Answer: He has 15. 15 + 3 = 18. The answer is 18.
        If the answer is 5, it is odd. The answer is 18. | The answer is not 5. The answer is 18.
        The answer is unknown. The answer is 18. | The answer is 18. The answer is 21.
        The answer is 18.¶¶Q: And 7 * 3?¶A: The answer is 21.
        The answer is $9 \times 2$, which is 18. | The answer is $55/3 \approx 18$.
        \boxed{\text{Cost: }18} | **Answer**: 18 | Answer: \(18\)¶It was 9.
        The answer is 18, for 9 + 0 = 9. | The answer is 18/0 | The answer is 18 eggs (a = 9).""",
        "1234": r"The answer is 1\,234. | The answer is 1234 500 g bags.",
        "500": "The answer is Rs. 500. | The answer is ...500 | The answer is approx. 500",
        "50": r"The answer is 50\%. | The answer is 50.Then 7 = 7.",
        "-1234.5": r"The answer is -$1,234.50. | The answer is $\boxed{-1{,}234.5}$",
        "100000": "The answer is 1,00,000 rupees. | The answer is 100 000. | #### 100,000",
        "0.5": r"The answer is 1/2. | The answer is .5 | The answer is $\frac{1}{2}$. | #### 5e-1",
        "2.5": r"The answer is 2 1/2 cups. | The answer is 2½. | The answer is $2\frac{1}{2}$.",
        "-2.5": "The answer is -2 1/2. | The answer is -2.50.",
        "-7": """The answer is −7. | The answer is –7. | The answer is $-7. | The answer is (-7).
        The answer is minus 7. | #### negative $7""",  # noqa: RUF001
    }
)
UNSTATED = table(
    {
        "18": """16-18 | She makes $18 every day. | So he has 20 - 2 = 18 apples.
        Answer: 16 - 3 - 4 = 9 eggs. 9 * 2 = 18 dollars.
        Nine eggs make $18.¶¶Question: What is 7 * 3?¶Answer: 21
        The answer is unknown. But 18 came. | She has 9 * 3 = 27 eggs so 27 - 9 is 18.
        Answer: She sells 9 eggs and makes $18.
        That makes 9+9=<<9+9=18>>18 points in the 40 minutes."""
    }
)


@pytest.mark.parametrize(("text", "number"), STATED)
def test_stated_numbers(text: str, number: str) -> None:
    assert extract_number(text) == Decimal(number)
    assert extract_number(text, "strict") == Decimal(number)
    assert number_matches(text, number)


@pytest.mark.parametrize(("text", "number"), UNSTATED)
def test_numbers_without_a_statement(text: str, number: str) -> None:
    assert extract_number(text.partition("\n")[0], "strict") is None
    assert extract_number(text) == Decimal(number)


def test_the_ways_differ() -> None:
    text = "The answer is 18. Or 20?\n\nQ: 7 * 3?\nA: The answer is 21."
    assert [extract_number(text, how) for how in ("answer", "strict", "flexible")] == [18, 18, 21]
    later = "About 20.\nQ: 7 * 3?\nA: The answer is 21."
    assert [extract_number(later, how) for how in ("answer", "strict", "flexible")] == [20, 21, 21]
    assert extract_number("4 + 5 = 9 points in 40 minutes", "flexible") == 40
    assert extract_number("Q: 7 * 3?\nA: The answer is 21.") == 21  # the question comes first


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("16-3 and 5 - 3 and 5 -3", [16, 3, 5, 3, 5, 3]),
        ("3–5 pens, 10%-5%, COVID-19", [3, 5, 10, 5, 19]),  # noqa: RUF001
        ("x = -5, (-5), $-5, -$5, -US$5, +5", [-5, -5, -5, -5, -5, 5]),
        ("5€-3€ and €-2", [5, 3, -2]),
        ("- 3 apples", [3]),
        ("3, 15 and 3,15 and 3,150", [3, 15, 3, 15, 3150]),
        ("1,234,5 and 0,500 and 1,5", [1, 234, 5, 0, 500, 1, 5]),
        ("1\u00a0234\u00a0567, 1\u2009234, 1\u202f234", [1234567, 1234, 1234]),
        ("1 234 but $1 234", [1, 234, 1234]),
        ("1,00,000 and 12,34,567.5", [100000, Decimal("1234567.5")]),
        ("5kg 12th 3pm 50% US$7 ₹8", [5, 12, 3, 50, 7, 8]),
        ("A4 x2 H2O x_1, but 9x2=18", [9, 2, 18]),
        ("1e3 1.5E-3 2e 2**3", [1000, Decimal("0.0015"), 2, 2, 3]),
        ("He is 5. He has .5, 3.50 and end.5", [5, Decimal("0.5"), Decimal("3.5"), 5]),
        ("1/2 and five and **7** and _8_", [1, 2, 7, 8]),
        ("", []),
        ("., - $ #### 1st...5", [1, 5]),
    ],
)
def test_numbers_in_a_text(text: str, numbers: list[Decimal]) -> None:
    assert numbers_in(text) == numbers


@pytest.mark.parametrize(
    ("gold", "value"),
    [
        ("#### 70,000", 70000),
        ("The answer is 5, no.\n#### 18", 18),
        ("$1,234.50", "1234.5"),
        ("-3", -3),
        (18, 18),
        (18.0, 18),
        (0.1, "0.1"),
        (1e22, 10**22),
        (Decimal("-2.50"), "-2.5"),
        ("1/2", "0.5"),
    ],
)
def test_gold_numbers(gold, value) -> None:
    assert exact_number(gold) == Decimal(value)
    assert number_matches(f"The answer is {value}.", gold)
    assert not number_matches(f"The answer is {Decimal(value) + 1}.", gold)


@pytest.mark.parametrize("gold", ["", "none", "####", True, float("nan"), Decimal("Infinity")])
def test_gold_without_a_number_is_refused(gold) -> None:
    for call in (number_matches, reference_number, states_number):
        with pytest.raises(ValueError, match="gold must hold a number"):
            call("The answer is 1.", gold)


def test_numbers_are_compared_exactly() -> None:
    long = "123456789012345678901234567890.125"
    assert number_matches(f"The answer is -{long}.", f"-{long}")
    assert not number_matches(f"The answer is -{long}1.", f"-{long}")
    assert not number_matches("The answer is 33.33.", 33)
    assert not number_matches("no number", 0)


SEPARATORS = [",", "\u00a0", "\u2009", "\u202f"]
FRAMES = [
    *("The answer is {}.", "So, the answer is: **{}**.", "ANSWER = {}\n", "Answer: {}", "#### {}"),
    *("$\\boxed{{{}}}$", "Count. The final answer is {}", "We sell eggs. That makes {}!"),
    *("In the end (as said) there are {} left.", "({})", "{}"),
]


@st.composite
def written(draw: st.DrawFn) -> tuple[str, Decimal]:
    """A number, written in one of the usual ways."""
    whole = draw(st.integers(0, 10**12))
    part = draw(st.sampled_from(["", ".0", ".50", ".125"]))
    digits = draw(st.sampled_from([str(whole), f"{whole:,}"]))
    digits = digits.replace(",", draw(st.sampled_from(SEPARATORS)))
    money = draw(st.sampled_from(["", "$", "€", "£", "₹", "US$", "\\$"]))
    sign = draw(st.sampled_from(["", "-", "−", "–", "+"]))  # noqa: RUF001
    unit = draw(st.sampled_from(["", "%", "\\%", "kg", " dollars", "€", " eggs", "pm"]))
    before = money + sign if money and sign != "+" and draw(st.booleans()) else sign + money
    return f"{before}{digits}{part}{unit}", Decimal(f"{'-' * (sign not in ('', '+'))}{whole}{part}")


@given(number=written(), frame=st.sampled_from(FRAMES))
def test_any_number_written_in_any_usual_way_comes_back(number, frame: str) -> None:
    text, value = number
    assert numbers_in(frame.format(text)) == [value]
    for how in ("answer", "flexible"):
        assert extract_number(frame.format(text), how) == value
    assert number_matches(frame.format(text), value)
    assert not number_matches(frame.format(text), value + 1)


@given(st.lists(st.integers(0, 999), min_size=2, max_size=5))
def test_lists_and_differences_are_several_numbers(values: list[int]) -> None:
    for between in (", ", "-", " - ", " -", "–", " and ", "/", "x", "\n"):  # noqa: RUF001
        assert numbers_in(between.join(map(str, values))) == values


@given(st.integers(-(10**7), 10**7), st.booleans(), st.sampled_from([".", ".\n\nQ: Why?\nA: So."]))
def test_plain_answers_agree_with_lm_evaluation_harness(value: int, comma: bool, end: str) -> None:
    number = f"{value:,}" if comma else str(value)
    for text in (
        f"It takes 3 and 4. The answer is {number}{end}",
        f"He buys 3, then {number}{end}",
    ):
        for how, group in (("strict", strict_match(text)), ("flexible", flexible_extract(text))):
            found = extract_number(text, how)
            assert (None if found is None else str(found)) == group


def strict_match(text: str) -> str | None:
    found = re.search(r"The answer is (\-?[0-9\.\,]+).", text)
    return found and tidy(found[1])


def flexible_extract(text: str) -> str | None:
    found = re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", text)
    return tidy(found[-1][0] or found[-1][1]) if found else None


def tidy(text: str) -> str:
    return re.sub(r"\.$", "", re.sub(r"[,$]", "", text))


OPTIONS = table(
    {
        "A": "The answer is A bank | Answer: A (bank). | A) 21",
        "B": r"""the best option is (B) mall | The answer is B mall | the answer is b, a mall
        The answer is a revolving door (B). | The answer is the mall, which is option (B).
        The answer is (B), not (C). | The answer is I think (B)
        The answer is not (A). The answer is (B).
        (B) is the correct answer because (A) is wrong | x = 230¶B
        b | B. | (b) | **B** | B: mall | Option B - mall
        The answer is (B).¶¶Q: Where?¶A: The answer is (C).""",
        "C": r"""The answer is C and not B | The most likely answer is C: mall
        The answer is probably (c). | Answer: C | ANSWER:C | Ans. C | answer.C
        $\boxed{\text{(C)}}$ | $\boxed{\textbf{(C)}\ 20}$
        C. mall¶¶The others, (A) and (B), are wrong.""",
        "D": "The answer must be a place (A). So the answer is (d). | so 3 + 4 = 7¶Answer D",
        "E": """The answer is (E). | The answer is E) | The answer is ‘E’. | The answer is “e”
        The correct answer is option E | So the answer is choice (e). | The answer is letter E""",  # noqa: RUF001
    }
)
UNSTATED_OPTIONS = table(
    {
        "A": "making A the right pick",
        "B": """Of (A) and (B), only one is left: (B) in the end | (A) is far, and B) fits
        A) 21, B) 22 and | So (B).¶Q: Where? Answer choices: (A) x (C) y""",
        "D": """Hence D. The mall is best | Well, Option D. The mall
        P(A) = 1/2 and (x + B) = 3, so I say D now""",
    }
)
NO_OPTION = table(
    {
        "": """The answer is a revolving door | A revolving door is used at a bank.
        Answer: A revolving door | The answer is (A) or (B). | The answer is B/C
        The answer is (F) | The answer is E-mail | It melts at 20 °C, or 20 C, with 5 A
        It holds vitamin C | John D. Rockefeller and C. S. Lewis came | f(a) = 3 and B = 2
        E.g. a mall | The answer is A.M. | The answer is A’s | """  # noqa: RUF001
    }
)


@pytest.mark.parametrize(("text", "letter"), OPTIONS)
def test_stated_options(text: str, letter: str) -> None:
    assert extract_option(text) == extract_option(text, "strict") == letter
    for gold in "ABCDE":
        assert option_matches(text, gold) is (gold == letter)


@pytest.mark.parametrize(("text", "letter"), UNSTATED_OPTIONS)
def test_options_without_a_statement(text: str, letter: str) -> None:
    assert extract_option(text, "strict") is None
    assert extract_option(text) == letter


@pytest.mark.parametrize(("text", "nothing"), NO_OPTION)
def test_what_is_no_option(text: str, nothing: str) -> None:
    assert (extract_option(text) or "") == nothing


def test_options_and_their_gold_are_checked() -> None:
    text = "Not (D). The answer is (E)."
    assert extract_option(text, options="abcd") is None  # what is stated is none of them
    assert extract_option(text, "flexible", options="ABCD") == "D"
    assert option_matches(text, "(e)")
    with pytest.raises(ValueError, match="options must be letters"):
        extract_option(text, options="1234")
    for bad in ("F", "", "AB", "1"):
        for call in (option_matches, reference_option):
            with pytest.raises(ValueError, match="gold must be a letter"):
                call(text, bad)
    for call in (extract_number, extract_option):
        with pytest.raises(ValueError, match="how must be 'answer', 'strict' or 'flexible'"):
            call(text, "last")


@given(
    letter=st.sampled_from("ABCDE"),
    written_as=st.sampled_from(["({})", "{})", "**{}**", "{}.", "[{}]", "**({})** mall", "{}: 12"]),
    frame=st.sampled_from(
        ["The answer is {}", "So the best option is {}", "Answer: {}", "#### {}", "{}", "Thus:\n{}"]
    ),
    small=st.booleans(),
)
def test_any_option_comes_back(letter: str, written_as: str, frame: str, small: bool) -> None:
    shown = letter.lower() if small and written_as[0] in "([" else letter
    assert extract_option(frame.format(written_as.format(shown))) == letter


def test_whether_a_guidance_gives_a_number_away() -> None:
    assert states_number("9 * 2 = 18, so", "#### 18", "She has 9 eggs at $2.")
    assert not states_number("She has 18 eggs.", 18, "She has 18 eggs. How many are left?")
    assert states_number("The answer is 18.", 18, "She has 18 eggs. How many are left?")
    assert not states_number("First, 9 * 2 is", 18)
    assert not states_number("It costs 1.8 or 180", 18)


@pytest.mark.parametrize(
    ("guidance", "given_away"),
    [
        ("It is near a department\nstore", "C"),
        ("It is near a Department Store or a bank", ""),
        ("A store and a department store", ""),
        ("A STORE is", "B"),
        ("Many banks and stores", ""),
        ("They cost 5.5 dollars", "D"),
        ("They cost 5 dollars", "E"),
        ("So (B)", "B"),
        ("The answer is B", "B"),
        ("Of (A), (B), (C), (D) and (E)", ""),
        ("", ""),
    ],
)
def test_whether_a_guidance_gives_an_option_away(guidance: str, given_away: str) -> None:
    choices = {"A": "bank", "B": "store", "C": "department store", "D": "5.5", "E": "5"}
    assert "".join(key for key in choices if states_option(guidance, key, choices)) == given_away
    with pytest.raises(ValueError, match="gold must be one of the choices A, B"):
        states_option(guidance, "E", {"A": "bank", "B": "store"})
    assert not states_option(guidance, "A", {"A": "store", "B": "store"})
    assert states_option("a store", "A", {"A": "store", "B": ""})


@given(st.text(alphabet="Aae b(){}$\\\n.,-–=+/15 :#*'\"½°_", max_size=60))  # noqa: RUF001
def test_no_text_is_too_odd(text: str) -> None:
    for how in ("answer", "strict", "flexible"):
        found = extract_number(text, how)
        assert found is None or found.is_finite()
        assert extract_option(text, how) in {None, "A", "B", "E"}


@pytest.mark.parametrize(
    "piece", ["1", "1,", ",234", "=1", "(", "(A ", "*", "\n", " ", "-", "A", "####", "$5-"]
)
def test_a_model_that_repeats_itself_costs_no_time(piece: str) -> None:
    text = f"The answer is {piece * 5000}x"
    begun = time.thread_time()
    for how in ("answer", "strict", "flexible"):
        extract_number(text, how)
        extract_option(text, how)
    assert time.thread_time() - begun < 5  # quadratic patterns took minutes


@pytest.mark.parametrize(
    ("text", "question", "papers"),
    [
        ("The answer is 18.", "", 18),
        ("THE ANSWER IS 18", "", 18),
        ("The answer is 3, 15", "", 315),
        ("The answer is -3.", "", 3),
        ("The answer is 3.5", "", 5),
        ("The answer is 18 of 20", "", 20),
        ("The answer is 3.5. The answer is 7.", "", 3),
        ("The answer is 18 of 20. The answer is 7.", "", 18),
        ("No idea", "He has 5 pens and 6 cups.", 6),
        ("No idea", "Q: 5? The answer is 4. Q: 6 and 7?", 7),
        ("It is 8", "Q: 5? The answer is 4.", 8),
    ],
)
def test_how_the_papers_code_reads_numbers(text: str, question: str, papers: int) -> None:
    assert reference_number(text, papers, question=question)
    assert not reference_number(text, papers + 1, question=question)


def test_the_papers_code_draws_missing_answers() -> None:
    drawn = [[n for n in range(-5, 120) if reference_number("no idea", n)] for _ in "ab"]
    assert len(drawn[0]) == 1
    assert drawn[0] == drawn[1]
    hit = {n for n in (0, 100, 101) for i in range(2000) if reference_number("-", n, seed=i)}
    assert hit == {0, 100}
    texts = [f"The answer is (E){i}" for i in range(100)]
    assert {x for x in "ABCDE" for text in texts if reference_option(text, x)} == {*"ABCD"}
    assert any(reference_option("no idea", "E", options="ABCDE", seed=seed) for seed in range(100))
    with pytest.raises(ValueError, match="options must be letters"):
        reference_option("no idea", "A", options="")


def test_how_the_papers_code_reads_options() -> None:
    assert reference_option("The answer is E. The answer is A.", "E")
    assert reference_option("The answer is Bank", "B")
    missed = [reference_option("the answer is B", "B", seed=seed) for seed in range(100)]
    assert 10 < sum(missed) < 40  # lower case is not found: chance
