"""Calculates the lines of a text that are plain arithmetic, exactly and safely."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from contextlib import suppress
from decimal import Context, Decimal
from fractions import Fraction

_MOST_DIGITS = 60
"""Larger numbers are not steps of a worked answer, and could take all memory."""

_LONGEST = 300
"""Maximum characters of a line. Deeper expressions could pass the recursion limit."""

_SIGNS = str.maketrans({"×": "*", "÷": "/", "·": "*", "\u2212": "-", "\u2013": "-", "^": "**"})  # noqa: RUF001
_MARKER = re.compile(r"\A\s*(?:[-*•]\s+|\(?\d+[.):]\s+|[Ss]tep\s+\d+[.:]\s*)")
_MARKS = re.compile(r"[$€£¥₹`]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%(?!\s*[\d(])")
_TIMES = re.compile(r"(?<=[\d)])\s*[xX]\s*(?=[\d(])")
_NAME = re.compile(r"[A-Za-z][\w ]*")

_BINARY: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: operator.mod,
}


class _Numbers(ast.NodeTransformer):
    """Replaces names by their numbers."""

    def __init__(self, known: dict[str, Fraction]) -> None:
        self._known = known

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.parse(written(self._known[node.id]), mode="eval").body


def worked_lines(text: str) -> str:
    """Return the lines that are calculations, with their results.

    Args:
        text: Lines such as ``left = 16 - 3 - 4`` or ``left * 2``. A name stands for the result of
            an earlier line. Results in the text are calculated again. Other lines are left out.
    """
    known, lines = dict[str, Fraction](), list[str]()
    for line in text.splitlines():
        if len(line) > _LONGEST:
            continue
        with suppress(ValueError, ZeroDivisionError):  # not arithmetic
            lines.append(_worked(line, known))
    return "".join(f"{line}\n" for line in lines)


def _worked(line: str, known: dict[str, Fraction]) -> str:
    """Calculate one line, and note its name."""
    label, expression = _parts(line)
    tree = _tree(expression, known)
    value = _value(tree, known)
    steps = [ast.unparse(tree)]
    if (with_numbers := ast.unparse(_Numbers(known).visit(tree))) != steps[0]:
        steps.append(with_numbers)
    # A number alone, such as `eggs = 16`, is not a calculation with a result to show.
    if steps[-1] != written(value):
        steps.append(written(value))
    if label:
        known[re.sub(r"\W+", "_", label.lower())] = value
        steps.insert(0, label)
    return " = ".join(steps)


def _parts(line: str) -> tuple[str, str]:
    """Split a line into the name of the result and the expression."""
    line = _MARKER.sub("", line.partition("#")[0]).translate(_SIGNS).strip().rstrip(".;")
    line = _THOUSANDS.sub("", _MARKS.sub("", line))
    label, equals, rest = line.replace(":", "=", 1).partition("=")
    label = label.strip()
    if equals and _NAME.fullmatch(label):
        line = rest
    else:
        label = ""
    # After a further equals sign comes the teacher's own result.
    expression = _PERCENT.sub(r"(\1 / 100)", line.partition("=")[0])
    return label, " ".join(_TIMES.sub(" * ", expression).split())


def _tree(expression: str, known: dict[str, Fraction]) -> ast.expr:
    for name in sorted(known, key=len, reverse=True):
        spaced = name.replace("_", r"[_ ]")
        expression = re.sub(rf"(?<![\w]){spaced}(?!\w)", name, expression, flags=re.IGNORECASE)
    try:
        return ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(expression) from error


def _value(node: ast.expr, known: dict[str, Fraction]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = Fraction(str(node.value))
    elif isinstance(node, ast.Name) and node.id in known:
        value = known[node.id]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand, known) * (-1 if isinstance(node.op, ast.USub) else 1)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        base, power = _value(node.left, known), _value(node.right, known)
        if power.denominator != 1 or not 0 <= power <= 20:
            raise ValueError("a power that is no small whole number")
        value = base ** int(power)
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        value = _BINARY[type(node.op)](_value(node.left, known), _value(node.right, known))
    else:
        raise ValueError(ast.dump(node))
    if max(abs(value.numerator), value.denominator) > 10**_MOST_DIGITS:
        raise ValueError("a number too large for a step")
    return value


def written(value: Fraction) -> str:
    """Write a number as a worked answer would, with at most eight significant digits."""
    if value.denominator == 1:
        return str(value.numerator)
    number = Context(prec=8).divide(Decimal(value.numerator), Decimal(value.denominator))
    return f"{number.normalize():f}"
