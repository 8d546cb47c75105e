"""Which engine a student gets, and what is said when it cannot be had."""

from __future__ import annotations

import struct
import warnings

import pytest

from langchain_gkt import HuggingFaceStudent, StudentError
from langchain_gkt.students.backends import choosing
from langchain_gkt.students.backends.choosing import choose_backend
from langchain_gkt.students.backends.gguf import (
    GGUFHeader,
    GGUFSource,
    gguf_source,
    read_header,
)


@pytest.fixture
def installed(monkeypatch):
    def pretend(*names: str) -> None:
        monkeypatch.setattr(choosing, "find_spec", lambda name: name in names or None)

    return pretend


def test_names_of_gguf_files() -> None:
    assert gguf_source("some/folder") is None
    assert gguf_source(object()) is None
    assert gguf_source("a/b.GGUF") == GGUFSource("a/b.GGUF")
    assert gguf_source("owner/repo:q4/b.gguf") == GGUFSource("q4/b.gguf", "owner/repo")


def test_a_gguf_file_goes_to_llama_cpp_where_it_is_installed(installed) -> None:
    installed("xllamacpp")
    assert choose_backend("a/b.gguf", "auto").name == "llamacpp"
    assert choose_backend("a/b.gguf", "torch").name == "torch"
    assert choose_backend("a/b", "auto").name == "torch"


def test_the_faster_way_is_named_once(installed) -> None:
    installed()
    choosing._warn_once.cache_clear()
    with pytest.warns(UserWarning, match=r"langchain-gkt\[llamacpp\]"):
        assert choose_backend("a/b.gguf", "auto").name == "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose_backend("a/b.gguf", "auto")


def test_what_cannot_be_had_names_the_field_and_the_mend(installed) -> None:
    installed()
    with pytest.raises(ValueError, match="backend='tgi' is unknown; take one of auto"):
        choose_backend("a", "tgi")
    with pytest.raises(ValueError, match=r"runs GGUF files, and model='a' is none"):
        choose_backend("a", "llamacpp")
    with pytest.raises(ImportError, match=r"langchain-gkt\[llamacpp\]"):
        choose_backend("a.gguf", "llamacpp")


def test_an_exported_folder_goes_to_openvino(installed, openvino_folder) -> None:
    folder = str(openvino_folder)
    installed("openvino_genai", "xllamacpp")
    assert choose_backend(folder, "auto").name == "openvino"
    assert choose_backend("OpenVINO/some-int8-ov", "auto").name == "openvino"
    assert choose_backend("a.gguf", "auto").name == "llamacpp"
    assert choose_backend("a.gguf", "openvino").name == "openvino"
    with pytest.raises(ValueError, match="exported for OpenVINO; name the folder it was made of"):
        choose_backend(folder, "torch")
    with pytest.raises(ValueError, match="optimum-cli export openvino"):
        choose_backend(str(openvino_folder.parent), "openvino")
    installed()
    with pytest.raises(ImportError, match=r"langchain-gkt\[openvino\]"):
        choose_backend(folder, "auto")
    (openvino_folder / "model.safetensors").touch()
    assert choose_backend(folder, "auto").name == "torch"


def test_the_student_says_which_engine_runs_it_and_why(student) -> None:
    assert student.backend == "torch"
    assert "torch" in student.backend_reason
    assert "no GGUF file" in student.backend_reason


def test_broken_files_are_refused(tmp_path, gguf, installed, fake_llamacpp) -> None:
    installed("xllamacpp")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(gguf.read_bytes()[:60])
    half = tmp_path / "half.gguf"  # one tensor, said to begin behind the end
    tensor = struct.pack("<Q", 1) + b"w" + struct.pack("<IQIQ", 1, 32, 0, 10**6)
    header = gguf.read_bytes()
    half.write_bytes(header[:8] + struct.pack("<Q", 1) + header[16:] + tensor)
    text = tmp_path / "text.gguf"
    text.write_text("<html>404</html>")
    for broken in (cut, half, text):
        with pytest.raises(StudentError, match=f"{broken.name}' is no whole GGUF file"):
            HuggingFaceStudent(model=broken)
    with pytest.raises(FileNotFoundError, match=r"none\.gguf' is not there"):
        HuggingFaceStudent(model=tmp_path / "none.gguf")


def test_the_header_of_a_file(gguf, tmp_path) -> None:
    header = read_header(str(gguf))
    assert (header.architecture, header.kv_bytes_per_token) == ("llama", 2 * 4 * (8 + 8) * 2)
    assert not header.is_float32
    metadata = {**header.metadata, "general.file_type": 0}
    assert GGUFHeader("", metadata).kv_bytes_per_token == 2 * header.kv_bytes_per_token
    other = tmp_path / "other.gguf"
    other.write_bytes(gguf.read_bytes() + b"x")
    assert read_header(str(other)).fingerprint != header.fingerprint
