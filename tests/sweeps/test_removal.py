"""`bnft remove`: what goes, what stays, and that a kill at any moment leaves every run complete or gone."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import warm
from support.command import TINY, Outcome, refusal, tree
from support.made_store import MadeStore

from bnft.common.stopping import steady
from bnft.runs.store import Store

Bnft = Callable[..., Outcome]
KILLED = """
import os, pathlib, sys
from bnft.cli import main
left = int(sys.argv.pop(1))
def counted(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return function(*arguments, **options)
    return call
pathlib.Path.rename = counted(pathlib.Path.rename)
os.unlink, os.rmdir = counted(os.unlink), counted(os.rmdir)
main(sys.argv[1:])
"""


@pytest.fixture
def made(tmp_path: Path) -> MadeStore:
    """An empty store, to which tests add runs and sweeps."""
    return MadeStore(Store(tmp_path / "multirun"))


def runs(store: Store, sweep: str) -> list[str]:
    return [entry["run"] for entry in store.sweep(sweep)["runs"]]


def names(store: Store) -> set[str]:
    return {run.name for run in store.runs()}


def test_nothing_goes_without_yes(made: MadeStore, bnft: Bnft) -> None:
    sweep = made.add(["normal", "bn_params"]).sweep()
    before = tree(made.store.root)
    done = bnft("remove", sweep)
    size = sum(file.stat().st_size for file in made.store.root.rglob("*") if file.is_file())
    assert done.code == 0 and tree(made.store.root) == before
    lines = done.out.splitlines()
    assert [line.split()[:3] for line in lines[:3]] == [["would", "remove", "run"]] * 2 + [["would", "remove", "sweep"]]
    assert lines[-1].startswith("3 in all, ") and "--yes removes it" in lines[-1]
    assert f"{size / 1e3:.1f} kB" in lines[-1]


def test_a_sweep_goes_with_the_runs_that_no_other_one_lists(made: MadeStore, bnft: Bnft) -> None:
    store = made.store
    first = made.add(["normal", "bn_params", "adv"]).sweep()
    (normal, tuned, adv) = runs(store, first)
    made.entries = [{"run": adv, "evaluation": store.sweep(first)["runs"][2]["evaluation"]}]
    second = made.add(["bn_only_params"]).sweep()  # it starts from NORMAL, but its sweep does not list NORMAL
    store.log(tuned).parent.mkdir()
    store.log(tuned).write_text("said")
    done = bnft("remove", first, "--yes")
    assert done.code == 0, done
    assert f"keeps {adv}: sweep {second} lists it" in done.out
    assert f"keeps {normal}: bn_only_params-" in done.out and "starts from it" in done.out
    assert names(store) == {normal, adv, runs(store, second)[1]} and store.sweeps() == [second]
    assert not store.log(tuned).exists() and not (store.root / ".removed").exists()
    assert bnft("table", second).code == 0
    assert bnft("remove", second, "--yes", "--force").code == 0 and names(store) == {normal}
    assert bnft("remove", normal, "--yes").code == 0 and names(store) == set()


def test_a_chain_of_bases_stays_whole(made: MadeStore, bnft: Bnft) -> None:
    """A run that stays because another sweep lists it keeps its base, although only the removed sweep lists that."""
    store = made.store
    first = made.add(["normal", "bn_params"]).sweep()
    normal, tuned = runs(store, first)
    store.save_sweep([store.sweep(first)["runs"][1]], [], "bnft run", None)
    assert bnft("remove", first, "--yes").code == 0
    assert names(store) == {normal, tuned}


def test_a_base_that_was_given_as_a_folder_stays(made: MadeStore, bnft: Bnft) -> None:
    made.add(["normal", "adv"])
    normal, adv = (entry["run"] for entry in made.entries)
    config = made.store.run(adv).path / "config.yaml"
    config.write_text(f"{config.read_text()}base: multirun/{normal}\n")
    assert f"{adv} starts from it; --force removes it" in refusal(bnft("remove", normal, "--yes"))
    assert bnft("remove", normal, "--force", "--yes").code == 0 and names(made.store) == {adv}


def test_only_the_record_of_a_sweep(made: MadeStore, bnft: Bnft) -> None:
    sweep = made.add(["normal", "adv"]).sweep()
    before = names(made.store)
    assert bnft("remove", sweep, "--sweeps", "--yes").code == 0
    assert names(made.store) == before and made.store.sweeps() == []


def test_only_models_and_only_of_what_is_done(made: MadeStore, bnft: Bnft) -> None:
    store = made.store
    sweep = made.add(["normal", "bn_params", "adv"]).sweep()
    normal, tuned, adv = runs(store, sweep)
    for file in store.run(adv).path.rglob("result.json"):
        file.unlink()
    done = bnft("remove", sweep, "--only", "models", "--yes")
    assert f"keeps {adv}: sweep {sweep} needs its model for {adv}, which is not done" in done.out
    assert [store.run(run).trained for run in (normal, tuned, adv)] == [False, False, True]
    assert store.sweeps() == [sweep] and bnft("table", normal, tuned).code == 0
    assert bnft("remove", adv, "--only", "models", "--yes", "--force").code == 0 and not store.run(adv).trained


def test_the_model_that_an_unfinished_run_starts_from_stays(made: MadeStore, bnft: Bnft) -> None:
    made.add(["normal", "bn_params"])
    normal, tuned = (entry["run"] for entry in made.entries)
    for file in (*made.store.run(tuned).path.rglob("result.json"), made.store.run(tuned).path / "model.safetensors"):
        file.unlink()
    assert f"{tuned} starts from it and is not trained" in refusal(bnft("remove", normal, "--only", "models", "--yes"))


def test_only_checkpoints(made: MadeStore, bnft: Bnft) -> None:
    sweep = made.add(["normal", "adv"]).sweep()
    folder = made.store.run(runs(made.store, sweep)[0]).path
    states = [folder / "checkpoint.safetensors", next(folder.glob("evaluation/*")) / "cascade.safetensors"]
    before = {run: tree(made.store.run(run).path) for run in names(made.store)}
    for state in states:
        state.write_bytes(b"state")
    done = bnft("remove", sweep, "--only", "checkpoints", "--yes")
    assert done.out.splitlines()[-1] == "1 in all, 10 B"
    assert {run: tree(made.store.run(run).path) for run in names(made.store)} == before


def test_what_another_process_works_on_stays(made: MadeStore, bnft: Bnft) -> None:
    sweep = made.add(["normal", "adv"]).sweep()
    normal, adv = runs(made.store, sweep)
    before = names(made.store)
    with made.store.locked(adv, steady, steady):
        for arguments in ((sweep,), (adv, "--force"), (adv, "--only", "models")):
            assert "another process works on it" in refusal(bnft("remove", *arguments, "--yes"))
    with made.store.locked(f"sweep-{sweep}", steady, steady):
        assert f"`bnft cancel {sweep}` ends it" in refusal(bnft("remove", sweep, "--yes", "--force"))
        assert f"sweep {sweep} is running" in refusal(bnft("remove", normal, "--yes", "--force"))
    assert names(made.store) == before


def test_a_kill_at_any_moment_leaves_each_run_complete_or_gone(made: MadeStore) -> None:
    store = made.store
    sweep = made.add(["normal", "bn_params"]).sweep()
    whole = {run: tree(store.run(run).path) for run in names(store)}
    for run in whole:
        store.log(run).parent.mkdir(exist_ok=True)
        store.log(run).write_text("said")
    command = [sys.executable, "-c", KILLED]
    codes = []
    for moment in (0, 1, 2, 3, 5, 7, 100):
        line = [*command, str(moment), "remove", sweep, "--yes", "--store", str(store.root)]
        codes.append(warm.run(line, capture_output=True, timeout=60).returncode)
        for run in names(store):
            assert tree(store.run(run).path) == whole[run]
        if codes[-1] == 9 and names(store):
            assert store.sweeps() == [sweep], "so that the same command goes on"
    assert codes[0] == 9 and codes[-1] == 0, codes
    assert names(store) == set() and store.sweeps() == []
    assert {path.name for path in store.root.iterdir()} <= {"sweeps", "logs", ".locks"}
    assert list((store.root / "logs").iterdir()) == []


def test_a_damaged_record_protects_what_it_may_list(made: MadeStore, bnft: Bnft) -> None:
    made.add(["normal"])
    (entry,) = made.entries
    damaged = made.sweep()
    (made.store.root / "sweeps" / f"{damaged}.json").write_text("{")
    done = bnft("remove", entry["run"], "--yes")
    assert done.code == 2 and "the runs that it lists are not known" in done.err
    assert names(made.store) == {entry["run"]}


def test_a_real_model_that_is_needed_again_is_trained_anew(tmp_path: Path, launch: Bnft, bnft: Bnft) -> None:
    line = ("-m", "policy=bn_params", *TINY, "wandb.mode=disabled", "hydra/launcher=basic")
    assert launch(*line).code == 0
    store = Store(tmp_path / "multirun")
    (base,) = store.sweep(store.sweeps()[0])["bases"]
    normal = base["run"]
    assert "it has no result, so its training would be lost" in refusal(bnft("remove", normal, "--only", "models"))
    assert bnft("remove", normal, "--only", "models", "--force", "--yes").code == 0
    assert launch(*line, "seed=0", "schedule.lr=0.3").code == 0 and store.run(normal).trained
    for sweep in store.sweeps():
        assert bnft("remove", sweep, "--yes").code == 0
    assert names(store) == set() and json.loads(bnft("list", "--format", "json").out or "[]") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required: NAME"),
        (("adv-0123456789",), "adv-0123456789: must be a sweep or a run in multirun"),
        (("../multirun/adv-0123456789",), "must be a sweep or a run"),
        (("all",), "all: must be a sweep or a run"),
        (("sweeps",), "sweeps: must be a sweep or a run"),
        (("a", "--only", "results"), "invalid choice: 'results'"),
        (("a", "--only", "models", "--sweeps"), "not allowed with argument"),
    ],
)
def test_bad_input(made: MadeStore, bnft: Bnft, arguments: tuple[str, ...], said: str) -> None:
    made.add(["normal"]).sweep()
    before = tree(made.store.root)
    assert said in refusal(bnft("remove", *arguments))
    assert tree(made.store.root) == before


def test_a_run_is_not_a_sweep(made: MadeStore, bnft: Bnft) -> None:
    (run,) = runs(made.store, made.add(["normal"]).sweep())
    assert "must be a sweep in multirun" in refusal(bnft("remove", run, "--sweeps", "--yes"))
