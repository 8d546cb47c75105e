"""What importing the package loads, and that no module imports itself in a circle."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import grimp
import pytest
from support.programs.processes import run_python

import langchain_gkt

IMPORTS = ("import_module", "__import__")


MODULES = [
    "langchain_gkt",
    "langchain_gkt.__main__",
    "langchain_gkt.bulk",
    "langchain_gkt.chain",
    "langchain_gkt.cli.app",
    "langchain_gkt.costs",
    "langchain_gkt.errors",
    "langchain_gkt.evaluation",
    "langchain_gkt.guidance",
    "langchain_gkt.metadata",
    "langchain_gkt.reporting.table",
    "langchain_gkt.serving",
    "langchain_gkt.structured_output.constraint",
    "langchain_gkt.students.huggingface",
    "langchain_gkt.telemetry",
]


@pytest.mark.slow
def test_importing_loads_no_model_library(light) -> None:
    """The first module that loads one is named; those behind it find it loaded."""
    heavy = {"torch", "transformers", "matplotlib", "pandas", "ray", "pyarrow", "fastapi"}
    code = f"import importlib, sys\nfor name in {MODULES}:\n    importlib.import_module(name)\n"
    code += f"    print(name, *{heavy} & sys.modules.keys())"
    done = light.run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == MODULES


@pytest.mark.slow
def test_a_chain_with_a_remote_student_loads_no_model_library(light) -> None:
    code = (
        "import sys\n"
        "from langchain_core.language_models import FakeListChatModel\n"
        "from langchain_openai import ChatOpenAI\n"
        "from langchain_gkt import GuidedKnowledgeTransferChain, as_student\n"
        "from langchain_gkt.students import remote_student\n"
        "server = ChatOpenAI(model='m', api_key='k', base_url='http://127.0.0.1:9/v1')\n"
        "for engine in ('vllm', 'llama-server'):\n"
        "    student = remote_student(server, engine)\n"
        "    GuidedKnowledgeTransferChain(teacher=server, student=student)\n"
        "teacher, student = (FakeListChatModel(responses=[t]) for t in ('It is', 'seven.'))\n"
        "chain = GuidedKnowledgeTransferChain(teacher=teacher, student=as_student(student))\n"
        "print(chain.invoke('What is 3 plus 4?').text)\n"
        "schema = {'title': 'A', 'type': 'object', 'properties': {'a': {'type': 'integer'}}}\n"
        "for student in (server, remote_student(server, 'vllm')):\n"
        "    chain = GuidedKnowledgeTransferChain(teacher=server, student=student)\n"
        "    chain.with_structured_output(schema)\n"
        "print(*{'torch', 'transformers'} & sys.modules.keys())\n"
    )
    done = light.run(code)
    assert done.returncode == 0, done.stderr
    answer, heavy = done.stdout.splitlines()
    assert answer.endswith("seven.")
    assert heavy == ""


def test_help_loads_neither_langchain_nor_a_model_library() -> None:
    code = "import sys\nfrom langchain_gkt.__main__ import main\ntry: main(['compare', '--help'])\n"
    code += "except SystemExit: pass\n"
    code += (
        "print(*{'torch', 'transformers', 'langchain_core'} & sys.modules.keys(), file=sys.stderr)"
    )
    done = run_python("-c", code)
    assert "Usage: langchain-gkt compare" in done.stdout
    assert done.stderr.split() == []


def test_no_module_imports_itself_in_a_circle() -> None:
    """Imports for typing and inside functions count."""
    graph = grimp.build_graph("langchain_gkt", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 50
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_no_import_of_our_own_is_hidden_in_a_call() -> None:
    """What is imported by name, neither import-linter nor a reader sees."""
    package = Path(langchain_gkt.__file__).parent
    hidden = [
        (str(file.relative_to(package)), call.lineno)
        for file in package.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call)
        and getattr(call.func, "attr", getattr(call.func, "id", "")) in IMPORTS
        and getattr(call.args[0], "value", "langchain_gkt").startswith("langchain_gkt")
    ]
    assert [file for file, _ in hidden] == ["__init__.py"], hidden  # the public names
