"""Python programs of their own, and whether a process still runs."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch


def run_python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a Python of its own to its end, and catch what it writes.

    There is a limit for what hangs, which is out of reach of any load.
    """
    options = {"capture_output": True, "text": True, "timeout": 1800, **options}
    return subprocess.run([sys.executable, *arguments], check=False, **options)


def run_script(script: Path, *arguments: str) -> None:
    """Run a script in this process, whose libraries are loaded, as ``python script`` does."""
    with (
        patch.object(sys, "argv", [str(script), *arguments]),
        patch.object(sys, "path", [str(script.parent), *sys.path]),
    ):
        runpy.run_path(str(script), run_name="__main__")


def ends(pid: int) -> bool:
    """Say whether a process ends within a minute."""
    for _ in range(600):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        with open(f"/proc/{pid}/stat") as stat:  # a zombie has ended, but was not yet waited for
            if stat.read().rpartition(")")[2].split()[0] == "Z":
                return True
        time.sleep(0.1)
    return False
