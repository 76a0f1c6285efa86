"""Monitoring in whole runs: their names, bases and records, and what they print."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.command import TINY
from support.programs import finish, start, until

from bnft.config import build
from bnft.runs.plan import Run, plan
from bnft.runs.run_folder import RunFolder

ON = ("monitor.every=1", "monitor.images=40")
LINE = ("policy=adv", *TINY, "schedule.epochs=3")


def the_run(*line: str) -> Run:
    (run,) = plan([line]).runs
    return run


def folder_of(path: Path, policy: str = "adv") -> RunFolder:
    (found,) = path.glob(f"multirun/{policy}-*")
    return RunFolder(found)


# identity


@pytest.mark.usefixtures("hydra")
def test_without_monitoring_its_keys_are_not_part_of_the_name() -> None:
    usual = the_run("policy=adv")
    assert "monitor" not in usual.identity
    for keys in (["monitor.every=null"], ["monitor.images=50"], ["monitor.eps=0.3", "monitor.norm=L2"]):
        assert the_run("policy=adv", *keys).name == usual.name


@pytest.mark.usefixtures("hydra")
def test_every_key_of_monitoring_is_part_of_the_name() -> None:
    changes = (
        "seed=0",
        "monitor.every=2",
        "monitor.images=41",
        "monitor.keep=best",
        "monitor.eps=0.3",
        "threat.norm=L2",
    )
    names = {the_run("policy=normal", *ON, change).name for change in changes}
    assert len(names) == len(changes), "on clean images too, where nothing else depends on the threat model"
    assert the_run("policy=normal").name not in names
    assert the_run("policy=normal", *ON).overrides == {}, "it is a row of the paper like any other"
    other_base = "base_overrides=['monitor.every=2']"
    assert the_run("policy=bn_params", *ON, other_base).overrides == {}, (
        "and so is one whose base is monitored otherwise"
    )


@pytest.mark.usefixtures("hydra")
def test_the_held_out_images_are_those_that_training_lacks() -> None:
    usual, monitored = the_run("policy=adv"), the_run("policy=adv", *ON)
    whole, data = build.dataset(usual.config), build.dataset(monitored.config)
    assert whole.held_out is None and data.held_out is not None
    assert len(data.x_train) + 40 == len(whole.x_train) and len(data.held_out[0]) == 40
    assert data.sha256 == whole.sha256, "rows with and without monitoring are in one table"
    with_validation = build.dataset(the_run("policy=adv", *ON, "data.validation=297").config)
    assert with_validation.held_out is not None
    assert (len(with_validation.x_train), len(with_validation.x_test)) == (1297 - 297 - 40, 297)
    held_out = {tuple(image) for image in with_validation.held_out[0].flatten(1).tolist()}
    assert not held_out & {tuple(image) for image in with_validation.x_test.flatten(1).tolist()}


@pytest.mark.usefixtures("hydra")
def test_a_base_holds_out_the_same_images() -> None:
    run = the_run("policy=bn_params", *ON)
    assert isinstance(run.base, Run) and run.base.config["monitor"] == run.config["monitor"]
    assert run.base.name == the_run("policy=normal", *ON).name
    assert run.identity["base"]["monitor"] == run.identity["monitor"]


# a run


def test_what_a_run_keeps_and_prints(launch: Any, tmp_path: Path) -> None:
    said = launch(*LINE, *ON, "monitor.keep=best", "schedule.lr=0.5")
    assert said.code == 0
    folder = folder_of(tmp_path)
    lines = {line["epoch"]: line for line in folder.history()}
    (evaluation,) = folder.evaluations()
    result = json.loads((evaluation.path / "result.json").read_text())
    record = result["training"]["monitor"]
    for which in ("best", "last"):
        line = lines[record[which]["epoch"]]
        assert record[which]["robust_error"] == line["monitor_robust_error"]
        assert record[which]["clean_error"] == line["monitor_clean_error"]
    robust = [line["monitor_robust_error"] for line in lines.values()]
    assert record["best"]["robust_error"] == min(robust) and record["last"]["epoch"] == 3
    assert record["epoch"] == record["best"]["epoch"] == folder.batchnorm().kept
    assert record["images"] == 40 and result["data"]["images"] == 1297 - 40
    kept = f"kept epoch {record['epoch']}: clean error {record['best']['clean_error']:.2f} %, robust error"
    assert kept in said.err and "(quick attack on 40 held-out training images)" in said.err
    seconds = sum(line["seconds"] + line["monitor_seconds"] for line in lines.values())
    assert result["training"]["seconds"] == pytest.approx(seconds, abs=0.01)


def test_a_base_that_may_know_the_held_out_images_is_named(launch: Any, tmp_path: Path) -> None:
    tuned = ("policy=bn_params", *TINY)
    assert launch("policy=normal", *TINY).code == 0
    base = folder_of(tmp_path, "normal").name
    note = "its base may have been trained on images that are held out here"
    said = launch(*tuned, *ON, f"base={base}")
    assert said.code == 0 and note in said.err
    assert note not in launch(*tuned, f"base={base}").err
    said = launch(*tuned, *ON)
    assert said.code == 0 and "kept epoch 1" in said.err and note not in said.err


def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    """Killed at once in its second epoch, most likely in a measurement, which takes the most time."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    line = (*LINE, *ON, "monitor.keep=best", "schedule.lr=0.5")
    finish(start(whole, *line))
    process = start(broken, *line)
    until(lambda: any(len(path.read_text().splitlines()) >= 1 for path in broken.glob("multirun/adv-*/history.jsonl")))
    process.kill()
    process.wait()
    finish(start(broken, *line))
    first, second = folder_of(whole), folder_of(broken)
    found, wanted = (load_file(one.path / "model.safetensors") for one in (second, first))
    assert [name for name, value in wanted.items() if not torch.equal(found[name], value)] == []
    assert second.training().monitor == first.training().monitor
    timeless = [[{**line, "seconds": 0, "monitor_seconds": 0} for line in one.history()] for one in (first, second)]
    assert timeless[0] == timeless[1]
