"""`bnft why`: what is there, what would run, and the run that is nearest to one that is not there."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import warm
from support.command import ROOT, TINY, Outcome, refusal, tree

from bnft.runs.store import Store

Bnft = Callable[..., Outcome]
LINE = ("-m", "policy=bn_params", *TINY, "wandb.mode=disabled")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one real run of BN PARAMS and its base."""
    folder = tmp_path_factory.mktemp("why")
    command = [sys.executable, str(ROOT / "launch.py"), *LINE, "hydra/launcher=basic"]
    warm.run(command, cwd=folder, check=True, capture_output=True, timeout=200)
    return folder / "multirun"


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Store:
    return Store(shutil.copytree(trained, tmp_path / "multirun"))


@pytest.fixture
def why(store: Store, bnft: Bnft) -> Callable[..., list[dict[str, Any]]]:
    """What `bnft why` says, after checking that it wrote nothing."""

    def call(*arguments: str) -> list[dict[str, Any]]:
        before = tree(store.root.parent)
        done = bnft("why", *arguments, "--format", "json")
        assert done.code == 0, done
        assert tree(store.root.parent) == before
        found: list[dict[str, Any]] = json.loads(done.out)
        return found

    return call


def test_nothing_would_run_for_what_is_done(store: Store, why: Any, bnft: Bnft) -> None:
    base, run = why(*LINE)
    entry = store.sweep(store.sweeps()[0])["runs"][0]
    assert (run["run"], run["evaluation"]) == (entry["run"], entry["evaluation"])
    assert (run["there"], run["would"], run["nearest"]) == ("it is done", "nothing", None)
    assert (base["there"], base["would"]) == ("it is trained", "nothing")
    assert bnft("why", *LINE).out.endswith("1 run asked for, 1 done; nothing would run\n")


def test_the_nearest_run_and_the_leaves_that_made_another(store: Store, why: Any, bnft: Bnft) -> None:
    (entry,) = store.sweep(store.sweeps()[0])["runs"]
    longer = [part.replace("schedule.epochs=1", "schedule.epochs=4", 1) for part in LINE[:3]] + [*LINE[3:]]
    _, run = why(*longer)
    assert (run["there"], run["would"]) == ("it does not exist", "training and evaluation")
    assert run["nearest"] == entry["run"] and run["differences"] == {"schedule.epochs": [4, 1]}
    result = store.run(entry["run"]).evaluation(entry["evaluation"]).result()
    assert result is not None and result.training.seconds is not None
    assert run["seconds"] == pytest.approx(4 * result.training.seconds + result.seconds)
    text = bnft("why", *longer).out
    assert f"the nearest run is {entry['run']}" in text and ["schedule.epochs", "4", "1"] in [
        line.split() for line in text.splitlines()
    ]


def test_another_seed_differs_in_the_base_too(why: Any) -> None:
    base, run = why(*LINE, "seed=1")
    assert base["would"] == "training" and base["differences"] == {"seed": [1, 0]}
    assert run["differences"] == {"seed": [1, 0], "base.seed": [1, 0]}


def test_only_what_is_missing_would_run(store: Store, why: Any) -> None:
    _, run = why(*LINE, "evaluation.n_images=10")
    assert (run["there"], run["would"]) == ("it is trained, but not evaluated in this way", "evaluation")
    assert run["seconds"] is None, "no such evaluation was timed"
    (store.run(run["run"]).path / "model.safetensors").unlink()
    runs = why(*LINE, "evaluation.n_images=10,12")
    assert [run["would"] for run in runs] == ["nothing", "training and evaluation", "evaluation"], "trained once"


def test_a_run_that_ended_early_says_where(store: Store, why: Any) -> None:
    _, run = why(*LINE)
    folder = store.run(run["run"])
    for file in (*folder.path.rglob("result.json"), folder.path / "model.safetensors"):
        file.unlink()
    folder.write_status(state="interrupted", stage="training", epoch=0, epochs=1, error="stopped by SIGTERM")
    _, run = why(*LINE)
    assert run["there"] == "it is interrupted (stopped by SIGTERM)" and run["would"] == "training and evaluation"


def test_a_damaged_run_is_not_the_nearest(store: Store, why: Any) -> None:
    for file in (*store.root.rglob("result.json"), *store.root.rglob("config.yaml")):
        file.write_text("{")
    _, run = why(*LINE, "seed=1")
    assert run["nearest"] is None and run["seconds"] is None


def test_another_store(tmp_path: Path, why: Any) -> None:
    _, run = why(*LINE, "--store", str(tmp_path / "elsewhere"))
    assert run["there"] == "it does not exist" and run["nearest"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("policy=bn_parms",), "policy=bn_parms: must be one of"),
        (("nonsense",), "nonsense"),
        (("policy=adv", "--bogus"), "unrecognized arguments: --bogus"),
        (("policy=adv", "schedule.epochs=-1"), "schedule.epochs=-1: must be"),
    ],
)
def test_bad_input(bnft: Bnft, arguments: tuple[str, ...], said: str) -> None:
    assert said in refusal(bnft("why", *arguments))
