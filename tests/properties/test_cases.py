"""Whatever comes in is accepted or refused in words; `make properties` is the long form."""

import random
import re
import sys
import warnings
from pathlib import Path

import pytest

from tests.properties.campaign import Outcome, Scale, run_all_cases, table
from tests.properties.cases import Hang, Surprise, refused, run_cases
from tests.properties.damage import damaged, damaged_data

SHORT = Scale(seed=20, steps=0, shares=10)


def test_whatever_comes_in_is_accepted_or_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(scale=SHORT, tallies=run_all_cases(tmp_path, SHORT))
    with capsys.disabled():
        sys.stdout.write(f"\n{table(outcome)}\n")
    assert all(0 < tally.accepted < tally.cases for tally in outcome.tallies)


def test_a_surprise_names_the_case_that_shows_it_again() -> None:
    def case(rng: random.Random) -> bool:
        if rng.random() < 0.1:
            raise KeyError("odd")
        return True

    with pytest.raises(Surprise, match=r"kind, seed 3, case \d+: KeyError: 'odd'") as raised:
        run_cases("kind", case, count=100, seed=3)
    found = re.search(r"case (\d+)", str(raised.value))
    assert found
    with pytest.raises(KeyError):
        case(random.Random(f"kind/3/{found[1]}"))


def test_a_case_that_hangs_and_one_that_eats_memory_are_surprises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.properties.cases.LONGEST_CASE_S", 0.2)

    def endless(_rng: random.Random) -> bool:
        while True:
            pass

    with pytest.raises(Surprise, match="computed for more than") as raised:
        run_cases("endless", endless, count=1, seed=1)
    assert isinstance(raised.value.__cause__, Hang)


def test_a_warning_is_a_surprise() -> None:
    def case(_rng: random.Random) -> bool:
        warnings.warn("look out", stacklevel=1)
        return True

    with pytest.raises(Surprise, match="look out"):
        run_cases("warning", case, count=1, seed=1)


def test_an_error_must_be_documented_and_name_its_place() -> None:
    def fail() -> None:
        raise ValueError("context[0].image: is odd")

    assert refused(fail, ValueError, naming="context[0]")
    with pytest.raises(AssertionError, match="does not name 'name'"):
        refused(fail, ValueError, naming="name")
    with pytest.raises(ValueError, match="odd"):
        refused(fail, KeyError)
    assert not refused(lambda: None, ValueError)


def test_the_same_seed_does_the_same_damage() -> None:
    data = {"name": "a", "context": [{"text": "A cat"}, {"image": "b.png"}], "seed": 5}
    assert repr(damaged_data(data, random.Random(4))) == repr(damaged_data(data, random.Random(4)))
    assert damaged(b"name: a\n", random.Random(4)) == damaged(b"name: a\n", random.Random(4))
    assert data == {"name": "a", "context": [{"text": "A cat"}, {"image": "b.png"}], "seed": 5}
