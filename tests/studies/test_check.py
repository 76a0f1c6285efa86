# ruff: noqa: E501
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
    "no title": (ROWS, "title: must be given, one line of text without brackets (title: VALUE)"),
    "no rows": ("title: Mine", "rows: must be given, a list with one item per row such as {policy: bn_stats}"),
    "empty rows": ("title: Mine\nrows: []", "rows=[]: must be a list with one item per row"),
    "rows are a mapping": (
        "title: Mine\nrows: {policy: normal}",
        "rows={policy:normal}: must be a list with one item per row",
    ),
    "a row is a text": (with_rows("normal"), "rows, number 1: must be a mapping such as {policy: ...}, not normal"),
    "a list": ("- policy: normal", "must be a file in conf/study/ with `title` and `rows` (+study=NAME)"),
    "a text": (
        "just text",
        "just text: no such key; a study has title, rows, source, setting, claims, highlight, layer",
    ),
    "an empty file": ("", "must be a file in conf/study/ with `title` and `rows` (+study=NAME)"),
    "not YAML": ("title: Mine\nrows: [{policy: normal}", "line 2, column 7"),
    "unknown key": (
        f"{VALID}colour: red",
        "colour: no such key; a study has title, rows, source, setting, claims, highlight, layer",
    ),
    "unknown key of a row": (
        with_rows("{policy: normal, titel: N}"),
        "rows, number 1: titel: no such key (did you mean title?); a row has policy, title, overrides, published, colour, dash",
    ),
    "unknown key of a claim": (
        with_claim("row: NORMAL, relation: lower, then: ADV"),
        "claims, number 1: then: no such key (did you mean than?); a claim has text, row, relation, than, measure, than_measure, to, margin, published",
    ),
    "policy missing": (
        with_rows("{title: N}"),
        "rows, number 1: policy: must be given, text, not empty (policy: VALUE)",
    ),
    "policy unknown": (
        with_rows("{policy: norml}"),
        "rows, number 1: policy=norml: must be a policy (did you mean normal?); `bnft run --help` lists them",
    ),
    "policy unknown with title": (
        with_rows("{policy: norml, title: N}"),
        "row N: policy=norml: must be a policy (did you mean normal?); `bnft run --help` lists them",
    ),
    "duplicate titles": (
        with_rows("{policy: normal}", "{policy: normal, overrides: [schedule.epochs=3]}"),
        "rows: 2 rows have the title NORMAL; give each a `title` of its own",
    ),
    "title with brackets": (
        with_rows("{policy: normal, title: 'N [a]'}"),
        "rows, number 1: title=N [a]: must be one line of text without brackets",
    ),
    "title of the study is a number": (f"title: 3\n{ROWS}", "title=3: must be one line of text without brackets"),
    "overrides are a text": (
        with_rows("{policy: normal, overrides: schedule.epochs=3}"),
        "rows, number 1: overrides=schedule.epochs=3: must be a list (each text)",
    ),
    "override with an unknown key": (
        with_rows("{policy: normal, title: N, overrides: [schedule.epoch=3]}"),
        "row N: schedule.epoch=3: no such key (did you mean schedule.epochs?); schedule has epochs, batch_size, lr, shape, momentum, nesterov, weight_decay, batchnorm_weight_decay",
    ),
    "override with a wrong value": (
        with_rows("{policy: normal, title: N, overrides: [schedule.epochs=-3]}"),
        "row N: schedule.epochs=-3: must be a whole number, at least 0",
    ),
    "override that is a sweep": (
        with_rows("{policy: normal, title: N, overrides: ['seed=0,1']}"),
        "row N: seed=0,1: must have one value; add a row for each value",
    ),
    "override of the policy": (
        with_rows("{policy: normal, title: N, overrides: [policy=adv]}"),
        "row N: policy=adv: must not be in `overrides` of a row",
    ),
    "override of the store": (
        with_rows("{policy: normal, title: N, overrides: [store=x]}"),
        "row N: store=x: must not be in `overrides` of a row",
    ),
    "override without a value": (
        with_rows("{policy: normal, title: N, overrides: [schedule.epochs]}"),
        "row N: schedule.epochs: must be KEY=VALUE, with quotes around special characters (missing EQUAL at '<EOF>')",
    ),
    "override twice": (
        with_rows("{policy: normal, title: N, overrides: [seed=1, seed=2]}"),
        "row N: seed: must be only once in `overrides` of a row",
    ),
    "a row has an empty policy": (
        with_rows("{policy: null}"),
        "rows, number 1: policy: must be given, text, not empty (policy: VALUE)",
    ),
    "reference is not for files": (
        with_rows("{policy: normal, reference: {}}"),
        "rows, number 1: reference: no such key; a row has policy, title, overrides, published, colour, dash",
    ),
    "a claim is a text": (
        f"title: Mine\n{ROWS}\nclaims: [better]",
        "claims, number 1: must be a mapping such as {text: ...}, not better",
    ),
    "margin with a measure that has none": (
        with_claim("row: NORMAL, relation: higher, than: ADV, margin: 1, measure: mean_m"),
        "claims, number 1: margin=1: must be left out with relation=higher; only `same` has one",
    ),
    "bad colour": (
        with_rows("{policy: normal, colour: red}"),
        "rows, number 1: colour=red: must be a colour as #RRGGBB or null",
    ),
    "bad dash": (
        with_rows("{policy: normal, dash: 4}"),
        "rows, number 1: dash=4: must be a whole number, at least 0, at most 3",
    ),
    "published above 100": (
        with_rows("{policy: normal, published: {clean_error: 101, robust_error: 5}}"),
        "rows, number 1: published.clean_error=101: must be a number, at least 0, at most 100",
    ),
    "published is a number": (
        with_rows("{policy: normal, published: 5}"),
        "rows, number 1: published=5: must be a mapping with clean_error, robust_error, learning",
    ),
    "published lacks a key": (
        with_rows("{policy: normal, published: {clean_error: 5}}"),
        "rows, number 1: published.robust_error: must be given, a number, at least 0, at most 100 (published.robust_error: VALUE)",
    ),
    "row of a claim unknown": (
        with_claim("row: NORMALL, relation: lower, than: ADV"),
        "claims, number 1: row=NORMALL: must be the title of a row (did you mean NORMAL?): NORMAL, ADV",
    ),
    "than of a claim unknown": (
        with_claim("row: NORMAL, relation: lower, than: adv"),
        "claims, number 1: than=adv: must be the title of a row: NORMAL, ADV",
    ),
    "relation unknown": (
        with_claim("row: NORMAL, relation: less, than: ADV"),
        "claims, number 1: relation=less: must be one of lower, far lower, same, nearly the same, slightly higher, higher, much higher with measure=robust_error",
    ),
    "measure unknown": (
        with_claim("row: NORMAL, relation: lower, than: ADV, measure: error"),
        "claims, number 1: measure=error: must be one of clean_error, robust_error, mean_abs_gamma, mean_abs_gamma_minus_1, mean_abs_beta, variance_range, mean_m, scores, pgd_loss",
    ),
    "relation of another measure": (
        with_claim("row: NORMAL, relation: same, than: ADV, measure: mean_m"),
        "claims, number 1: relation=same: must be one of lower, higher, lower in most layers, higher in most layers with measure=mean_m",
    ),
    "margin with lower": (
        with_claim("row: NORMAL, relation: lower, than: ADV, margin: 3"),
        "claims, number 1: margin=3: must be left out with relation=lower; only `same` has one",
    ),
    "margin below 0": (
        with_claim("row: NORMAL, relation: same, than: ADV, margin: -3"),
        "claims, number 1: margin=-3: must be a number, above 0, or null",
    ),
    "constant with a distribution": (
        with_claim("row: NORMAL, relation: lower, than: constant, measure: mean_m"),
        "claims, number 1: than=constant: must be the title of a row with measure=mean_m",
    ),
    "closer without to": (
        with_claim("row: NORMAL, relation: closer, than: ADV, measure: scores"),
        "claims, number 1: to=null: must be the title of a row with relation=closer, and left out otherwise",
    ),
    "row compared with itself": (
        with_claim("row: NORMAL, relation: lower, than: NORMAL"),
        "claims, number 1: than=NORMAL: must be another row than `row`, or have another `than_measure`",
    ),
    "unknown highlight": (
        f"{VALID}highlight: [NORMAL, ADVV]",
        "highlight=ADVV: must be the title of a row (did you mean ADV?): NORMAL, ADV",
    ),
    "layer 0": (f"{VALID}layer: 0", "layer=0: must be a whole number, at least 1"),
    "setting that does not compose": (
        with_rows(
            "{policy: normal, published: {clean_error: 5, robust_error: 5}}",
            rest="setting: {data: CIFAR, overrides: [data=cifar]}",
        ),
        "setting: data=cifar: must be one of cifar10, digits, npz",
    ),
    "unknown key of the setting": (
        f"{VALID}setting: {{data: CIFAR, image: 3}}",
        "image: no such key; `setting` has data, overrides, parameters, training_images, clean_images, robust_images, constant_error",
    ),
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
    assert tree(tmp_path) == before
    assert said in line and (name == "not YAML" or line.startswith("bnft: study=mine: "))
