"""``python -m langchain_gkt``: the command line."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Run the command line, or print what it needs. Return the exit status."""
    try:
        from langchain_gkt.cli import app
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.stderr.write(
            'langchain-gkt: the command line needs typer: pip install "langchain-gkt[cli]"\n'
        )
        return 1
    except KeyboardInterrupt:
        return 130
    return app.main(argv)


if __name__ == "__main__":
    sys.exit(main())
