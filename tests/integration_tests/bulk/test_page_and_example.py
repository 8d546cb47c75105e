"""The page about datasets and its example, run as programs of their own."""

from __future__ import annotations

import re
from pathlib import Path

from support.programs.processes import run_python
from support.servers.completions_server import completions_server

from langchain_gkt.demo.pair import STUDENT

ROOT = Path(__file__).parents[3]
SETTING = """
import ray
ray.init(num_cpus=2, object_store_memory=200 * 2**20, include_dashboard=False)
ray.data.from_items([{"question": f"Hello {n}?"} for n in range(6)]).write_parquet("questions")
"""
ENDING = """
table = ray.data.read_parquet("answers").to_pandas()
assert len(table) == 6 and table["error"].isna().all() and table["answer"].str.len().all()
print("sum", table["cost"].sum().normalize())
"""


def test_the_code_of_the_page(tmp_path, monkeypatch) -> None:
    page = (ROOT / "docs" / "bulk.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    here = {
        '"path/or/repo-id"': repr(str(STUDENT)),
        "students=4": "students=4, student_cpus=0.25",  # on few processors
    }
    for given, used in here.items():
        assert given in code
        code = code.replace(given, used)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with completions_server() as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        done = run_python("-c", SETTING + code + ENDING, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    ledger, total = done.stdout.split()[-3], done.stdout.split()[-1]
    assert float(ledger) == float(total) > 0


def test_the_example(tmp_path) -> None:
    done = run_python(ROOT / "examples" / "bulk.py", cwd=tmp_path, timeout=400)
    assert done.returncode == 0, done.stderr
    rows, by_column, by_ledger = re.search(
        r"(\d+) rows, \$(\S+) by the column\n\$(\S+) by the ledger", done.stdout
    ).groups()
    assert rows == "100"
    assert float(by_column) == float(by_ledger) > 0
