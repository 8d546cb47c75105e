"""GuidancePolicy: its bounds, its file, and where it cuts."""

from __future__ import annotations

import dataclasses
import inspect
import pickle

import pytest
from support.models.exam import pair

from langchain_gkt import Budget, Guidance, GuidancePolicy, MachineTime, Price
from langchain_gkt.errors import ConfigurationError
from langchain_gkt.gates import AgreementGate, ConfidenceGate, Gate
from langchain_gkt.gates.confidence import confidence
from langchain_gkt.prompts import LastTurns


@pytest.mark.parametrize(
    ("cut", "written", "kept"),
    [
        ("word", "Plan: 14 plu", "Plan: 14 "),
        ("word", "Plan: 14 ", "Plan: 14 "),
        ("word", "one\n\ntw", "one\n\n"),
        ("word", "def f():\n    ret", "def f():\n    "),
        ("word", "unbroken", "unbroken"),
        ("word", "\nunbroken", "\nunbroken"),
        ("word", "a,b,c\nd,e", "a,b,c\n"),
        ("word", "", ""),
        ("word", "我们先算一", "我们先算"),
        ("word", "漢\ufffd", "漢"),
        ("word", "สวัสดีครับเพื่อน", "สวัสดีครับเพื่อ"),
        ("word", "ทำไม่", "ทำ"),  # neither between a vowel and its consonant nor before a mark
        ("word", "👍🏽👩\u200d👧", "👍🏽"),
        ("word", "🇫🇷🇩🇪", "🇫🇷🇩🇪"),
        ("sentence", "It rains. So he sta", "It rains. "),
        ("sentence", 'He said "no!" and wen', 'He said "no!" '),
        ("sentence", "No end in sigh", "No end in "),
        ("sentence", "It costs 3.5 dollars. Ye", "It costs 3.5 dollars. "),
        ("sentence", "unbroken", "unbroken"),
        ("none", "Plan: 14 plu ", "Plan: 14 plu "),
    ],
)
def test_where_guidance_is_cut(cut, written, kept) -> None:
    assert GuidancePolicy(cut=cut).trim(written) == kept


@pytest.mark.parametrize("cut", ["word", "sentence", "none"])
def test_what_can_be_shown_only_grows(cut) -> None:
    text = 'He has 3.5 apples. "Why?" 我们 先算。 Then\nhe eats 2, and so on. End'
    text += " ครับ👨\u200d👩🇫🇷 a,b\n\n c"
    policy = GuidancePolicy(cut=cut)
    for size in range(len(text)):
        shorter, longer = policy.trim(text[:size]), policy.trim(text[: size + 1])
        assert longer.startswith(shorter)
        assert text.startswith(longer)


@pytest.mark.parametrize("cut", ["word", "sentence", "none"])
@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("อาหารไทยมีรสเผ็ดเปรี้ยวหวานเค็ม", 4),
        ("機械学習はデータから規則を見つける技術", 2),
        ("机器学习是一种让计算机从数据中学习的方法", 1),
        ("🎉🎂🎈👨\u200d👩\u200d👧🇫🇷👍🏽🥳", 8),
        ("name,age,city,31,Paris,42,Rome", 0),
        ("https://docs.python.org/3/library/asyncio.html", 0),
    ],
)
def test_text_without_blanks_is_never_thrown_away(cut, text, lost) -> None:
    policy = GuidancePolicy(cut=cut)
    for size in range(1, len(text) + 1):
        kept = policy.trim(text[:size])
        assert kept
        assert text.startswith(kept)
        assert size - len(kept) <= (0 if cut == "none" else lost)


def test_policies_are_checked_and_frozen() -> None:
    with pytest.raises(ValueError, match=r"GuidancePolicy\.tokens must be 0"):
        GuidancePolicy(tokens=-1)
    with pytest.raises(ValueError, match="'word', 'sentence', 'step' or 'none'"):
        GuidancePolicy(cut="letter")
    with pytest.raises(dataclasses.FrozenInstanceError):
        GuidancePolicy().tokens = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        Guidance(text="x", token_count=1).text = "y"


def test_policies_are_dataclasses_all_the_same() -> None:
    policy = GuidancePolicy(tokens=12, ask=1)
    assert dataclasses.asdict(policy) == {
        "tokens": 12,
        "cut": "word",
        "ask": 1,
        "probe_tokens": 1,
        "min_tokens": 0,
        "teacher_prompt": None,
        "predictor": None,
        "gate": None,
        "ladder": None,
        "samples": None,
        "answer_of": None,
        "tools": "teacher",
        "teacher_tools": (),
        "verdict": "steps",
    }
    other = dataclasses.replace(policy, ask=0.5)
    assert (other.tokens, other.ask, other.threshold) == (12, 0.5, 0.5)
    assert {policy, GuidancePolicy(tokens=12, ask=1), other} == {policy, other}
    assert pickle.loads(pickle.dumps(other)) == other
    with pytest.raises(ValueError, match="between 0 and 1"):
        dataclasses.replace(policy, ask=2)


def test_unknown_fields_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(TypeError, match="unknown argument 'probe_token'; did you mean 'probe_to"):
        GuidancePolicy(probe_token=3)


