from __future__ import annotations

import json

import pytest

from langchain_gkt import Budget
from langchain_gkt.cli.options import ServeOptions
from langchain_gkt.cli.serve import _keys
from langchain_gkt.serving.errors import APIError
from langchain_gkt.serving.keys import APIKey, KeyRing, load_keys


@pytest.fixture
def keys_file(tmp_path):
    def write(found: object):
        path = tmp_path / "keys.json"
        path.write_text(found if isinstance(found, str) else json.dumps(found))
        return path

    return write


def test_keys_of_a_file_have_limits_of_their_own(keys_file, monkeypatch) -> None:
    monkeypatch.setenv("ADA_KEY", "sk-ada")
    path = keys_file(
        {
            "ada": {"key_env": "ADA_KEY", "budget_usd": "5", "requests_per_minute": 60},
            "bob": {"key": "sk-bob"},
            "cid": {"key": "sk-cid", "budget_usd": 0.1, "requests_per_minute": None},
        }
    )
    every = Budget(usd="1", on_exceeded="student")
    ada, bob, cid = load_keys(path, budget=every, rate=2)
    assert (str(cid.budget.usd), cid.requests_per_minute) == ("0.1", 2)
    assert (ada.secret, ada.budget.usd, ada.requests_per_minute) == ("sk-ada", 5, 60)
    assert ada.budget.on_exceeded == "student"  # of the command line, for every key
    assert (bob.secret, bob.budget, bob.requests_per_minute) == ("sk-bob", every, 2)
    assert "sk-" not in repr([ada, bob])


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ("{", "Expecting"),
        ([], "maps each key's name"),
        ({"ada": "sk-ada"}, "'ada' must be an object"),
        ({"ada": {"key": 5}}, "'ada' needs 'key'"),
        ({"ada": {"key": " "}}, "'ada' is empty"),
        ({"ada": {"key": "schlüssel"}}, "must be ASCII"),
        ({"ada": {"key_env": "NO_SUCH"}}, "variable NO_SUCH is not set"),
        ({"ada": {"key": "k", "budget": 5}}, "did you mean 'budget_usd'"),
        ({"ada": {"key": "k", "budget_usd": "much"}}, "usd"),
        ({"ada": {"key": "k", "requests_per_minute": 0}}, "must be more than 0"),
        ({"ada": {"key": "k", "requests_per_minute": "fast"}}, "'ada': requests_per_minute"),
        ({"ada": {"key": "k", "budget_usd": [5]}}, "'ada': budget_usd"),
        ({"ada": {"key_env": 5}}, "'ada': key_env"),
    ],
)
def test_bad_files_name_the_key_and_the_fix(keys_file, found, says) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        load_keys(keys_file(found), budget=None, rate=None)
    assert "--keys" in str(caught.value)


def test_the_ring_knows_its_keys(monkeypatch) -> None:
    ring = KeyRing([APIKey(name="ada", secret="sk-ada", requests_per_minute=2)], {})
    ada = ring.authenticate("Bearer sk-ada")
    for wrong in (None, "sk-ada", "Bearer", "Bearer sk-ad", "Basic sk-ada", "Bearer schlüssel"):
        with pytest.raises(APIError, match="Authorization: Bearer KEY") as caught:
            ring.authenticate(wrong)
        assert caught.value.status == 401
    ada.count_request()
    ada.count_request()
    with pytest.raises(APIError, match="2 times a minute") as caught:
        ada.count_request()
    assert caught.value.headers["Retry-After"] == "30"
    with pytest.raises(ValueError, match="two keys"):
        KeyRing([APIKey(name="a", secret="k"), APIKey(name="b", secret="k")], {})


def test_keys_of_the_command_line(monkeypatch) -> None:
    monkeypatch.setenv("CLIENT_KEYS", "one, two")
    options = ServeOptions(api_key_env="CLIENT_KEYS", key_budget_usd="2", on_exceeded="student")
    assert [(key.name, key.secret) for key in _keys(options)] == [
        ("CLIENT_KEYS-1", "one"),
        ("CLIENT_KEYS-2", "two"),
    ]
    assert {(key.budget.usd, key.budget.on_exceeded) for key in _keys(options)} == {(2, "student")}
    with pytest.raises(ValueError, match="--api-key-env NO_SUCH: there is no such"):
        _keys(ServeOptions(api_key_env="NO_SUCH"))
    with pytest.raises(ValueError, match="--key-budget-usd must be an amount"):
        _keys(ServeOptions(key_budget_usd="much"))
