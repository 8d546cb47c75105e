"""One row of bfloat16 runs without oneDNN, where that is faster."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest
import torch
from support.models.fakes import MODELS

from langchain_gkt.students.backends.pytorch import loading
from langchain_gkt.students.engine.layers import onednn
from langchain_gkt.students.engine.model_runner import ModelRunner


@pytest.mark.parametrize(
    ("found", "dtype", "device", "expected"),
    [
        ({"architecture": "x86_64", "avx512_bf16": True}, torch.bfloat16, "cpu", True),
        ({"architecture": "x86_64", "avx512_bf16": True}, torch.float32, "cpu", False),
        ({"architecture": "x86_64", "avx512_bf16": True}, torch.bfloat16, "cuda", False),
        ({"architecture": "x86_64", "avx512_bf16": False}, torch.bfloat16, "cpu", False),
        ({"architecture": "aarch64"}, torch.bfloat16, "cpu", False),
    ],
)
def test_processor_and_dtype_decide(found, dtype, device, expected, monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    model = SimpleNamespace(dtype=dtype, device=torch.device(device))
    assert onednn.pays_without_onednn(model) is expected


def test_only_passes_of_one_row_leave_onednn_out(monkeypatch) -> None:
    monkeypatch.setattr(
        "langchain_gkt.students.engine.model_runner.pays_without_onednn", lambda model: True
    )
    model, _ = loading.from_path(str(MODELS / "student"), None, None, "float32")
    runner = ModelRunner(model, is_encoder_decoder=False)
    seen: list[bool] = []
    model.lm_head.register_forward_hook(lambda *_: seen.append(bool(torch.backends.mkldnn.enabled)))
    with torch.inference_mode():
        runner.detect_capabilities()
        cache, batch = runner.new_cache(8), runner.new_batch()
        seen.clear()
        runner.prefill(cache, [5, 6, 7])
        runner.prefill(cache, [8])
        batch.add(cache)
        runner.decode(batch, [9])
        batch.add(cache)
        runner.decode(batch, [10, 9])
    assert seen == [True, False, False, True]
    assert torch.backends.mkldnn.enabled


def test_the_last_thread_to_leave_sets_it_back() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with onednn.without_onednn():
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with onednn.without_onednn():
        thread.start()
        assert entered.wait(60)
    assert not torch.backends.mkldnn.enabled  # the other one is still inside
    leave.set()
    thread.join(60)
    assert torch.backends.mkldnn.enabled


def test_an_error_sets_it_back_too() -> None:
    with pytest.raises(ValueError, match="inside"), onednn.without_onednn():
        raise ValueError("inside")
    assert torch.backends.mkldnn.enabled


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_it_on() -> None:
    with onednn.without_onednn():
        child = os.fork()
        if not child:
            os._exit(0 if torch.backends.mkldnn.enabled and not onednn._inside else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert torch.backends.mkldnn.enabled
