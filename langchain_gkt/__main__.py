"""``python -m langchain_gkt``: the command line."""

from __future__ import annotations

import sys

from langchain_gkt.cli.app import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
