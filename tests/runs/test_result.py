"""Records of runs: read as they were written, refused if they are newer or not whole."""

import json
from pathlib import Path
from typing import Any

import pytest

from bnft.common.errors import DamagedError, InputError
from bnft.runs.result import FORMAT, Result, RunRecord, TrainingRecord, plain, read

KEPT = Path(__file__).parents[2] / "docs" / "results"
FILE = Path("result.json")


@pytest.fixture
def values() -> dict[str, Any]:
    """A result from before records had a format."""
    file = min(KEPT.glob("cifar10/adv-*/evaluation/*/result.json"))
    values: dict[str, Any] = json.loads(file.read_text())
    return values


def test_a_result_is_read_as_it_was_written(values):
    result = read(Result, values, FILE)
    assert read(Result, json.loads(json.dumps(plain(result))), FILE) == result
    assert result.format == 1 and result.training.counts.share == 100.0


@pytest.mark.parametrize(
    "place",
    [
        ("run", "policy"),
        ("seed",),
        ("evaluation", "attack"),
        ("data", "target"),
        ("clean", "error"),
        ("robust", "errors"),
    ],
)
def test_what_other_programs_read_stays_in_its_place(values, place):
    written = plain(read(Result, values, FILE))
    expected = values
    for key in place:
        written, expected = written[key], expected[key]
    assert written == expected


@pytest.mark.parametrize("kind", [Result, RunRecord, TrainingRecord])
def test_a_newer_format_is_refused(values, kind):
    newer = {**values, "format": FORMAT + 1}
    with pytest.raises(InputError, match=f"result.json: has format {FORMAT + 1}.*up to {FORMAT}; install a newer bnft"):
        read(kind, newer, FILE)


def test_what_is_missing_or_of_another_type_is_named(values):
    del values["run"]["policy"], values["seed"]
    with pytest.raises(DamagedError, match=r"run\.policy, seed is missing$"):
        read(Result, values, FILE)
    values |= {"seed": 0, "run": {"policy": "adv", "title": "ADV", "identity": {}}}
    values["robust"]["errors"] = "many"
    with pytest.raises(DamagedError, match=r"robust\.errors is invalid"):
        read(Result, values, FILE)
    with pytest.raises(DamagedError, match="is damaged"):
        read(Result, [], FILE)
