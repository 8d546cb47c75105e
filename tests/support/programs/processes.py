"""Python programs of their own, and whether a process still runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any


def run_python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a Python of its own to its end, at most five minutes, and catch what it writes."""
    options = {"capture_output": True, "text": True, "timeout": 300, **options}
    return subprocess.run([sys.executable, *arguments], check=False, **options)


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
