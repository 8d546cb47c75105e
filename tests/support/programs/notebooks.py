"""Notebooks in this process, whose libraries are loaded, on fewer rows."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any

import nbformat
from IPython.core.formatters import DisplayFormatter
from IPython.core.pylabtools import print_figure
from matplotlib.figure import Figure


def with_less(text: str, less: Mapping[str, str]) -> str:
    """Put smaller amounts into a program; each must stand in it."""
    for much, little in less.items():
        assert much in text, f"{much!r} is not in the program; give what stands there now"
        text = text.replace(much, little)
    return text


def run_notebook(
    path: Path, *, less: Mapping[str, str] = MappingProxyType({})
) -> Iterator[dict[str, Any]]:
    """Run a notebook's cells from top to bottom; yield what each displays, by its kind.

    As in a kernel, a loop runs in the thread that the cells run in.

    Args:
        path: The notebook.
        less: What of the code is replaced by what, so that it takes less time.
    """
    cells = nbformat.read(path, as_version=4).cells
    code = with_less("\0".join(c.source for c in cells if c.cell_type == "code"), less)
    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type(Figure, print_figure)
    space: dict[str, Any] = {"__name__": "__main__"}

    async def run(source: str) -> Any:
        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, path, "exec"), space)
        if isinstance(last, ast.Expr):
            return eval(compile(ast.Expression(last.value), path, "eval"), space)
        return None

    loop = asyncio.new_event_loop()
    with closing(loop):
        for source in code.split("\0"):
            value = loop.run_until_complete(run(source))
            if value is not None:
                yield formatter.format(value)[0]