def test_a_bad_file_is_explained_in_one_line(tmp_path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"tokens": -1, "cut": "letter"}')
    with pytest.raises(ValueError, match="does not hold a GuidancePolicy") as caught:
        GuidancePolicy.load(file)
    assert str(caught.value) == (
        f"{file} does not hold a GuidancePolicy: GuidancePolicy.tokens must be 0 (student only) "
        "or more, not -1; GuidancePolicy.cut must be 'word', 'sentence', 'step' or 'none', "
        "not 'letter'"
    )


def test_a_policy_travels_as_a_file(tmp_path) -> None:
    policy = GuidancePolicy(tokens=12, cut="sentence", ask=0.75, probe_tokens=4)
    policy.save(tmp_path / "policy.json")
    assert GuidancePolicy.load(tmp_path / "policy.json") == policy
    for given in (tmp_path / "policy.json", str(tmp_path / "policy.json"), {"tokens": 12}):
        chain = pair(guidance=given, guidance_tokens=12)
        assert chain.guidance_tokens == 12
    assert pair(guidance=tmp_path / "policy.json", guidance_tokens=12).guidance.ask == 0.75


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "does not hold a GuidancePolicy"),
        ("[1]", "holds a list"),
        ('{"token": 3}', "did you mean 'tokens'"),
        ('{"ask": 2}', "between 0 and 1"),
        ('{"ask": true}', "between 0 and 1"),
        ('{"probe_tokens": 0}', "1 or more"),
        ('{"probe_tokens": 2.5}', "GuidancePolicy.probe_tokens must be a whole number"),
        ('{"tokens": "18"}', "GuidancePolicy.tokens must be a whole number"),
    ],
)
def test_a_bad_policy_file_is_named(tmp_path, text, said) -> None:
    file = tmp_path / "policy.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        GuidancePolicy.load(file)
    assert str(file) in str(caught.value)


def test_bad_policies_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="'always', 'never' or a confidence"):
        GuidancePolicy(ask="sometimes")
    with pytest.raises(FileNotFoundError):
        pair(guidance=tmp_path / "none.json")
    with pytest.raises(TypeError, match="guidance must be a GuidancePolicy"):
        pair(guidance=3)


@pytest.mark.parametrize(
    ("probabilities", "mean"),
    [([], 1.0), ([0.25, 1.0], 0.5), ([0.0, 1.0], 0.0), ([1e-30] * 40, 1e-30)],
)
def test_confidence_is_a_geometric_mean(probabilities, mean) -> None:
    assert confidence(probabilities) == pytest.approx(mean)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnGate(Gate):
    """A gate of a user's own, which is no dataclass of pydantic."""

    kind = "own, of these tests"
    above: float

    def __post_init__(self) -> None:
        if self.above < 0:
            raise ValueError("OwnGate.above must be 0 or more")

    def measure(self, student, messages):
        return {}

    def decide(self, signals):
        return "none"


@pytest.mark.parametrize(
    ("make", "builtin", "says"),
    [
        (lambda: Price("-1", "2"), ValueError, r"^Price\.input_mtok must be 0 or more, not -1$"),
        (lambda: Price(0.5, "2"), TypeError, r"^Price\.input_mtok must be a Decimal"),
        (lambda: Price("1"), ValueError, "output_mtok: Field required"),
        (lambda: Price("1", "2", cost=3), TypeError, "unknown argument 'cost'"),
        (lambda: dataclasses.replace(Price("1", "2"), input_mtok="x"), ValueError, "no.* number"),
        (lambda: MachineTime(usd_per_hour="-1"), ValueError, "usd_per_hour must be 0 or more"),
        (lambda: Budget(), ValueError, "Budget limits nothing"),
        (lambda: Budget(usd="1", on_exceeded="x"), ValueError, "on_exceeded: .*'student'"),
        (lambda: GuidancePolicy(tokens=-1), ValueError, "tokens must be 0"),
        (lambda: GuidancePolicy(tokns=1), TypeError, "did you mean 'tokens'"),
        (lambda: GuidancePolicy(gate=3), TypeError, "must be a gate, not int"),
        (lambda: ConfidenceGate(below=2), ValueError, "below must be a number from 0 to 1"),
        (lambda: AgreementGate(samples=0, at_least=1), ValueError, "samples must be"),
        (lambda: OwnGate(above=-1), ValueError, r"^OwnGate\.above must be 0 or more$"),
        (lambda: OwnGate(), TypeError, "missing"),
        (lambda: LastTurns(turns=0), TypeError, "unknown argument 'turns'"),
    ],
)
def test_what_is_wrong_with_a_field_is_an_error_of_the_package(make, builtin, says) -> None:
    with pytest.raises(builtin, match=says) as caught:
        make()
    assert isinstance(caught.value, ConfigurationError)


def test_checked_fields_leave_a_class_what_it_is() -> None:
    policy = GuidancePolicy(gate=ConfidenceGate(below=0.5))
    assert pickle.loads(pickle.dumps(policy)) == dataclasses.replace(policy) == policy
    assert "cached_input_mtok" in inspect.signature(Price).parameters


def test_a_broken_file_is_an_error_of_the_package(tmp_path) -> None:
    (tmp_path / "p.json").write_text('{"tokens": -1}')
    with pytest.raises(ConfigurationError, match=r"hold a GuidancePolicy: .*tokens must"):
        GuidancePolicy.load(tmp_path / "p.json")
