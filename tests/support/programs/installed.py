"""Check an installation: every file of the package is there, and every module can be imported.

Modules of an engine or of bulk jobs may lack their extra, which the test environments leave out.

Run it by its path with the environment's Python: ``python tests/support/programs/installed.py``.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import langchain_gkt

OPTIONAL = {"openvino", "openvino_genai", "ray", "xllamacpp"}
SOURCE = Path(__file__).parents[3] / "langchain_gkt"


def files(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)) for path in found if path.suffix != ".pyc"}


def main() -> None:
    installed = Path(langchain_gkt.__file__).parent
    if installed == SOURCE:
        sys.exit("langchain_gkt comes from the source tree; install it without -e")
    if missing := sorted(files(SOURCE) - files(installed)):
        sys.exit(f"the wheel lacks: {', '.join(missing)}")
    for module in pkgutil.walk_packages(langchain_gkt.__path__, "langchain_gkt."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as missing_module:
            if missing_module.name not in OPTIONAL:
                raise


if __name__ == "__main__":
    main()
