from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.models import real_models

from langchain_gkt import HuggingFaceStudent


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    try:
        return real_models.smollm2()
    except real_models.NotAvailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def qwen_folder() -> Path:
    try:
        return real_models.qwen()
    except real_models.NotAvailable as reason:
        pytest.skip(str(reason))


def _student(folder: Path) -> Iterator[HuggingFaceStudent]:
    student = HuggingFaceStudent(model=folder, dtype="float32")
    yield student
    student.close()


@pytest.fixture(scope="session")
def smollm2(smollm2_folder: Path) -> Iterator[HuggingFaceStudent]:
    yield from _student(smollm2_folder)


@pytest.fixture(scope="session")
def qwen(qwen_folder: Path) -> Iterator[HuggingFaceStudent]:
    yield from _student(qwen_folder)


@pytest.fixture(scope="session")
def gemma() -> Iterator[HuggingFaceStudent]:
    try:
        folder = real_models.gemma()
    except real_models.NotAvailable as reason:
        pytest.skip(str(reason))
    yield from _student(folder)


@pytest.fixture(scope="session", params=["smollm2", "qwen", "gemma"])
def seam_student(request: pytest.FixtureRequest) -> HuggingFaceStudent:
    student: HuggingFaceStudent = request.getfixturevalue(request.param)
    return student


@pytest.fixture(scope="session", params=["smollm2", "qwen"])
def real(request: pytest.FixtureRequest) -> HuggingFaceStudent:
    student: HuggingFaceStudent = request.getfixturevalue(request.param)
    return student
