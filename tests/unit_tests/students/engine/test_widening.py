"""Bfloat16 weights on a CPU without instructions for them."""

from __future__ import annotations

import pytest
import torch
from support.models.fakes import MODELS

from langchain_gkt.students.backends.pytorch import loading
from langchain_gkt.students.engine.layers.widening import (
    WideningLinear,
    has_bfloat16,
    widen_linears,
)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_products_are_rounded_once(rows, bias) -> None:
    torch.manual_seed(1)
    layer = torch.nn.Linear(1024, 1500, bias=bias).bfloat16()  # more than one block
    inputs = torch.randn(1, rows, 1024).bfloat16()
    with torch.inference_mode():
        want = torch.nn.functional.linear(
            inputs.double(), layer.weight.double(), layer.bias.double() if bias else None
        )
        plain = layer(inputs)
        widen_linears(torch.nn.Sequential(layer))
        got = layer(inputs)
    assert type(layer) is WideningLinear
    assert (got.shape, got.dtype) == (plain.shape, torch.bfloat16)
    assert torch.allclose(got.double(), want, rtol=2**-7, atol=1e-3)


def test_other_layers_stay_as_they_are() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4).bfloat16())
    widen_linears(model)
    assert [type(layer) for layer in model] == [torch.nn.Linear, torch.nn.LayerNorm]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "amx_bf16": True}, True),
        ({"architecture": "aarch64"}, True),
    ],
)
def test_the_processor_decides(found, expected, monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert has_bfloat16() is expected


@pytest.mark.parametrize("has", [False, True])
def test_loaded_bfloat16_students_are_widened_where_it_pays(has, monkeypatch) -> None:
    monkeypatch.setattr(loading, "has_bfloat16", lambda: has)
    model, _ = loading.from_path(str(MODELS / "student"), None, None, "bfloat16")
    assert any(type(module) is WideningLinear for module in model.modules()) is not has
    plain, _ = loading.from_path(str(MODELS / "student"), None, None, "float32")
    assert not any(type(module) is WideningLinear for module in plain.modules())
