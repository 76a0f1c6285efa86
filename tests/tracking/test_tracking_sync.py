"""`bnft sync`: what the store has gets into W&B, each row once, whatever was killed, refused or asked for again."""

import json
import os
import random
import shutil
import signal
import time

import pytest
from support.command import TINY
from support.programs import finish
from support.syncing import assert_whole, sync
from support.wandb_server import WandbServer, children

from bnft.common import files
from bnft.runs.store import Store
from bnft.tracking import keys
from bnft.tracking.rows import order_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("finished") / "multirun"


@pytest.fixture
def store(launch, finished, tmp_path):
    """A sweep of three runs that was made without W&B."""
    if not finished.exists():
        sweep = ("-m", "policy=adv,bn_stats", *TINY, "schedule.epochs=3", "hydra.launcher.workers=2")
        assert launch(*sweep, "wandb.mode=disabled", f"store={finished}").code == 0
        assert not (finished / "wandb").exists()
    shutil.copytree(finished, tmp_path / "multirun")
    return Store(tmp_path / "multirun")


@pytest.fixture
def server():
    with WandbServer() as found:
        yield found


def test_each_row_is_sent_once_and_a_second_time_nothing(store, server):
    (name,) = store.sweeps()
    out, err = finish(sync(store, server))
    assert err == f"bnft: sweep {name} (the newest)\n"
    assert out.count(" rows uploaded") == 3 and "[3/3]" in out
    assert_whole(store, server)
    for run in store.runs():
        kept = server.runs[run.name]
        assert set(kept.received.values()) == {1}
        assert kept.fields["groupName"] == name and kept.fields["jobType"] == run.config()["run"]["policy"]
        assert kept.fields["commit"] == store.sweep(name)["commit"] and kept.exit_code == 0
        assert kept.config["schedule"] == run.config()["schedule"] and kept.config["versions"]["torch"]
        assert kept.config["git_commit"] == store.sweep(name)["commit"]
    asked = len(server.requests)
    out, _ = finish(sync(store, server, name))
    assert out.count("already complete") == 3
    assert len(server.requests) == asked
    assert not server.unknown


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 5))])
def test_killed_at_any_moment_it_goes_on_from_there(store, server, seed):
    chance = random.Random(seed)
    server.delay = 0.05
    for kill in chance.sample(["sync", "service", "sync"], 3):
        process = sync(store, server)
        time.sleep(chance.uniform(0.7, 1.8))
        if kill == "sync":
            process.kill()
        else:
            for service in children(process.pid, "wandb-core"):
                os.kill(service, signal.SIGKILL)
        process.communicate(timeout=150)
    finish(sync(store, server))
    assert_whole(store, server)


def test_files_that_a_killed_sync_did_not_send_follow(store, server):
    finish(sync(store, server))
    for run in store.runs():
        (run.path / "tracking.json").unlink()  # as if killed after the lines had got there, and nothing else
        server.runs[run.name].files.clear()
        server.runs[run.name].summary.clear()
    finish(sync(store, server))
    assert_whole(store, server)
    assert all(set(kept.received.values()) == {1} for kept in server.runs.values())


def test_what_is_not_done_is_uploaded_as_far_as_it_is_and_continued(store, server):
    (run,) = (run for run in store.runs() if run.name.startswith("adv-"))
    (run.path / "evaluation").rename(run.path / "later")
    status = run.status()
    files.write_json(run.path / "status.json", {**status, "state": "interrupted"})
    out, _ = finish(sync(store, server, run.name))
    assert "4 rows uploaded; it has 4 so far" in out
    assert server.runs[run.name].exit_code == 255
    (run.path / "later").rename(run.path / "evaluation")
    files.write_json(run.path / "status.json", status)
    out, _ = finish(sync(store, server))
    assert f"{run.name}: 1 rows uploaded\n" in out
    assert_whole(store, server)
    assert set(server.runs[run.name].received.values()) == {1}
    assert server.runs[run.name].exit_code == 0


@pytest.mark.long
def test_evaluations_keep_their_steps_when_others_come(store, server):
    run = store.runs()[0]
    (first,) = run.evaluations()
    finish(sync(store, server, run.name))
    second = first.path.with_name("a-0123456789")  # before the first in alphabetical order
    shutil.copytree(first.path, second)
    result = json.loads((first.path / "result.json").read_text())
    del result[files.CHECKSUM]
    files.write_json(second / "result.json", files.sealed({**result, "seconds": 12.5}))
    os.utime(second / "result.json", (0, 0))
    out, _ = finish(sync(store, server, run.name))
    assert "1 rows uploaded" in out
    assert [line.get(keys.TEST_SECONDS) for line in server.runs[run.name].lines][-1] == 12.5
    assert order_of([], run.evaluations()) == [second.name, first.path.name]


@pytest.mark.parametrize("status", [pytest.param(status, marks=pytest.mark.long) for status in (400, 404)])
def test_lines_that_the_server_refuses_for_good_are_missed(store, server, status):
    """W&B's own client ends as if all were well."""
    run = store.runs()[0].name
    server.status_of["file_stream"] = status
    out, err = finish(sync(store, server, run), code=1)
    assert f"{run}: failed: the server has 0 of 5 rows" in out
    assert "1 of 1 runs are not fully uploaded; the same command continues from there" in err
    server.status_of.clear()
    finish(sync(store, server))
    assert_whole(store, server)


def test_a_server_that_does_not_answer_is_given_up(store, server):
    server.status = 500
    _, err = finish(sync(store, server, WANDB_INIT_TIMEOUT="1"), code=1)
    assert f"{server.url} does not accept uploads; 2 more runs were not tried" in err
    assert "Traceback" not in err
    server.status = 401
    out, err = finish(sync(store, server), code=1)
    assert "2 more runs were not tried" in err and out.count("\n") == 1


@pytest.mark.long
def test_another_project_is_another_place(store, server):
    run = store.runs()[0].name
    finish(sync(store, server, run))
    server.runs.clear()  # which knows runs by their id alone
    out, _ = finish(sync(store, server, run, "--project", "other", "--entity", "team"))
    assert "5 rows uploaded" in out
    assert server.runs[run].fields["project"] == "other" and server.runs[run].fields["entity"] == "team"


def test_what_cannot_be_is_said_in_a_line(store, server):
    for arguments, environment, told in (
        (("nothing",), {}, "nothing: must be a sweep or a run in multirun, or all"),
        (("--store", "empty"), {}, "store=empty: must be a folder with runs; this one has none"),
        ((), {"WANDB_API_KEY": ""}, "sync: needs credentials of W&B: no credentials; `wandb login` stores them"),
        ((), {"WANDB_API_KEY": "short"}, "sync: needs credentials of W&B: WANDB_API_KEY invalid"),
    ):
        out, err = finish(sync(store, server, *arguments, **environment), code=2)
        assert err.startswith(f"bnft: {told}") and err.count("\n") == 1 and not out
    assert not server.requests


def test_a_run_that_is_tracked_just_now_is_left_to_its_tracker(store, server):
    run = store.runs()[0].name
    with store.locked(f"wandb-{run}", lambda: None, lambda: None):
        out, _ = finish(sync(store, server, run), code=1)
    assert "another process is tracking it" in out
    assert not server.runs


def test_a_damaged_run_is_told_and_disturbs_no_other(store, server):
    first, *others = store.runs()
    (first.path / "history.jsonl").write_text("{")
    out, err = finish(sync(store, server), code=1)
    assert "is damaged" in out and out.count("rows uploaded") == len(others)
    assert "Traceback" not in err
