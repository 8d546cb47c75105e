"""The command line: ``python -m langchain_gkt`` or ``langchain-gkt``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Read the command line and run what it asks for.

    Args:
        argv: The arguments, without the program's name; None for those of the process.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="langchain-gkt",
        description="A big teacher begins each answer, a small local student finishes it.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo", help="compare teacher, student and guided on the two embedded models"
    )
    demo.add_argument("--rows", type=int, default=60, help="problems to answer (default: 60)")
    demo.add_argument(
        "--guidance-tokens", type=int, default=18, help="tokens the teacher writes (default: 18)"
    )
    demo.add_argument("--seed", type=int, default=7, help="seed of the problems (default: 7)")
    demo.add_argument("--out", type=Path, default=Path("demo_output"), help="folder of the chart")
    args = parser.parse_args(argv)
    if args.rows < 1:
        parser.error(f"--rows must be 1 or more, not {args.rows}")
    if args.guidance_tokens < 1:
        parser.error(f"--guidance-tokens must be 1 or more, not {args.guidance_tokens}")
    try:
        from langchain_gkt.demo.show import run
    except ImportError as error:
        parser.exit(1, f'{error}\nThe demo needs more: pip install "langchain-gkt[demo]"\n')
    try:
        run(rows=args.rows, guidance_tokens=args.guidance_tokens, seed=args.seed, out=args.out)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
