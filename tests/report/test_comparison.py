"""`bnft diff` and `bnft show`: what a run is, and what makes two runs different."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command import TINY, Outcome, refusal, tree
from support.made_store import MadeStore

from bnft.common.stopping import steady
from bnft.report.comparison import leaves
from bnft.runs import identity
from bnft.runs.store import Store

Bnft = Callable[..., Outcome]


@pytest.fixture
def made(tmp_path: Path) -> MadeStore:
    made = MadeStore(Store(tmp_path / "multirun")).add(["normal", "bn_params", "bn_only_params"], seeds=(0, 1))
    made.sweep()
    return made


def names(made: MadeStore, policy: str) -> list[str]:
    """Return the runs of a policy by seed."""
    seeds = {run: result["seed"] for (run, _), result in made.results.items() if result["run"]["policy"] == policy}
    return sorted(seeds, key=lambda run: seeds[run])


# the leaves that differ

RUN: dict[str, Any] = {"seed": 0, "schedule": {"epochs": 3, "lr": 0.1}, "attack": {"eps": 0.1}}


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (RUN, RUN, {}),
        (RUN, {**RUN, "seed": 1}, {"seed": (0, 1)}),
        (RUN, {**RUN, "schedule": {"epochs": 3}}, {"schedule.lr": (0.1, None)}),
        (RUN, {"seed": 0, "schedule": RUN["schedule"]}, {"attack.eps": (0.1, None)}),
        ({**RUN, "base": RUN}, {**RUN, "base": {**RUN, "seed": 2}}, {"base.seed": (0, 2)}),
        ({**RUN, "base": RUN}, RUN, {"base": (f"run {identity.digest(RUN)}", None)}),
        (
            {**RUN, "base": RUN},
            {**RUN, "base": {"sha256": "f" * 64}},
            {"base": (f"run {identity.digest(RUN)}", f"file {'f' * 10}")},
        ),
        (
            {"base": {**RUN, "base": RUN}},
            {"base": {**RUN, "seed": 1, "base": {"sha256": "f" * 64}}},
            {"base.base": (f"run {identity.digest(RUN)}", f"file {'f' * 10}"), "base.seed": (0, 1)},
        ),
        ({"base": {"sha256": "e" * 64}}, {"base": {"sha256": "f" * 64}}, {"base.sha256": ("e" * 64, "f" * 64)}),
    ],
)
def test_leaves_differ_from_either_side(ours: Any, theirs: Any, expected: dict[str, tuple[Any, Any]]) -> None:
    assert leaves(ours, theirs) == expected
    assert leaves(theirs, ours) == {key: (right, left) for key, (left, right) in expected.items()}


def test_a_leaf_of_the_base_has_a_dotted_name(made: MadeStore, bnft: Bnft) -> None:
    first, second = names(made, "bn_params")
    before = tree(made.store.root)
    found = json.loads(bnft("diff", first, second, "--format", "json").out)
    assert found["differences"] == {"seed": [0, 1], "base.seed": [0, 1]}
    (row,) = found["results"]
    for side, name in (("a", first), ("b", second)):
        result = made.results[name, row["evaluation"].partition(":")[0]]
        assert row[side]["robust"]["error"] == result["robust"]["error"]
        assert row[side]["clean"]["interval"] == list(result["clean"]["interval"])
    lines = bnft("diff", first, second).out.splitlines()
    assert ["base.seed", "0", "1"] in [line.split() for line in lines]
    assert any("Linf eps 0.15, 200 images" in line and line.count("[") == 4 for line in lines)
    assert tree(made.store.root) == before


def test_runs_of_two_policies(made: MadeStore, bnft: Bnft) -> None:
    found = json.loads(
        bnft("diff", names(made, "bn_params")[0], names(made, "bn_only_params")[0], "--format", "json").out
    )
    assert found["differences"] == {"freeze_policy.statistics": ["update", "frozen"]}
    one = names(made, "normal")[0]
    assert "Their identities are the same." in bnft("diff", one, one).out


# one run


def test_a_run_on_one_screen(made: MadeStore, bnft: Bnft) -> None:
    run, base = names(made, "bn_params")[1], names(made, "normal")[1]
    before = tree(made.store.root)
    found = json.loads(bnft("show", run, "--format", "json").out)
    assert (found["title"], found["seed"], found["bases"]) == ("BN PARAMS", 1, [base])
    assert found["command"] == "bnft run policy=bn_params seed=1" and found["sweeps"] == made.store.sweeps()
    assert [state["state"] for state in found["states"]] == ["done"]
    (result,) = found["results"]
    assert result["robust"]["error"] == made.results[run, result["evaluation"]]["robust"]["error"]
    on_disk = {str(file.relative_to(made.store.run(run).path)) for file in made.store.run(run).path.rglob("*.*")}
    assert found["files"].keys() == {name for name in on_disk if (made.store.run(run).path / name).is_file()}
    text = bnft("show", run).out
    lines = {line.split()[0]: line for line in text.splitlines() if line}
    assert base in lines["base"] and "77,754 parameters" in lines["model"] and "eps=0.15" in lines["attack"]
    assert len(text.splitlines()) < 40
    assert tree(made.store.root) == before


def test_what_is_not_done_is_said(made: MadeStore, bnft: Bnft) -> None:
    run = names(made, "bn_params")[0]
    folder = made.store.run(run)
    for file in (*folder.path.rglob("result.json"), folder.path / "model.safetensors"):
        file.unlink()
    folder.write_status(state="running", stage="training", epoch=1, epochs=5)
    state = bnft("show", run).out.partition("state")[2].splitlines()[0]
    assert "failed" in state and "it was killed while training: epoch 2 of 5" in state
    with made.store.locked(run, steady, steady):
        (status,) = json.loads(bnft("show", run, "--format", "json").out)["states"]
    assert (status["state"], status["detail"]) == ("training", "epoch 2 of 5")


def test_a_run_that_has_only_results_is_shown(made: MadeStore, bnft: Bnft) -> None:
    run = names(made, "bn_params")[0]
    (made.store.run(run).path / "config.yaml").unlink()
    assert "BN PARAMS" in bnft("show", run).out and bnft("diff", run, names(made, "normal")[0]).code == 0


def test_real_runs_differ_in_what_was_overridden(tmp_path: Path, launch: Bnft, bnft: Bnft) -> None:
    line = ("-m", "policy=bn_params", "schedule.lr=0.1,0.2", *TINY, "wandb.mode=disabled", "hydra/launcher=basic")
    assert launch(*line).code == 0
    store = Store(tmp_path / "multirun")
    first, second = (entry["run"] for entry in store.sweep(store.sweeps()[0])["runs"])
    assert json.loads(bnft("diff", first, second, "--format", "json").out)["differences"] == {"schedule.lr": [0.1, 0.2]}
    text = bnft("show", second).out
    assert "schedule.lr=0.2" in text.partition("command")[2] and "normal-" in text and "model.safetensors" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "adv-0123456789"), "adv-0123456789: must be a run in multirun"),
        (("diff", "adv-0123456789", "adv-0123456789"), "must be a run"),
        (("diff", "adv-0123456789"), "the following arguments are required: B"),
        (("show", "."), "must be a run"),
    ],
)
def test_bad_input(made: MadeStore, bnft: Bnft, arguments: tuple[str, ...], said: str) -> None:
    assert said in refusal(bnft(*arguments))


def test_the_name_of_a_sweep_is_refused_with_the_way_out(made: MadeStore, bnft: Bnft) -> None:
    (sweep,) = made.store.sweeps()
    assert f"it is a sweep, and `bnft status {sweep}` lists its runs" in refusal(bnft("show", sweep))


@pytest.mark.parametrize("command", ["list", "show", "diff", "remove"])
def test_no_pytorch(made: MadeStore, command: str) -> None:
    normal = names(made, "normal")
    given = {"list": [], "show": normal[:1], "diff": normal, "remove": made.store.sweeps()}
    program = (
        "import sys\nfrom bnft.cli import main\nmain(sys.argv[1:])\n"
        "print(sorted({'torch', 'hydra', 'altair'} & sys.modules.keys()), file=sys.stderr)\n"
    )
    line = [sys.executable, "-c", program, command, *given[command], "--store", str(made.store.root)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "[]\n"
