"""Which sweep a command is about, and stores in which something is damaged or nothing can be written."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import warm
from support.command import ROOT, TINY, Outcome
from support.on_slurm import HELD, Site, until
from support.slurm_cluster import NODE

from bnft.report import write
from bnft.runs.store import Store

BNFT = str(Path(sys.executable).with_name("bnft"))
LINE = ("-m", "policy=normal", *TINY, "wandb.mode=disabled")
RECORD = """
import sys
from bnft.runs.store import Store
store = Store(sys.argv[1])
for _ in range(int(sys.argv[2])):
    store.save_sweep([], [], "launch.py", None)
"""
LAUNCHER = """
import sys, time
from bnft.common.stopping import steady
from bnft.runs.store import Store
store = Store(sys.argv[1])
name = store.save_sweep([{"run": "adv-0123456789", "evaluation": "pgd-0123456789"}], [], "launch.py", None)
with store.locked(f"sweep-{name}", steady, steady):
    print(name, flush=True)
    time.sleep(600)
"""


ON_A_MOUNT = """
import ctypes, os, runpy, subprocess, sys
NEW_MOUNTS = 0x20000
store = sys.argv[1]
if ctypes.CDLL(None).unshare(NEW_MOUNTS):
    sys.exit("not allowed")
subprocess.run(["mount", "--make-rprivate", "/"], check=True)  # else the mount would be seen by all
subprocess.run(["mount", "--bind", store, store], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", store], check=True)
del sys.argv[:2]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*command: object, folder: Path | None = None) -> Outcome:
    """How a command ended, in a process of its own."""
    done = warm.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, timeout=200)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store has one sweep of one run, which is done."""
    folder = tmp_path_factory.mktemp("finished")
    done = run(sys.executable, ROOT / "launch.py", *LINE, folder=folder)
    assert done.code == 0, done
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture
def store(folder: Path) -> Store:
    return Store(folder / "multirun")


def again(store: Store) -> str:
    """Record a sweep of the same runs as the newest one."""
    return store.save_sweep(store.sweep(store.sweeps()[-1])["runs"], [], "launch.py -m", None)


@pytest.fixture
def launcher(store: Store) -> Iterator[Callable[[], tuple[str, subprocess.Popen]]]:
    """Starts a process that has launched a sweep and is still at it; returns the sweep's name and the process."""
    started = []

    def start() -> tuple[str, subprocess.Popen]:
        command = [sys.executable, "-c", LAUNCHER, str(store.root)]
        process = warm.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip(), process

    yield start
    for process in started:
        process.kill()
        process.communicate()


# the order of sweeps


def test_the_newest_sweep_is_the_one_recorded_last_whatever_the_clocks_say(folder: Path, store: Store):
    ahead, (older,) = again(store), store.sweeps()[:1]
    (store.root / "sweeps" / f"{ahead}.json").rename(store.root / "sweeps" / "2199-01-01T00-00-00.000.json")
    newest = again(store)
    assert store.sweeps() == [older, "2199-01-01T00-00-00.000", newest]
    done = run(BNFT, "table", "--format", "json", folder=folder)
    assert done.err == f"bnft: sweep {newest} (the newest)\n" and len(json.loads(done.out)["rows"]) == 1


def test_sweeps_from_before_there_were_numbers_come_first_by_their_time(store: Store):
    (made,) = store.sweeps()
    record = {key: value for key, value in store.sweep(made).items() if key != "number"}
    for name in ("2198-01-01T00-00-00.000", "2197-01-01T00-00-00.000"):
        (store.root / "sweeps" / f"{name}.json").write_text(json.dumps(record, indent=1))
    assert store.sweeps() == ["2197-01-01T00-00-00.000", "2198-01-01T00-00-00.000", made]
    store.extend_sweep(made, arrays=[])
    assert again(store) == store.sweeps()[-1] and store.sweeps()[-2] == made


