"""The calculator of the site and the table beside it say what scenarios say."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from langchain_gkt.costs import BillingScenario, CachedPrefix
from langchain_gkt.costs.listed import listed_price
from langchain_gkt.costs.price_list import release

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def pages() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / "pages.py"))


def test_presets_hold_the_prices_of_the_list_that_they_name(pages) -> None:
    assert len(pages["PRESETS"]) == 5
    text = (ROOT / "docs" / "will-it-pay.md").read_text()
    assert pages["presets"]() in text
    assert pages["options"]() in text
    assert pages["PRICED"] in text
    if not pages["PRICED"].startswith(f"genai-prices {release()},"):
        pytest.skip("another price list is installed")
    for model, price in pages["PRESETS"].items():
        listed, batch = listed_price(model), price.of_tier("batch")
        for name in ("input_mtok", "cached_input_mtok", "cache_write_mtok", "output_mtok"):
            assert getattr(listed, name) == getattr(price, name), (model, name)
            assert getattr(listed.of_tier("batch"), name) == getattr(batch, name), (model, name)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize("batch", [1.0, 0.5])
@pytest.mark.parametrize("hits", [1.0, 0.75])
def test_the_calculator_computes_what_scenarios_do(pages, hits: float, batch: float) -> None:
    price = pages["PRESETS"]["openai:gpt-6.1-terra"]
    prefix = CachedPrefix(tokens=1024, hit_rate=hits)
    scenario = BillingScenario(
        price=price, cached_prefix=prefix, tier="batch" if batch < 1 else None
    )
    fields = {
        **{"prompt": 1280, "answer": 110, "guidance": 40, "shown": 1, "cached": 0.8, "hits": hits},
        **{"minimum": 1024, "discount": 0.05, "write": 1.25, "batch": batch, "input": 1},
        "output": 5,
    }
    found = _run(f"guidedShare({json.dumps(fields)})")
    assert found["alone"] == pytest.approx(float(scenario.cost(1280, 110)))
    assert found["guided"] == pytest.approx(float(scenario.cost(1280, 40)))
    assert found["tooShort"] is False
    names = set(re.findall(r'name="(\w+)"', (ROOT / "docs" / "will-it-pay.md").read_text()))
    assert names == {*fields, "model"}


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"min": "1", "fault": "rangeUnderflow"}, "Tokens: give a whole number of 1 or more."),
        ({"min": "0", "max": "100", "step": "any", "fault": "rangeOverflow"}, "Tokens: give a "
         "number from 0 to 100."),
        ({"min": "0", "value": ""}, "Tokens: give a whole number of 0 or more."),
        ({"min": "0"}, "Give an input price or an output price above 0."),
    ],
)  # fmt: skip
def test_the_calculator_refuses_nonsense(field: dict[str, str], said: str) -> None:
    shown = {"value": "7", "max": "", "step": "", **field}
    shown |= {"validity": {field.get("fault"): True}, "parentElement": {"textContent": " Tokens "}}
    prices = {"input": {"value": "0"}, "output": {"value": "0"}}
    form = f"{{querySelectorAll: () => [{json.dumps(shown)}], elements: {json.dumps(prices)}}}"
    assert _run(f"complaint({form})") == said


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_calculator_says_what_is_saved() -> None:
    assert _run("[saving(0.289), saving(1), saving(1.25)]") == [
        "You save 71.1%",
        "You save 0.0%",
        "You pay 25.0% more",
    ]


def _run(expression: str) -> Any:
    script = (ROOT / "docs" / "javascripts" / "calculator.js").read_text()
    code = f"{script}\nconsole.log(JSON.stringify({expression}))"
    run = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)
