"""`LocalCloud`: runs the demo's server in a child process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


class LocalCloud:
    """An OpenAI-compatible server for one local model, as a context manager.

    The server ends with the ``with`` block, and with this process in any case. It offers tool calls
    if the model's chat template has a place for them, and refuses them otherwise.

    Examples:
        >>> with LocalCloud("path/to/model", name="demo-teacher") as cloud:  # doctest: +SKIP
        ...     ChatOpenAI(base_url=cloud.base_url, api_key="local", model=cloud.name)
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str = "demo-teacher",
        latency_ms: float = 0.0,
        dtype: str = "float32",
    ) -> None:
        """Store what to serve.

        Args:
            folder: Folder of a model with its tokenizer.
            name: The model's name in requests.
            latency_ms: Milliseconds that each request waits first, as over a network.
            dtype: The weights' type, as for `HuggingFaceStudent`.

        Raises:
            FileNotFoundError: If there is no such folder, or no model in it.
            ImportError: If the server's packages are not installed.
        """
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"folder={str(folder)!r} is not a folder with a model")
        if not Path(folder, "config.json").is_file():
            raise FileNotFoundError(f"folder={str(folder)!r} holds no config.json, so no model")
        missing = [name for name in ("fastapi", "uvicorn") if not importlib.util.find_spec(name)]
        if missing:
            raise ImportError(
                f"the demo's server needs {' and '.join(missing)}: "
                'pip install "langchain-gkt[demo]"'
            )
        self.folder, self.name = Path(folder), name
        self.latency_ms, self.dtype = latency_ms, dtype
        self._process: subprocess.Popen[str] | None = None
        self._errors: Any = None
        self._root = ""

    @property
    def base_url(self) -> str:
        """Address for an OpenAI client. Raises a `RuntimeError` if the server is not running."""
        if not self._process:
            raise RuntimeError("the server is not running; use LocalCloud in a with statement")
        return f"{self._root}/v1"

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._process.pid if self._process else None

    def start(self) -> LocalCloud:
        """Start the server, wait until it takes connections, and return this object.

        Raises:
            RuntimeError: If it runs already, or ends at once.
        """
        if self._process:
            raise RuntimeError("the server is running already; stop() it first")
        command = [sys.executable, "-m", "langchain_gkt.demo.server", str(self.folder)]
        command += ["--name", self.name, "--latency-ms", str(self.latency_ms)]
        command += ["--dtype", self.dtype]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by stop()
        self._process = subprocess.Popen(  # noqa: S603  our own command
            command,
            stdin=subprocess.PIPE,  # the server exits when this pipe closes
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,  # so that only this process gets Ctrl-C
        )
        try:
            self._root = self._printed_address()
        except BaseException:
            self.stop()
            raise
        return self

    def _printed_address(self) -> str:
        process: Any = self._process
        if line := process.stdout.readline():  # empty if the process has ended
            return str(line).rpartition(" ")[2].strip()
        self._errors.seek(0)
        tail = "\n".join(self._errors.read().splitlines()[-8:])
        raise RuntimeError(f"the demo's server did not start:\n{tail}")

    def stop(self) -> None:
        """Stop the server, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with process, self._errors:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()

    def __enter__(self) -> LocalCloud:
        """Start the server."""
        return self.start()

    def __exit__(self, *error: object) -> None:
        """Stop the server, in any case."""
        self.stop()
