"""Folders whose files are cut, odd or of another model end in one clear error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from support.models.fakes import MODELS

from langchain_gkt import ConfigurationError, HuggingFaceStudent, StudentError
from langchain_gkt.errors import GKTError

WEIGHTS = "model.safetensors"


def cut(size: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(data[:size])

    return change


def configured(**fields: int | str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return change


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02 no pickle")


def written(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(text)

    return change


def changed(tmp_path: Path, change: Callable[[Path], None]) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(MODELS / "student", folder)
    change(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (cut(0), "SafetensorError"),
        (cut(100_000), "SafetensorError"),
        (pickled, "UnpicklingError"),
        (configured(hidden_size=64), "RuntimeError"),
        (configured(num_hidden_layers=5), "lacks 18 of its weights, such as model.layers.3"),
        (configured(model_type="nope"), "ValueError"),
        (written("config.json", "{"), "OSError"),
        (written("tokenizer.json", "{}"), "KeyError"),
        (written("generation_config.json", "[]"), "TypeError"),
    ],
)
def test_a_broken_folder_is_a_student_error(change, said, tmp_path) -> None:
    with pytest.raises(StudentError, match=said) as caught:
        HuggingFaceStudent(model=changed(tmp_path, change)).invoke("x")
    assert "whose files" in caught.value.hint


def test_a_template_that_refuses_is_a_configuration_error(tmp_path) -> None:
    refuses = written("chat_template.jinja", "{{ raise_exception('roles must alternate') }}")
    student = HuggingFaceStudent(model=changed(tmp_path, refuses))
    with pytest.raises(ConfigurationError, match="roles must alternate"):
        student.invoke("x")
    student.close()


@pytest.mark.parametrize(
    "messages",
    [
        [HumanMessage("a \ud83d b")],
        [HumanMessage("a"), AIMessage("b \ud83d")],
        [
            HumanMessage("a"),
            AIMessage("", tool_calls=[{"name": "f", "args": {"\ud83d": 1}, "id": "1"}]),
            HumanMessage("b"),
        ],
    ],
)
def test_half_a_character_is_named(messages, student) -> None:
    with pytest.raises(GKTError, match="half of a character"):
        student.invoke(messages)
