"""Studies as sweeps: rows times seeds, what is refused, and what is recorded."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import ROOT, TINY, Outcome, refusal

from bnft.report.rows import select
from bnft.report.table import render
from bnft.runs.plan import plan
from bnft.runs.store import Store
from bnft.studies.study import Study

Launch = Callable[..., Outcome]

MINE = {
    "title": "Which layers?",
    "rows": [
        {"policy": "normal"},
        {"policy": "bn_params", "title": "all"},
        {"policy": "bn_params", "title": "last", "overrides": ["freeze_policy.parameters=[batchnorm@stage3]"]},
    ],
    "claims": [{"text": "All beats last", "row": "all", "relation": "lower", "than": "last"}],
}


@pytest.mark.usefixtures("hydra")
def test_rows_are_combined_with_the_other_axes(tmp_path: Path) -> None:
    lines = [[f"seed={seed}", f"store={tmp_path}", *TINY] for seed in (0, 1)]
    planned = plan(lines, study=("mine", MINE))
    found = [(run.row, run.config["seed"], run.changed) for run in planned.runs]
    evaluation = {"evaluation.attack": "pgd", "evaluation.version": None}
    assert [(row, seed) for row, seed, _ in found] == [(r, s) for s in (0, 1) for r in ("NORMAL", "all", "last")]
    assert all(changed.items() >= evaluation.items() for _, _, changed in found)
    assert planned.study is not None and Study.decoded(planned.study.encoded()) == planned.study


@pytest.mark.usefixtures("hydra")
def test_the_command_line_wins_over_a_row_and_is_recorded(tmp_path: Path) -> None:
    line = [f"store={tmp_path}", "freeze_policy.parameters=[batchnorm@stage2]"]
    rows = [MINE["rows"][0], MINE["rows"][2]]
    planned = plan([line], study=("mine", {"title": "Mine", "rows": rows}))
    changed = {run.row: run.changed for run in planned.runs}
    assert changed["last"] == {"freeze_policy.parameters": ["batchnorm@stage2"]}


def own_study(text: str) -> None:
    Path("conf/study").mkdir(parents=True, exist_ok=True)
    Path("conf/study/mine.yaml").write_text(text)


TWO = "title: Mine\nrows: [{policy: normal}, {policy: normal, title: Seven, overrides: [schedule.epochs=7]}]\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-m", "+study=mine", "schedule.epochs=1"), "rows NORMAL and Seven are the same run"),
        (("-m", "+study=mine", "policy=adv"), "policy: must be left out with +study=mine"),
        (("+study=mine",), "study: needs -m"),
    ],
)
def test_what_is_refused(launch: Launch, arguments: tuple[str, ...], said: str) -> None:
    own_study(TWO)
    assert said in refusal(launch(*arguments))


def test_a_study_from_its_file_to_its_table(launch: Launch) -> None:
    own_study(TWO)
    outcome = launch("-m", "+study=mine", *TINY[1:], "wandb.mode=disabled", "hydra/launcher=basic")
    assert outcome.code == 0, outcome.err
    store = Store("multirun")
    (sweep,) = store.sweeps()
    assert [entry["row"] for entry in store.sweep(sweep)["runs"]] == ["NORMAL", "Seven"]
    text = render(select(store), "md")
    assert text.startswith("**Mine on digits") and "| Seven (PGD)" in text
    own_study(TWO.replace("Mine", "Yours"))
    again = launch("-m", "+study=mine", *TINY[1:], "wandb.mode=disabled", "hydra/launcher=basic")
    assert again.code == 0 and len(store.sweeps()) == 2
    assert [study.definition.title for study in select(store, ["all"]).studies() if study.definition] == ["Yours"]


def test_the_report_names_no_policy() -> None:
    """What it shows is decided by study files."""
    names = {file.stem for file in (ROOT / "conf" / "policy").glob("*.yaml")}
    titles = {
        match[1]
        for file in (ROOT / "conf" / "policy").glob("*.yaml")
        if (match := re.search(r"^title: (.+?)(?: #.*)?$", file.read_text(), re.MULTILINE))
    }
    quoted = re.compile(r"""["']({})["']""".format("|".join(map(re.escape, names | titles))))
    for room in ("report", "studies"):
        for file in (ROOT / "bnft" / room).rglob("*.py"):
            text = re.sub('Weight": "normal"', "", file.read_text())  # of a font
            assert not (found := quoted.findall(text)), (file, found)
