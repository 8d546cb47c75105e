"""Whether a written-out answer is right: a number, or an option's letter."""

from langchain_gkt.texts.numbers import (
    exact_number,
    extract_number,
    number_matches,
    numbers_in,
    states_number,
)
from langchain_gkt.texts.options import exact_option, extract_option, option_matches, states_option

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
