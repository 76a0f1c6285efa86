"""Malformed study files: one line that names the file, the place and the way out, and nothing is written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import Outcome, refusal, tree

Launch = Callable[..., Outcome]

ROWS = "rows: [{policy: normal}, {policy: adv}]"
CLAIM = "claims: [{text: T, row: NORMAL, relation: lower, than: ADV}]"
VALID = f"title: Mine\n{ROWS}\n{CLAIM}\n"


def with_rows(*rows: str, rest: str = "") -> str:
    return f"title: Mine\nrows: [{', '.join(rows)}]\n{rest}\n"


def with_claim(claim: str) -> str:
    return f"title: Mine\n{ROWS}\nclaims: [{{text: T, {claim}}}]\n"


MALFORMED = {
    "no title": (ROWS, []),
    "no rows": ("title: Mine", []),
    "empty rows": ("title: Mine\nrows: []", []),
    "rows are a mapping": ("title: Mine\nrows: {policy: normal}", []),
    "a row is a text": (with_rows("normal"), []),
    "a list": ("- policy: normal", []),
    "a text": ("just text", []),
    "an empty file": ("", []),
    "not YAML": ("title: Mine\nrows: [{policy: normal}", []),
    "unknown key": (f"{VALID}colour: red", []),
    "unknown key of a row": (with_rows("{policy: normal, titel: N}"), []),
    "unknown key of a claim": (with_claim("row: NORMAL, relation: lower, then: ADV"), []),
    "policy missing": (with_rows("{title: N}"), []),
    "policy unknown": (with_rows("{policy: norml}"), []),
    "policy unknown with title": (with_rows("{policy: norml, title: N}"), []),
    "duplicate titles": (with_rows("{policy: normal}", "{policy: normal, overrides: [schedule.epochs=3]}"), []),
    "title with brackets": (with_rows("{policy: normal, title: 'N [a]'}"), []),
    "title of the study is a number": (f"title: 3\n{ROWS}", []),
    "overrides are a text": (with_rows("{policy: normal, overrides: schedule.epochs=3}"), []),
    "override with an unknown key": (with_rows("{policy: normal, title: N, overrides: [schedule.epoch=3]}"), []),
    "override with a wrong value": (with_rows("{policy: normal, title: N, overrides: [schedule.epochs=-3]}"), []),
    "override that is a sweep": (with_rows("{policy: normal, title: N, overrides: ['seed=0,1']}"), []),
    "override of the policy": (with_rows("{policy: normal, title: N, overrides: [policy=adv]}"), []),
    "override of the store": (with_rows("{policy: normal, title: N, overrides: [store=x]}"), []),
    "override without a value": (with_rows("{policy: normal, title: N, overrides: [schedule.epochs]}"), []),
    "override twice": (with_rows("{policy: normal, title: N, overrides: [seed=1, seed=2]}"), []),
    "a row has an empty policy": (with_rows("{policy: null}"), []),
    "reference is not for files": (with_rows("{policy: normal, reference: {}}"), []),
    "a claim is a text": (f"title: Mine\n{ROWS}\nclaims: [better]", []),
    "margin with a measure that has none": (
        with_claim("row: NORMAL, relation: higher, than: ADV, margin: 1, measure: mean_m"),
        [],
    ),
    "bad colour": (with_rows("{policy: normal, colour: red}"), []),
    "bad dash": (with_rows("{policy: normal, dash: 4}"), []),
    "published above 100": (with_rows("{policy: normal, published: {clean_error: 101, robust_error: 5}}"), []),
    "published is a number": (with_rows("{policy: normal, published: 5}"), []),
    "published lacks a key": (with_rows("{policy: normal, published: {clean_error: 5}}"), []),
    "row of a claim unknown": (with_claim("row: NORMALL, relation: lower, than: ADV"), []),
    "than of a claim unknown": (with_claim("row: NORMAL, relation: lower, than: adv"), []),
    "relation unknown": (with_claim("row: NORMAL, relation: less, than: ADV"), []),
    "measure unknown": (with_claim("row: NORMAL, relation: lower, than: ADV, measure: error"), []),
    "relation of another measure": (with_claim("row: NORMAL, relation: same, than: ADV, measure: mean_m"), []),
    "margin with lower": (with_claim("row: NORMAL, relation: lower, than: ADV, margin: 3"), []),
    "margin below 0": (with_claim("row: NORMAL, relation: same, than: ADV, margin: -3"), []),
    "constant with a distribution": (with_claim("row: NORMAL, relation: lower, than: constant, measure: mean_m"), []),
    "closer without to": (with_claim("row: NORMAL, relation: closer, than: ADV, measure: scores"), []),
    "row compared with itself": (with_claim("row: NORMAL, relation: lower, than: NORMAL"), []),
    "unknown highlight": (f"{VALID}highlight: [NORMAL, ADVV]", []),
    "layer 0": (f"{VALID}layer: 0", []),
    "setting that does not compose": (
        with_rows(
            "{policy: normal, published: {clean_error: 5, robust_error: 5}}",
            rest="setting: {data: CIFAR, overrides: [data=cifar]}",
        ),
        [],
    ),
    "unknown key of the setting": (f"{VALID}setting: {{data: CIFAR, image: 3}}", []),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_gives_one_line(
    name: str, launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, said = MALFORMED[name]
    file = tmp_path / "conf" / "study" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    before = tree(tmp_path)
    monkeypatch.setattr("bnft.launching.tasks", lambda *_: pytest.fail("was not refused"))
    line = refusal(launch("-m", "+study=mine"))
    print("SAID", name, "::", line)
    assert tree(tmp_path) == before
    for part in said:
        assert part in line
