"""Whether a written-out answer is right: a number, or an option's letter."""

from langchain_gkt.evaluation.scoring.answers import (
    exact_number,
    exact_option,
    extract_number,
    extract_option,
    number_matches,
    numbers_in,
    option_matches,
    states_number,
    states_option,
)

__all__ = [
    "exact_number",
    "exact_option",
    "extract_number",
    "extract_option",
    "number_matches",
    "numbers_in",
    "option_matches",
    "states_number",
    "states_option",
]
