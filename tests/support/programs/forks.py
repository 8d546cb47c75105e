"""A Python that has imported what is slow, and forks a process of its own for each program."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import NamedTuple

_SERVER = """
import gc, json, os, signal, sys, tempfile
{imports}
gc.freeze()  # no program looks through what it shares as it ends
for line in sys.stdin:
    program, sys.argv[1:] = json.loads(line)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        if not os.fork():
            signal.alarm(1800)  # for what hangs, and out of reach of any load
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a job behind "&" ignores it
            for place, file in enumerate((open(os.devnull), out, err)):
                os.dup2(file.fileno(), place)
            break
        ended = [os.waitstatus_to_exitcode(os.wait()[1])]
        for file in (out, err):
            file.seek(0)
            ended.append(file.read())
    print(json.dumps(ended), flush=True)
else:
    sys.exit()
exec(program)
"""


class Ended(NamedTuple):
    """How a program ended, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


class Forks:
    """Runs programs that share their imports; each ends as any program does."""

    def __init__(self, imports: str) -> None:
        self._imports = imports

    def __enter__(self) -> Forks:
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER.format(imports=self._imports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def run(self, program: str, *arguments: str) -> Ended:
        """Run a program to its end, as ``python -c program arguments`` does."""
        assert self._server.stdin is not None and self._server.stdout is not None
        print(json.dumps([program, arguments]), file=self._server.stdin, flush=True)
        return Ended(*json.loads(self._server.stdout.readline()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.communicate()
