"""Python files that a model brings along are run for those who ask for it, and for nobody else."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from support.models.fakes import MODELS

from langchain_gkt import HuggingFaceStudent, StudentError

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path({mark!r}).touch()


class Config(LlamaConfig):
    model_type = "odd"


class Model(LlamaForCausalLM):
    config_class = Config
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model whose config and class are Python files in its folder."""
    folder = tmp_path / "odd_model"
    shutil.copytree(MODELS / "student", folder)
    (folder / "odd.py").write_text(CODE.format(mark=str(tmp_path / "was_run")))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "odd", "architectures": ["Model"]}
    config["auto_map"] = {"AutoConfig": "odd.Config", "AutoModelForCausalLM": "odd.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    return folder


def test_nothing_is_run_and_nobody_is_asked(folder, tmp_path) -> None:
    with pytest.raises(StudentError, match=r"Python files of its own.*trust_remote_code=True"):
        HuggingFaceStudent(model=folder)
    assert not (tmp_path / "was_run").exists()


def test_a_caller_may_trust_a_model_but_no_call_can(folder, tmp_path, own_student) -> None:
    trusting = HuggingFaceStudent(model=MODELS / "student", trust_remote_code=True)
    with pytest.raises(StudentError, match="trust_remote_code=True"):
        trusting.invoke("x", model=str(folder))
    trusting.close()
    assert not (tmp_path / "was_run").exists()
    student = HuggingFaceStudent(model=folder, trust_remote_code=True)
    assert (tmp_path / "was_run").exists()
    assert student.invoke("What is 3 plus 4?").text == own_student.invoke("What is 3 plus 4?").text
    student.close()
