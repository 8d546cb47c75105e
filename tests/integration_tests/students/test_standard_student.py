"""langchain-tests' suites for HuggingFaceStudent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from support.models.scripted import save_scripted

from langchain_gkt import HuggingFaceStudent


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    models = tmp_path_factory.mktemp("models")
    save_scripted(models / "another")
    return Path(save_scripted(models / "scripted"))


class _Properties:
    @pytest.fixture(autouse=True)
    def _beside_the_model(self, folder: Path, monkeypatch) -> None:
        monkeypatch.chdir(folder.parent)  # snapshots hold no path of a machine

    @property
    def chat_model_class(self) -> type[HuggingFaceStudent]:
        return HuggingFaceStudent

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "scripted"}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        # Timeouts and retries belong to what is asked over a network.
        return {"temperature": 0, "max_tokens": 100, "stop": []}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "another"

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True


class TestStudentUnit(_Properties, ChatModelUnitTests):
    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"GKT_STUDENT": "scripted"}, {}, {"model": "scripted"}


class TestStudentIntegration(_Properties, ChatModelIntegrationTests):
    pass
