"""A sweep can be left alone: what is killed, fails, hangs or runs full costs little, and the same command goes on."""

import os
import random
import shutil
import signal
import subprocess
import time

import pytest
import torch
from safetensors.torch import load_file
from support import mischief
from support.command import TINY
from support.programs import (
    BATCH,
    COMMON,
    SWEEP,
    WORKERS,
    assert_same,
    assert_stopped,
    ctrl_c,
    finish,
    log_of,
    session,
    start,
    states,
    statuses,
    tensors,
    until,
    work,
)

from bnft.common import files

STEPS_AN_EPOCH = 1297 // 128
STEPS_A_RUN = 2 * STEPS_AN_EPOCH
STEPS = 4 * STEPS_A_RUN


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """What the sweep leaves where nobody disturbs it."""
    folder = tmp_path_factory.mktemp("calm")
    finish(start(folder, *SWEEP))
    assert work(folder).count("t") == STEPS
    return folder


# killing


def kill(process, folder, kind):
    """Kill one worker at work, the launcher, or everything; returns how many runs that may have set back."""
    if kind == "worker":
        alive = session(process)
        running = [status["pid"] for status in statuses(folder).values() if status["state"] == "running"]
        victims = [pid for pid in running if pid in alive][:1]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        return len(victims)
    if kind == "launcher":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=15)
    until(lambda: not session(process), seconds=15)  # without their launcher, workers save their state and end
    process.communicate(timeout=15)
    return 0 if kind == "launcher" else WORKERS


def storm(calm, stormy, kinds):
    """The sweep, killed and asked for again until it is done; the counted work bounds what was done twice."""
    moments = sorted(random.uniform(0.02, 0.98) for _ in kinds)
    story = list(zip(moments, kinds, strict=True))
    process, set_back = None, 0
    for moment, kind in story:
        before = len(work(stormy))
        if process is None or process.poll() is not None:
            process = start(stormy, *SWEEP)
        reached = max(before + 1, int(moment * len(work(calm))))
        until(lambda reached=reached: len(work(stormy)) >= reached, process)  # type: ignore[misc]
        set_back += kill(process, stormy, kind)
    process.communicate(timeout=120)
    finish(start(stormy, *SWEEP))
    assert_same(calm, stormy, story)
    redone, undisturbed = work(stormy), work(calm)
    assert STEPS <= redone.count("t") <= STEPS + set_back * STEPS_AN_EPOCH, story
    assert undisturbed.count("a") <= redone.count("a") <= undisturbed.count("a") + set_back, story


@pytest.mark.long
def test_whatever_is_killed_the_same_command_ends_with_the_same_bits(calm, tmp_path):
    storm(calm, tmp_path, ("worker", "launcher", "everything"))


@pytest.mark.long
@pytest.mark.parametrize("number", range(2))
def test_a_storm_of_kills_at_random_moments(calm, tmp_path, number):
    storm(calm, tmp_path, random.choices(("worker", "launcher", "everything"), k=7))


# interrupting


def told_to_end(process):
    process.terminate()


def all_told_to_end(process):
    os.killpg(process.pid, signal.SIGTERM)


def hangup(process):
    os.killpg(process.pid, signal.SIGHUP)


def place(folder, policy, what):
    """Where the training or evaluation of a run that was interrupted goes on: epoch and step, or attack and batch."""
    names = {"checkpoint": ("epoch", "step"), "cascade": ("attack", "batch")}[what]
    for file in (folder / "multirun").glob(f"{policy}-*/**/{what}.safetensors"):
        kept = files.read_metadata(file)
        return tuple(kept.get("progress", kept)[name] for name in names)
    return None


def is_attacked(folder, policy):
    """Whether the run is in the middle of AutoAttack: a batch is done, and others are not."""
    return place(folder, policy, "cascade") is not None


def adv_steps(folder):
    """How many steps of ADV were made, where the others are between two epochs."""
    others = (file for file in (folder / "multirun").glob("*/history.jsonl") if not file.parent.name.startswith("adv-"))
    return work(folder).count("t") - STEPS_AN_EPOCH * sum(len(files.read_lines(file)) for file in others)


def starts_and_is_interrupted(folder, send):
    """Catches ADV, slow by mischief, in training, and BN STATS or BN PARAMS in AutoAttack."""
    before, process = adv_steps(folder), start(folder, *SWEEP)

    def is_caught():
        running = {name for name, status in states(folder).items() if status["pid"] in session(process)}
        attacked = {name for name in running if is_attacked(folder, name)}
        return "adv" in running and attacked and adv_steps(folder) > before

    until(is_caught, process)
    send(process)
    return process


