"""Every engine that can be had without extras, with one small model."""

from __future__ import annotations

import importlib
import sys
from functools import partial

import pytest
from support.models.fake_llamacpp import module_for, write_gguf
from support.models.fake_openvino import modules_for, write_folder
from support.models.fakes import MODELS
from support.servers.token_server import ADDRESS, TokenServer
from transformers import AutoModelForCausalLM, AutoTokenizer

from langchain_gkt import HuggingFaceStudent
from langchain_gkt.students.backends.gguf import read_header
from langchain_gkt.students.backends.openvino.folder import read_source
from langchain_gkt.students.backends.server import SERVER_NAMES, answer
from langchain_gkt.students.backends.server import backend as server_backend
from langchain_gkt.students.backends.server.backend import ServerBackend
from langchain_gkt.students.engine.config import EngineConfig
from langchain_gkt.students.engine.engine import Engine


@pytest.fixture(scope="session")
def pair():
    folder = MODELS / "student"
    # In the type that it is stored in, a processor is slow.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    return model, AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def fake_llamacpp(pair, monkeypatch):
    """The adapter of llama.cpp, over a fake xllamacpp."""
    fake = module_for(*pair)
    monkeypatch.setitem(sys.modules, "xllamacpp", fake)
    rooms = [f"langchain_gkt.students.backends.llamacpp.{end}" for end in ("server", "backend")]
    for room in rooms:
        monkeypatch.delitem(sys.modules, room, raising=False)
    adapter = importlib.import_module(rooms[1])
    monkeypatch.setattr(adapter, "version", lambda name: "0")
    yield adapter, fake
    for room in rooms:
        sys.modules.pop(room, None)


@pytest.fixture
def gguf(tmp_path, pair):
    context = pair[0].config.max_position_embeddings
    return write_gguf(
        tmp_path / "tiny.gguf",
        general__architecture="llama",
        llama__context_length=context,
        llama__block_count=2,
        llama__embedding_length=32,
        llama__attention__head_count=4,
    )


@pytest.fixture
def fake_openvino(pair, monkeypatch):
    """The adapter of OpenVINO, over a fake openvino_genai."""
    fakes = modules_for(*pair)
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, name, fake)
    rooms = [f"langchain_gkt.students.backends.openvino.{end}" for end in ("scheduler", "backend")]
    for room in rooms:
        monkeypatch.delitem(sys.modules, room, raising=False)
    adapter = importlib.import_module(rooms[1])
    monkeypatch.setattr(adapter, "version", lambda name: "0")
    yield adapter, fakes["openvino_genai"]
    for room in rooms:
        sys.modules.pop(room, None)


@pytest.fixture
def openvino_folder(tmp_path, pair):
    (tmp_path / "tiny-ov").mkdir()
    return write_folder(tmp_path / "tiny-ov", *pair)


@pytest.fixture
def served(pair, monkeypatch):
    """Makes students behind a stand-in for a server; also gives the stand-in."""
    made = []
    monkeypatch.setattr(answer, "RETRY_SECONDS", 0.0)

    def make(kind: str = "vllm", *, server: dict | None = None, **fields) -> tuple:
        over = TokenServer(*pair, kind=kind, **(server or {}))
        plain = partial(ServerBackend, transport=over.transport)
        monkeypatch.setattr(server_backend, "ServerBackend", plain)
        given = {"model": str(MODELS / "student"), "backend": kind, "base_url": ADDRESS}
        made.append(HuggingFaceStudent(**{**given, **fields}))
        return made[-1], over

    yield make
    for one in made:
        one.close()


@pytest.fixture(params=["torch", "llamacpp", "openvino", "vllm", "sglang", "llama-server"])
def backend(request, pair):
    config = EngineConfig(max_batch_size=3, max_queue=8)
    if request.param == "torch":
        made = Engine(*pair, config)
    elif request.param in SERVER_NAMES:
        made = request.getfixturevalue("served")(request.param)[0]._engine
    elif request.param == "openvino":
        adapter, _ = request.getfixturevalue("fake_openvino")
        folder = request.getfixturevalue("openvino_folder")
        made = adapter.OpenVINOBackend(read_source(str(folder), pair[1]), config, None)
    else:
        adapter, _ = request.getfixturevalue("fake_llamacpp")
        gguf = request.getfixturevalue("gguf")
        made = adapter.LlamaCppBackend(read_header(str(gguf)), pair[1], config, None)
    yield made
    made.close()


@pytest.fixture(scope="module")
def local(pair):
    student = HuggingFaceStudent(model=pair[0], tokenizer=pair[1])
    yield student
    student.close()
