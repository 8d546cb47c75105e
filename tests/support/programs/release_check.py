# ruff: noqa: T201
"""Check a release: build it, install it in empty environments, and run each one's first example.

``make release-check``; ``RELEASE_CHECK="--extras openai ray"`` takes some of the extras. An
environment takes minutes, because torch is installed first, as for the tests.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[3]
LIMIT = 12 * 10**6
"""Most bytes of a wheel."""
SLOWEST = 1.5
"""Most processor time of our import, as a multiple of langchain_core's."""
FIRST = {"": "redact", "cli": "redact", "demo": "pipeline", "server": "serve", "ray": None}
"""First example of an extra; another extra's is the one without any."""
LEFT_OUT = {"test", "docs", "real"}
"""Extras for work on the package itself."""
IMPORT = "import time; a = time.process_time(); import {}; print(time.process_time() - a)"
FIELDS = ("License-Expression: MIT", "Requires-Python: >=3.10", "Project-URL: Paper, ")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command without this tree on its path, and return what it prints."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def build(dist: Path) -> Path:
    """Build wheel and sdist, and check them."""
    run(sys.executable, "-m", "build", "--outdir", dist, ROOT)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB; twine check passed")
    if wheel.stat().st_size > LIMIT:
        sys.exit(f"the wheel has more than {LIMIT / 1e6:.0f} MB")
    return wheel


def metadata(python: Path, folder: Path) -> set[str]:
    """Check the installed metadata, and return the extras."""
    code = "from importlib.metadata import metadata as m; print(m('langchain-gkt').as_string())"
    text = run(python, "-c", code, cwd=folder)
    version = run(
        python, "-c", "import langchain_gkt; print(langchain_gkt.__version__)", cwd=folder
    )
    wanted = [*FIELDS, f"\nVersion: {version.strip()}\n"]
    wanted += [f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)]
    if missing := [field for field in wanted if field not in text]:
        sys.exit(f"the metadata lacks {missing}")
    return set(re.findall(r"^Provides-Extra: (.*)$", text, re.MULTILINE))


def imports(python: Path, folder: Path) -> None:
    """Check that importing the package is light."""
    code = "import sys, langchain_gkt; print('torch' in sys.modules)"
    if run(python, "-c", code, cwd=folder).strip() != "False":
        sys.exit("import langchain_gkt imports torch")
    ours, theirs = (
        statistics.median(
            float(run(python, "-c", IMPORT.format(name), cwd=folder)) for _ in range(5)
        )
        for name in ("langchain_gkt", "langchain_core")
    )
    print(f"import: {ours:.3f} s, langchain_core {theirs:.3f} s (processor time, medians of 5)")
    if ours > SLOWEST * theirs:
        sys.exit(f"import langchain_gkt takes more than {SLOWEST} times langchain_core's")


def try_extra(wheel: Path, extra: str, folder: Path) -> Path:
    """Install the wheel with one extra in an empty environment, and run its first example."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    run(*pip, "torch")
    run(*pip, f"{wheel}[{extra}]" if extra else wheel)
    run(python, "-m", "pip", "check")
    example = FIRST.get(extra, FIRST[""])
    if example:
        run(python, ROOT / "examples" / f"{example}.py", cwd=folder)
    print(f"[{extra}]: installed, {example or 'no example without another extra'}", flush=True)
    return python


def main() -> None:
    """Check everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extras", nargs="*", help="extras to try; all without it")
    chosen = parser.parse_args().extras
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        wheel = build(base / "dist")
        (base / "none").mkdir()
        python = try_extra(wheel, "", base / "none")
        extras = metadata(python, base) - LEFT_OUT
        imports(python, base)
        for extra in sorted(extras) if chosen is None else chosen:
            with tempfile.TemporaryDirectory() as folder:
                try_extra(wheel, extra, Path(folder))


if __name__ == "__main__":
    main()
