"""Teacher prompts in files, and what tells them apart."""

from __future__ import annotations

import json
import pickle

import pytest
from langchain_core.runnables import RunnableLambda

from langchain_gkt import (
    GuidancePolicy,
    InstructTeacher,
    KeepPrefix,
    LastTurns,
    SummarizeOlder,
    WithoutExemplars,
)
from langchain_gkt.prompts.plain_data import describe_prompt, from_data, name_prompt, to_data

PROMPTS = [
    WithoutExemplars(keep=1),
    WithoutExemplars(keep=1, shortest=True),
    LastTurns(count=3, system=False),
    KeepPrefix(count=2),
    SummarizeOlder(max_tokens=9) | InstructTeacher(style="example", tokens=7),
    WithoutExemplars() | LastTurns() | InstructTeacher(text="{tokens}?"),
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ready_made_prompts_travel_as_files(prompt, tmp_path) -> None:
    assert from_data(json.loads(json.dumps(to_data(prompt)))) == prompt
    assert pickle.loads(pickle.dumps(prompt)) == prompt
    policy = GuidancePolicy(tokens=5, cut="step", min_tokens=3, teacher_prompt=prompt)
    policy.save(tmp_path / "policy.json")
    assert GuidancePolicy.load(tmp_path / "policy.json") == policy
    assert hash(policy)


def test_other_prompts_are_not_written(tmp_path) -> None:
    policy = GuidancePolicy(teacher_prompt=LastTurns() | RunnableLambda(lambda m: m))
    with pytest.raises(ValueError, match="RunnableLambda cannot be saved, only ready-made"):
        policy.save(tmp_path / "policy.json")
    assert not (tmp_path / "policy.json").exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([{"prompt": "last_turn"}], "'last_turn' is not known; did you mean 'last_turns'"),
        ([{"prompt": "xyz"}], "'xyz' is not known; a newer release may have written it"),
        ([{"prompt": "last_turns", "count": 0}], "'last_turns': LastTurns.count must be"),
        ([{"prompt": "last_turns", "cout": 1}], "'last_turns': .*did you mean 'count'"),
        ([{"name": "x"}], "must hold objects such as"),
        ([], "must be a list of prompts"),
        ("last_turns", "teacher_prompt must be a TeacherPrompt such as"),
    ],
)
def test_bad_files_name_the_field_and_the_mend(data, said, tmp_path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({"schema_version": 2, "teacher_prompt": data}))
    with pytest.raises(ValueError, match=said) as caught:
        GuidancePolicy.load(file)
    assert str(file) in str(caught.value)


def test_older_and_newer_policy_files(tmp_path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"tokens": 18, "cut": "word", "ask": "always", "probe_tokens": 1}')
    assert GuidancePolicy.load(file) == GuidancePolicy(tokens=18)
    for version in (3, "2", 0):
        file.write_text(json.dumps({"schema_version": version, "tokens": 18}))
        with pytest.raises(ValueError, match=r"schema_version .*upgrade langchain-gkt"):
            GuidancePolicy.load(file)


def test_a_field_that_plays_no_part_is_not_in_the_file() -> None:
    """Files and runs of older releases know nothing of ``shortest``."""
    assert to_data(WithoutExemplars(keep=1)) == [
        {"prompt": "without_exemplars", "keep": 1, "unmarked": False}
    ]


def test_no_two_prompts_look_alike() -> None:
    functions = [lambda m, n=n: m[n:] for n in range(3)]
    described = [repr(describe_prompt(prompt)) for prompt in [None, *PROMPTS, *functions]]
    assert len(set(described)) == len(described)
    assert [repr(describe_prompt(p)) for p in [None, *PROMPTS, *functions]] == described
    # The address of what is gone may be used again; its mark is not.
    marks = {repr(describe_prompt(lambda m: m)) for _ in range(50)}
    assert len(marks) == 50
    joined = LastTurns() | functions[0]
    assert describe_prompt(joined) != describe_prompt(LastTurns() | functions[1])
    assert name_prompt(joined)[0] == {"prompt": "last_turns", "count": 1, "system": True}
    assert "lambda" in name_prompt(joined)[1]
