"""`bnft transfer`: the matrix of small real runs, its formats, and what is left out."""

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import warm
from support.command import ROOT, TINY, Outcome, refusal
from support.written import EVALUATION, study, sweep, write

import bnft as api
from bnft.evaluation.settings import quick_instead
from bnft.report.rows import select
from bnft.report.transfer import _comparable, _of_one_attack
from bnft.runs.store import Store

Launch = Callable[..., Outcome]
RESULTS = ROOT / "docs" / "results" / "cifar10"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with NORMAL and BN STATS, with two seeds each, and NORMAL within another budget."""
    store, usual = tmp_path_factory.mktemp("transfer") / "multirun", [*TINY, "evaluation.n_images=60", "model.width=4"]
    for line in (["policy=normal,bn_stats", "seed=0,1"], ["policy=normal", "evaluation.eps=0.1"]):
        command = ["run", "-m", *line, *usual, f"store={store}", "hydra/launcher=basic", "wandb.mode=disabled"]
        warm.run([sys.executable, "-m", "bnft", *command], check=True, capture_output=True, timeout=200)
    return store


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "multirun"))


def test_the_matrix_of_runs(store: Path, bnft: Launch) -> None:
    outcome = bnft("transfer", "all", "--store", str(store), "--format", "json")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    second, first = found["rows"]
    assert (first, second) == ("NORMAL (PGD)", "BN STATS (reset) (PGD)")
    assert (found["norm"], found["eps"]) == ("Linf", 0.15)
    (left_out,) = found["left_out"]
    assert "eps=0.1 instead of 0.15" in left_out and left_out.startswith("NORMAL")
    cells = {(cell["source"], cell["target"]): cell for cell in found["cells"]}
    assert len(cells) == 4
    for row in (first, second):
        assert cells[row, row]["error"] == 100.0, "a model transfers to itself fully"
        assert cells[row, row]["seeds"] == [0, 1]
    assert cells[first, second]["error"] == pytest.approx(known(store, "normal", "bn_stats"))
    assert cells[second, first]["error"] == pytest.approx(known(store, "bn_stats", "normal"))
    table = " ".join(bnft("transfer", "all", "--store", str(store)).out.split())  # a narrow table wraps its title
    assert "Linf eps 0.15" in table and f"of {cells[first, first]['images']}" in table and left_out in table
    lines = list(csv.DictReader(io.StringIO(bnft("transfer", "all", "--store", str(store), "--format", "csv").out)))
    assert [float(line["error"]) for line in lines] == [cell["error"] for cell in found["cells"]]
    assert lines[0]["seeds"] == "0 1"
    same = api.transfer(store, "all")
    assert list(same.records) == found["cells"] and same.left_out == (left_out,)
    assert "of the images" in str(same) and "<table>" in same._repr_html_()


def known(store: Path, source: str, target: str) -> float:
    """Compute the mean error over seeds from the stored files, independently."""
    import torch

    results = {
        (one.run.policy, one.seed): one
        for one in select(Store(store), ["all"]).results
        if one.result.evaluation.eps == 0.15
    }
    errors = []
    for seed in (0, 1):
        ours, theirs = (results[policy, seed] for policy in (source, target))
        images, clean = ours.outcomes(), theirs.outcomes()
        labels = clean["labels"][:60]
        tried = (images["fallen_at"] > 0) & (clean["clean_logits"][:60].argmax(1) == labels)
        with torch.no_grad():
            logits = api.load(theirs.run_folder.path)(torch.from_numpy(images["adversarial"][tried]))
        errors.append(100 * float(np.mean(logits.numpy().argmax(1) != labels[tried])))
    return float(np.mean(errors))


def test_images_of_a_curve_are_not_compared_with_those_within_eps(tmp_path: Path) -> None:
    """They are within the smallest budget that broke them, so they transfer less."""
    one, usual = Store(tmp_path / "multirun"), {**EVALUATION, "attack": "quick", "restarts": 1, "seed": 0}
    for policy, evaluation in (("adv", usual), ("normal", usual), ("adv", {**usual, "budgets": [0.05, 0.15]})):
        write(one, policy, evaluation=without_version(evaluation))
    rows = study(one).rows
    kept, left_out = _comparable(dict(zip(study(one).labels(), rows, strict=True)))
    assert len(kept) == 2 and len(rows) == 3
    assert len(left_out) == 1 and "budgets=[0.05,0.15] instead of null" in left_out[0]


def without_version(evaluation: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in evaluation.items() if key != "version"}


def test_a_model_has_one_row_and_attacks_are_not_mixed(tmp_path: Path) -> None:
    one, usual = Store(tmp_path / "multirun"), {**EVALUATION, "seed": 0}
    quick = without_version({**usual, "attack": "quick", "restarts": 1})
    for policy, evaluation in (("adv", usual), ("adv", {**usual, "version": "plus"}), ("normal", usual)):
        write(one, policy, evaluation=evaluation)
    write(one, "bn_stats", evaluation=quick)
    labels = dict(zip(study(one).labels(), study(one).rows, strict=True))
    kept, left_out = _comparable(labels)
    assert sorted(row.policy for row in kept.values()) == ["adv", "normal"] and len(left_out) == 2
    assert any("is another evaluation of the models of ADV" in reason for reason in left_out)
    assert any("attack=quick instead of autoattack" in reason for reason in left_out)


def test_while_a_sweep_is_half_done_the_previews_of_all_rows_are_compared(tmp_path: Path) -> None:
    one, usual = Store(tmp_path / "multirun"), {**EVALUATION, "seed": 0}
    quick, entries = quick_instead(usual), []
    for policy, done in (("adv", True), ("normal", False)):
        preview = write(one, policy, evaluation=quick)["evaluation"]
        entries.append({**write(one, policy, evaluation=usual, done=done), "preview": preview})
    shown = select(one, [sweep(one, *entries)])
    assert sorted(result.result.evaluation.attack for result in shown.results) == ["autoattack", "quick"]
    assert [result.result.evaluation.attack for result in _of_one_attack(shown).results] == ["quick"] * 2


def test_runs_without_a_model_are_named(store: Path, bnft: Launch) -> None:
    for file in store.glob("bn_stats-*/model.safetensors"):
        file.unlink()
    found = json.loads(bnft("transfer", "all", "--store", str(store), "--format", "json").out)
    assert len(found["rows"]) == 1 and found["rows"][0].startswith("NORMAL")
    assert sum(one.startswith("BN STATS") and "model.safetensors" in one for one in found["left_out"]) == 2
    for file in store.glob("*/model.safetensors"):
        file.unlink()
    line = refusal(bnft("transfer", "all", "--store", str(store)))
    assert "needs runs with their models and adversarial images" in line


def test_runs_that_are_not_done_are_named(store: Path, bnft: Launch) -> None:
    """The newest sweep is one run."""
    for file in store.glob("*/evaluation/*/result.json"):
        file.unlink()
    assert "(normal-" in (line := refusal(bnft("transfer", "--store", str(store)))) and "is not done yet)" in line


def test_a_device_that_does_not_exist_is_refused(store: Path, bnft: Launch) -> None:
    assert "device=tpu: must be one of auto, cpu" in refusal(
        bnft("transfer", "all", "--store", str(store), "--device", "tpu")
    )


@pytest.mark.parametrize("arguments", [["--help"], ["table", "all", "--store", str(RESULTS)]], ids=["help", "table"])
def test_help_and_table_import_no_pytorch(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom bnft.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
