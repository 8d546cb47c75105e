"""Real servers of a small model, each a process of its own on 127.0.0.1.

``GKT_VLLM`` names an environment with vLLM (``make test-vllm`` makes one), and ``GKT_LLAMA_SERVER``
the Python of one with xllamacpp; without the latter this Python is used.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from support.models import real_models

_PROGRAM = Path(__file__).parents[1] / "programs" / "llama_server.py"
_START_SECONDS = 900.0


@contextmanager
def running(kind: str, log: Path) -> Iterator[str]:
    """Start a server; yield its root address, and stop it by its process id.

    Raises:
        NotAvailable: If it is not installed, or its model cannot be had.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, environment = _command(kind, port)
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(process, address, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(kind: str, port: int) -> tuple[list[str], dict[str, str]]:
    if kind == "llama-server":
        python = os.environ.get("GKT_LLAMA_SERVER", sys.executable)
        if subprocess.run([python, "-c", "import xllamacpp"], capture_output=True).returncode:
            raise real_models.NotAvailable(
                'llama-server was not run: xllamacpp is missing; pip install -e ".[real]"'
            )
        return [python, str(_PROGRAM), str(real_models.smollm2_gguf()), str(port)], {**os.environ}
    program = Path(os.environ.get("GKT_VLLM", "") or "-") / "bin" / "vllm"
    if not program.is_file():
        raise real_models.NotAvailable(
            "vLLM was not run: GKT_VLLM names no environment with it; `make test-vllm` makes one, "
            "with a package registry in reach"
        )
    options = ["--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16"]
    # Compiling for a small model takes longer than all that is asked of it here.
    options += ["--max-model-len", "2048", "--enforce-eager", "--served-model-name", "smollm2"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    environment |= {"VLLM_NO_USAGE_STATS": "1"}
    return [str(program), "serve", str(real_models.smollm2()), *options], environment


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{address}/v1/models", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")


def metric(address: str, name: str) -> float:
    """Return the sum of a counter or gauge of ``/metrics``; 0 if there is none of that name."""
    lines = httpx.get(f"{address}/metrics", timeout=30).text.splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith((f"{name} ", f"{name}{{"))
    )