@pytest.mark.long
@pytest.mark.parametrize(
    "signals",
    [[ctrl_c], [told_to_end, all_told_to_end, hangup]],
    ids=["Ctrl-C", "other signals"],
)
def test_an_interrupted_sweep_saves_in_mid_epoch_and_repeats_nothing(calm, tmp_path, signals):
    mischief.make(tmp_path, "ADV", "sleep 0.2")  # before each of three forward passes of a step
    for send in signals:
        assert_stopped(starts_and_is_interrupted(tmp_path, send))
        assert states(tmp_path)["adv"]["state"] == "interrupted"
        epoch, step = place(tmp_path, "adv", "checkpoint")
        assert 0 < epoch * STEPS_AN_EPOCH + step == adv_steps(tmp_path)
    mischief.unmake(tmp_path)
    finish(start(tmp_path, *SWEEP))
    assert sorted(work(tmp_path)) == sorted(work(calm)), "nothing was done twice"
    assert_same(calm, tmp_path)


def test_a_second_ctrl_c_ends_the_sweep_at_once(tmp_path):
    mischief.make(tmp_path, "ADV", "sleep 60")
    process = start(tmp_path, "-m", "policy=adv", *COMMON)
    until((tmp_path / "mischief" / "ADV-sleeps").exists, process)
    ctrl_c(process)
    time.sleep(1)
    assert process.poll() is None, "it waits for what is at work"
    ctrl_c(process)
    assert_stopped(process, seconds=2)
    assert states(tmp_path)["adv"]["state"] == "interrupted"


@pytest.mark.long
def test_a_single_run_is_interrupted_in_training_and_in_evaluation_and_repeats_nothing(calm, tmp_path):
    line = ("policy=adv", *COMMON)
    mischief.make(tmp_path, "ADV", "sleep 0.5")
    process = start(tmp_path, *line)
    until(lambda: work(tmp_path).count("t") == 2, process)
    ctrl_c(process)
    assert_stopped(process)
    assert place(tmp_path, "adv", "checkpoint") == (0, work(tmp_path).count("t"))
    mischief.unmake(tmp_path)
    process = start(tmp_path, *line)
    until(lambda: is_attacked(tmp_path, "adv"), process)
    process.terminate()
    assert_stopped(process)
    assert states(tmp_path)["adv"]["state"] == "interrupted"
    finish(start(tmp_path, *line))
    found = tensors(tmp_path / "multirun")
    expected = {name: value for name, value in tensors(calm / "multirun").items() if name.startswith("adv-")}
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert work(tmp_path).count("t") == STEPS_A_RUN
    assert work(tmp_path).count("a") == attacked_batches(tmp_path)