def test_processes_that_record_sweeps_at_once_get_numbers_of_their_own(tmp_path: Path):
    processes = [warm.Popen([sys.executable, "-c", RECORD, str(tmp_path), "10"]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    store = Store(tmp_path)
    assert [store.sweep(name)["number"] for name in store.sweeps()] == list(range(1, 41))


def test_two_thousand_sweeps_keep_nobody_waiting(folder: Path, store: Store):
    (made,) = store.sweeps()
    record = {**store.sweep(made), "bases": [{"run": f"normal-{number:010}"} for number in range(50)]}
    for number in range(2000):
        text = json.dumps({**record, "number": number}, indent=1)
        (store.root / "sweeps" / f"2026-01-01T00-00-00.{number}.json").write_text(text)
    store.extend_sweep(made, number=2000)
    before = os.times()
    done = run(BNFT, "table", folder=folder)
    after = os.times()
    assert done.code == 0 and made in done.err
    took = after.children_user + after.children_system - before.children_user - before.children_system
    assert took < 1, "of the processor's time, however busy the machine is"


def test_make_table2_reports_on_its_own_sweep_though_another_is_begun_meanwhile(folder: Path, store: Store):
    """The programs that make calls are replaced by shorter ones that do the same of a smaller sweep."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "record.py").write_text(RECORD)
    (programs / "ready").touch()
    launched = shlex.join([sys.executable, str(ROOT / "launch.py"), *LINE])
    recorded = shlex.join([sys.executable, str(programs / "record.py"), str(store.root), "1"])
    script = f'if [ "$1" = run ]; then\ncd {folder}\n{launched}\n{recorded}\nexit 3\nfi\necho $@ > {folder}/said'
    (programs / "bnft").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "bnft").chmod(0o755)
    done = run("make", "-C", ROOT, "table2", f"BIN={programs}", f"READY={programs / 'ready'}")
    assert done.code == 2 and "Error 3" in done.err, "it ends as the sweep ended"
    _, ours, _ = store.sweeps()
    assert (folder / "said").read_text() == f"report {ours}\n"


# without names


def test_every_command_without_names_says_which_sweep_is_meant(
    folder: Path, store: Store, bnft: Callable[..., Outcome], monkeypatch
):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(write, "PRINTED_GROUPS", 0)
    (made,) = store.sweeps()
    told = f"bnft: sweep {made} (the newest)"
    place = ("--entity", "me", "--project", "bnft", "--dry-run")
    for command in (("table",), ("report",), ("export", "copy"), ("dashboard", *place)):
        done = bnft(*command)
        assert done.code == 0 and done.err.splitlines()[0] == told, done
    assert bnft("wait") == Outcome(
        0, f"sweep {made}: 1 run: 1 done\n", f"bnft: sweep {made} (the newest; none is queued or running)\n"
    )
    assert bnft("table", made).err == ""


def test_wait_and_cancel_are_about_the_newest_sweep_that_is_not_finished(folder: Path, store: Store, launcher):
    oldest, first = launcher()
    name, process = launcher()
    newest = again(store)
    assert store.sweeps()[1:] == [oldest, name, newest]
    waiting = warm.Popen([BNFT, "wait"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == f"bnft: sweep {name} (the newest that is not finished)\n"
    done = run(BNFT, "cancel", folder=folder)
    assert done.err == f"bnft: sweep {name} (the newest that is queued or running)\n"
    assert done.out == f"sweep {name}: its launcher stops and keeps the state of every run\n"
    assert process.wait(10) == -signal.SIGTERM and first.poll() is None
    out, _ = waiting.communicate(timeout=30)
    assert waiting.returncode == 1 and out.startswith(f"sweep {name}: 1 run: 1 not begun\n")
    assert f"sweep {oldest}:" in run(BNFT, "cancel", folder=folder).out
    assert first.wait(10) == -signal.SIGTERM
    assert run(BNFT, "cancel", folder=folder) == Outcome(0, "no sweep in multirun is queued or running\n", "")


def test_a_sweep_that_another_host_launched_is_to_be_cancelled_there(folder: Path, store: Store, launcher):
    name, process = launcher()
    store.extend_sweep(name, launcher={"host": "elsewhere", "pid": process.pid})
    for names in ((), (name,)):
        done = run(BNFT, "cancel", *names, folder=folder)
        assert done == Outcome(2, "", f"bnft: sweep {name}: must be cancelled on elsewhere, where it runs\n")
    assert process.poll() is None


# damaged records

DAMAGED = {
    "half": '{\n "number": 7,\n "command": "la',
    "empty": "",
    "a list": "[]",
    "a number": "3",
    "no keys": "{}",
    "no runs": '{"number": 7, "command": "", "bases": []}',
    "no run's name": '{"number": 7, "command": "", "bases": [], "runs": [{"evaluation": "pgd-0123456789"}]}',
    "no list": '{"number": 7, "command": "", "bases": [], "runs": 3}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_left_out_and_only_what_asks_for_it_is_refused(
    folder: Path, store: Store, content: str, bnft: Callable[..., Outcome], monkeypatch
):
    monkeypatch.chdir(folder)
    (made,), damaged = store.sweeps(), "2199-01-01T00-00-00.000"
    (store.root / "sweeps" / f"{damaged}.json").write_text(content)
    told = f"multirun/sweeps/{damaged}.json: is damaged, it must be the record of a sweep; remove this file"
    done = run(BNFT, "status", folder=folder)  # in a process of its own, since a process says once what it left out
    assert done.code == 0 and "1 run: 1 done" in done.out
    assert done.err.count("\n") == 1 and done.err.startswith("bnft: left out: ") and told in done.err
    for command in ("table", "status"):
        done = bnft(command, damaged)
        assert done.code == 2 and done.err.startswith(f"bnft: {told}") and done.err.count("\n") == 1
    done = bnft("table")
    assert done.code == 0 and done.err.endswith(f"bnft: sweep {made} (the newest)\n")
    added = store.save_sweep([], [], "", None)
    assert [name for name in store.sweeps() if name != damaged] == [made, added]


def test_a_sweep_can_be_launched_beside_a_damaged_record(folder: Path, store: Store, monkeypatch, launch):
    (store.root / "sweeps" / "2199-01-01T00-00-00.000.json").write_text(DAMAGED["half"])
    monkeypatch.chdir(folder)
    done = launch(*LINE)
    assert done.code == 0 and "NORMAL" in done.out


# SLURM


def test_a_sweep_is_submitted_while_all_nodes_are_drained_but_not_what_they_could_never_run(site: Site):
    site.cluster.run("scontrol", "update", f"NodeName={NODE}", "State=DRAIN", "Reason=tests")
    try:
        err = site.submit("policy=normal_bn_only", *TINY, "hydra.launcher.cpus_per_task=1000", code=2)
        assert "the cluster would refuse the jobs" in err and err.count("\n") == 1
        err = site.submit("policy=normal_bn_only", *TINY, "hydra.launcher.mem=100G", HELD, code=2)
        assert "the cluster would refuse the jobs" in err and not site.store.exists() and not site.queue()
        err = site.submit("policy=normal_bn_only", *TINY)
        assert "submitted 1 of 1 tasks" in err and "the cluster cannot start such jobs now" in err
        assert list(site.queue().values()) == ["PENDING"] and site.states() == {"normal_bn_only": "queued"}
    finally:
        site.cluster.run("scontrol", "update", f"NodeName={NODE}", "State=RESUME")
    until(lambda: "RUNNING" in site.queue().values())


# a store that cannot be written to


@pytest.fixture
def read_only(folder: Path) -> Iterator[Callable[..., Outcome]]:
    """Runs a script that sees the store read-only: on a mount of its own, or by its rights where we are not root."""
    store, prefix = folder / "multirun", []
    if os.geteuid() == 0:
        prefix = [sys.executable, "-c", ON_A_MOUNT, store]
        if run(*prefix, "/dev/null").code:
            pytest.skip("root cannot mount here")
    else:
        run("chmod", "-R", "a-w", store)
    (folder / "try.py").write_text(f"open({str(store / 'tried')!r}, 'w')")
    tried = run(*prefix or [sys.executable], folder / "try.py")
    assert tried.code and not (store / "tried").exists(), tried
    yield lambda *command: run(*prefix or [sys.executable], *command, folder=folder)
    if not prefix:
        run("chmod", "-R", "u+w", store)


def test_finished_runs_are_shown_and_copied_from_a_store_that_cannot_be_written_to(store: Store, read_only):
    (made,) = store.sweeps()
    assert "1 run: 1 done" in read_only(BNFT, "status").out
    assert "NORMAL" in read_only(BNFT, "table").out
    assert read_only(BNFT, "wait").code == read_only(BNFT, "wait", made).code == 0
    assert read_only(BNFT, "cancel").out == "no sweep in multirun is queued or running\n"
    assert read_only(BNFT, "export", "copy").code == 0
    done = read_only(BNFT, "report", "--output", "page")
    assert done.code == 0 and (store.root.parent / "page" / "index.html").exists(), done
    done = read_only(BNFT, "report")
    assert done.code == 2 and "cannot be written" in done.err


def test_who_works_there_is_seen_where_nothing_can_be_written(store: Store, launcher, read_only):
    name, process = launcher()
    done = json.loads(read_only(BNFT, "status", "--json", name).out)
    assert [standing["state"] for standing in done] == ["waiting"]
    process.kill()
    process.wait()
    done = json.loads(read_only(BNFT, "status", "--json", name).out)
    assert [standing["state"] for standing in done] == ["not begun"]


def test_asking_again_for_what_is_done_where_nothing_can_be_written(store: Store, read_only):
    note = "done already; nothing was written (store=multirun: must be a folder that can be written to"
    for line in (LINE, LINE[1:]):
        done = read_only(ROOT / "launch.py", *line)
        assert done.code == 0 and "NORMAL" in done.out, done
        assert note in done.err
    assert len(store.sweeps()) == 1
    done = read_only(ROOT / "launch.py", *LINE, "seed=1")
    assert done.code == 2 and done.err.startswith("bnft: store=multirun: must be a folder that can be written to")
