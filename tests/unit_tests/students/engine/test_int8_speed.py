"""Whether int8 is said to be slower where it is."""

from __future__ import annotations

import warnings

import pytest
import torch

from langchain_gkt.students.engine import int8_speed
from langchain_gkt.students.engine.int8 import Int8Linear, quantize


class _Model(torch.nn.Sequential):
    device = torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if isinstance(self[0], Int8Linear) else self[0].weight.dtype


def test_layers_are_timed_as_saved_and_quantized() -> None:
    model = _Model(*(torch.nn.Linear(2048, 4096, bias=False) for _ in range(2))).bfloat16()
    saved = int8_speed.layer_seconds(model)
    after = int8_speed.layer_seconds(_Model(*quantize(torch.nn.Sequential(*model))))
    for found in (saved, after):
        assert found is not None
        assert set(found) == {1, 8}
        assert all(seconds > 0 for seconds in found.values())


def test_small_models_are_not_timed() -> None:
    model = _Model(torch.nn.Linear(64, 64)).bfloat16()
    assert int8_speed.layer_seconds(model) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        int8_speed.warn_if_slower(None, None)


@pytest.mark.parametrize(
    ("after", "told"),
    [
        ({1: 0.5, 8: 3.5}, "0.5 times with 1 and 3.5 times with 8 request"),
        ({1: 1.2, 8: 0.4}, "1.2 times with 1 and 0.4 times with 8 request"),
        ({1: 0.9, 8: 1.0}, None),
    ],
)
def test_one_slower_number_of_rows_is_enough_to_warn(after, told) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        int8_speed.warn_if_slower({1: 1.0, 8: 1.0}, after)
    assert [told in str(one.message) for one in caught] == ([True] if told else [])
