"""langchain-tests' suites for the chain, and for the chain as a tool."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ChatModelIntegrationTests, ToolsIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests, ToolsUnitTests
from support.models.scripted import ToolTeacher, save_scripted

from langchain_gkt import GuidedKnowledgeTransferChain


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return save_scripted(tmp_path_factory.mktemp("scripted"))


class _Properties:
    @pytest.fixture(autouse=True)
    def _folder(self, folder: str) -> None:
        self.folder = folder

    @property
    def chat_model_class(self) -> type[GuidedKnowledgeTransferChain]:
        return GuidedKnowledgeTransferChain

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"teacher": ToolTeacher(), "student": self.folder, "guidance_tokens": 8}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        # Timeouts and retries are the teacher's own fields.
        return {"temperature": 0, "max_tokens": 100, "stop": []}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "another-teacher"


class TestChainUnit(_Properties, ChatModelUnitTests):
    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        given = {"teacher": ToolTeacher(), "guidance_tokens": 8}
        return {"GKT_STUDENT": self.folder}, given, {"guidance_tokens": 8}


class TestChainIntegration(_Properties, ChatModelIntegrationTests):
    pass


class _ToolProperties:
    @pytest.fixture(autouse=True)
    def _chain(self, folder: str) -> None:
        self.chain = GuidedKnowledgeTransferChain(teacher=ToolTeacher(), student=folder)

    @property
    def tool_constructor(self) -> BaseTool:
        return self.chain.as_tool(name="ask", description="Answers questions.")

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"question": "Hello, what is there to say?"}


class TestToolUnit(_ToolProperties, ToolsUnitTests):
    pass


class TestToolIntegration(_ToolProperties, ToolsIntegrationTests):
    pass