def attacked_batches(folder):
    """How many batches AutoAttack has, by the images that stood before each attack."""
    (result,) = (folder / "multirun").rglob("result.json")
    errors = [step["errors"] for step in files.read_json(result)["cascade"]]
    clean = sum(value == 0 for value in tensors(folder / "multirun")[fallen(result, folder)].tolist())
    return sum(-(-(16 - before) // BATCH) for before in [clean, *errors[:-1]])


def fallen(result, folder):
    return f"{result.parent.relative_to(folder / 'multirun')}/outcomes.safetensors:fallen_at"


# failing

TROUBLES = {  # what a user's own code does, and what the sweep says of it
    "raise": "ValueError: mischief was made",
    "memory": "MemoryError",
    "segfault": "its process was ended by SIGSEGV",
    "exit": "its process ended with code 3",
    "kill": "its process was ended by SIGKILL, which happens when memory runs out",
    "sleep 1000": "it hung: no sign of life for 0.1 minutes",
}
LOGGED = {
    "raise": "Traceback (most recent call last)",
    "memory": "Traceback (most recent call last)",
    "segfault": "Fatal Python error: Segmentation fault",
    "sleep 1000": "mischief.py",
}


@pytest.mark.long
def test_each_run_that_fails_is_listed_and_nobody_elses_trouble(tmp_path, launch):
    names = [what.split()[0] for what in TROUBLES]
    line = ("-m", "policy=adv", *TINY, "attack._target_=mischief.attack", f"+attack.name=good,{','.join(names)},better")
    for what, name in zip(TROUBLES, names, strict=True):
        mischief.make(tmp_path, name, what)
    _, err = finish(start(tmp_path, *line, "hydra.launcher.workers=2", "hydra.launcher.hang_minutes=0.1"), code=1)

    runs = {run_of(tmp_path, name): name for name in ("good", *names, "better")}
    assert err.splitlines()[-1] == "6 of 8 runs failed; the same command tries them again"
    for (what, message), name in zip(TROUBLES.items(), names, strict=True):
        run = next(run for run, given in runs.items() if given == name)
        status = statuses(tmp_path)[run]
        assert status["state"] == "failed" and status["error"].startswith(message)
        assert f"failed: {run}: {message}" in err and f"    attack.name={name}\n" in err
        if what in LOGGED:
            log = log_of(tmp_path, run)
            assert LOGGED[what] in log.read_text() and "mischief.py" in log.read_text()
            assert f"log: {log.relative_to(tmp_path)}" in err
    assert err.count("Traceback") == 0, "the last lines of a traceback only"
    good = [statuses(tmp_path)[run]["state"] for run, name in runs.items() if name in ("good", "better")]
    assert good == ["done", "done"]

    mischief.unmake(tmp_path)
    assert launch(*line, "hydra/launcher=basic").code == 0
    assert [status["state"] for status in statuses(tmp_path).values()] == ["done"] * 8


def run_of(folder, name):
    """The run whose attack has this name."""
    configs = (folder / "multirun").glob("*/config.yaml")
    return next(file.parent.name for file in configs if files.read_yaml(file)["attack"]["name"] == name)


def test_a_base_blocks_its_children_by_failing_in_training_not_in_evaluation(tmp_path):
    mischief.make(tmp_path, "normal-0-training", "raise")
    mischief.make(tmp_path, "normal-1-evaluating", "raise")
    line = ("-m", "policy=normal,bn_stats", "seed=0,1", *TINY)
    _, err = finish(start(tmp_path, *line), code=1)
    found = {
        (name.split("-")[0], seed_of(tmp_path, name)): status["state"] for name, status in statuses(tmp_path).items()
    }
    assert found == {("normal", 0): "failed", ("normal", 1): "failed", ("bn_stats", 1): "done"}
    assert err.count("blocked: bn_stats-") >= 1 and err.splitlines()[-1].startswith("3 of 4 runs failed")


def seed_of(folder, run):
    return files.read_yaml(folder / "multirun" / run / "config.yaml")["seed"]


@pytest.mark.long
def test_fail_fast_stops_the_rest_which_goes_on_when_asked_again(tmp_path):
    line = ("-m", "policy=adv", *TINY, "attack._target_=mischief.attack", "+attack.name=slow,bad,rest")
    mischief.make(tmp_path, "slow", "sleep 0.2")
    process = start(tmp_path, *line, "hydra.launcher.workers=2", "hydra.launcher.fail_fast=true")
    mischief.make(tmp_path, "bad", "sleep 0.2")
    until(lambda: work(tmp_path).count("t") >= 3, process)
    mischief.make(tmp_path, "bad", "raise")
    _, err = finish(process, code=1)
    found = statuses(tmp_path)
    assert found[run_of(tmp_path, "slow")]["state"] == "interrupted"
    assert found[run_of(tmp_path, "bad")]["state"] == "failed"
    assert len(found) == 2, "the third was never begun"
    assert "not begun: hydra.launcher.fail_fast is set" in err
    mischief.unmake(tmp_path)
    finish(start(tmp_path, *line))
    assert [status["state"] for status in statuses(tmp_path).values()] == ["done"] * 3


# side by side


@pytest.mark.long
def test_two_sweeps_at_once_share_the_work(calm, tmp_path):
    both = [start(tmp_path, *SWEEP) for _ in range(2)]
    said = [finish(process) for process in both]
    tables = [out.partition("Brackets contain")[0] for out, _ in said]
    assert tables[0] == tables[1] and "BN PARAMS" in tables[0]
    assert sorted(work(tmp_path)) == sorted(work(calm)), "nothing was done twice"
    assert_same(calm, tmp_path)
    assert all("epoch" in err or "training  " in err for _, err in said), "each did some of it"


@pytest.mark.long
def test_a_full_disk_is_said_and_with_room_again_the_sweep_goes_on(calm, tmp_path):
    store = tmp_path / "multirun"
    store.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(store)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        filler = store / "filler"
        filler.write_bytes(bytes(64 * 1024))
        _, err = finish(start(tmp_path, *SWEEP), code=2)
        assert err.startswith("bnft: ") and "(No space left on device)" in err and err.count("\n") == 1
        filler.unlink()
        _, err = finish(start(tmp_path, *SWEEP), code=1)
        assert "cannot be written (No space left on device)" in err and "Traceback" not in err
        _, err = finish(start(tmp_path, "policy=normal", *COMMON), code=2)
        assert "(No space left on device)" in err.splitlines()[-1] and "Traceback" not in err, "a single run"
        for file in store.rglob("*.safetensors"):
            load_file(file)
        for file in store.rglob("*.json"):
            files.read_json(file)
        subprocess.run(["mount", "-o", "remount,size=50m", str(store)], check=True)
        for folder in store.glob("normal-*"):  # the single run is none of the sweep, however far it came
            if not (calm / "multirun" / folder.name).exists():
                shutil.rmtree(folder)
        finish(start(tmp_path, *SWEEP))
        assert_same(calm, tmp_path)
    finally:
        subprocess.run(["umount", "--lazy", str(store)], check=True)


@pytest.mark.long
def test_a_worker_stays_warm_from_run_to_run(tmp_path):
    seeds = ",".join(map(str, range(20)))
    line = ("-m", "policy=normal", f"seed={seeds}", *TINY, "schedule.epochs=0", "hydra.launcher.workers=1")
    finish(start(tmp_path, *line))
    assert len(statuses(tmp_path)) == 20
    assert len({status["pid"] for status in statuses(tmp_path).values()}) == 1
