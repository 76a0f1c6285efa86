"""W&B harms no run: whatever is wrong with it, a sweep ends with the same numbers and hardly later."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest
import torch
from support.command import TINY
from support.programs import SWEEP as INTERRUPTED_SWEEP
from support.programs import assert_stopped, ctrl_c, finish, left, start, tensors, until, work
from support.syncing import assert_whole, sync
from support.wandb_server import KEY, WandbServer, children, read_back, without_credentials

from bnft.runs.store import Store
from bnft.tracking.follow import LOOK_SECONDS

SWEEP = ("-m", "policy=adv", *TINY, "schedule.epochs=9", "hydra.launcher.workers=1")
SECONDS, SHARE = 3.0, 0.05  # that tracking may add, whichever is more
TRIES = 3  # on a machine that is busy with something else, times mean little


class Calm:
    """What the sweep comes to without W&B, and in which time."""

    seconds = 0.0
    left: dict = {}
    tensors: dict = {}


def without_wandb(launch, folder):
    began = time.monotonic()
    assert launch(*SWEEP, "wandb.mode=disabled", f"store={folder}/multirun").code == 0
    Calm.seconds = time.monotonic() - began


@pytest.fixture
def calm(launch, tmp_path):
    if not Calm.left:
        without_wandb(launch, "cold")  # which starts what later sweeps find started
        without_wandb(launch, "calm")
        Calm.left, Calm.tensors = left(tmp_path / "calm"), tensors(tmp_path / "calm" / "multirun")
    return Calm


@contextmanager
def repeatedly(act):
    """Call `act` every few hundredths of a second, in a thread."""
    over = threading.Event()

    def go():
        while not over.wait(0.02):
            act()

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def trackers():
    return children(os.getpid(), "bnft.tracking.follow")


struck = []  # what a trouble that waits for its moment has done


def send(processes, number):
    for process in processes:
        struck.append(process)
        with suppress(ProcessLookupError):
            os.kill(process, number)


def closed_port(stack, server):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def silent(stack, server):
    listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def errors(stack, server):
    server.status = 500


def in_mid_run(stack, server, **trouble):
    def act():
        if server.runs:
            vars(server).update(trouble)
            struck.append(server)

    stack.enter_context(repeatedly(act))


def errors_in_mid_run(stack, server):
    in_mid_run(stack, server, status=500)


def silence_in_mid_run(stack, server):
    in_mid_run(stack, server, delay=60.0)


def wrong_key(stack, server):
    server.status = 401


def killed_service(stack, server):
    def act():
        for tracker in trackers():
            send(children(tracker, "wandb-core"), signal.SIGKILL)

    stack.enter_context(repeatedly(act))


def killed_tracking(stack, server):
    stack.enter_context(repeatedly(lambda: send(trackers(), signal.SIGKILL)))


def hung_tracking(stack, server):
    stack.enter_context(repeatedly(lambda: send(trackers(), signal.SIGSTOP)))


def no_folder(stack, server):
    os.makedirs("stormy/multirun")
    with open("stormy/multirun/wandb", "w"):
        pass


def full_disk(stack, server):
    os.makedirs("stormy/multirun/wandb")
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", "stormy/multirun/wandb"]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a full disk needs the right to mount one")
    stack.callback(subprocess.run, ["umount", "-l", "stormy/multirun/wandb"])


USUAL = (silent, wrong_key)
RARE = (closed_port, errors, errors_in_mid_run, silence_in_mid_run, full_disk, no_folder)
RARE = (*RARE, killed_service, killed_tracking, hung_tracking)  # type: ignore[assignment]
WAITING = (errors_in_mid_run, silence_in_mid_run, killed_service, killed_tracking, hung_tracking)
SAID = {wrong_key: "refuses the credentials", hung_tracking: "not everything has been sent"}


def under(trouble, launch, monkeypatch):
    """The sweep in the folder `stormy`; returns how it ended and how long it took."""
    shutil.rmtree("stormy", ignore_errors=True)
    struck.clear()
    with WandbServer() as server, ExitStack() as stack:
        monkeypatch.setenv("WANDB_BASE_URL", trouble(stack, server) or server.url)
        began = time.monotonic()
        ended = launch(*SWEEP, "store=stormy/multirun")
        return ended, time.monotonic() - began


@pytest.mark.parametrize(
    "trouble",
    [*USUAL, *(pytest.param(trouble, marks=pytest.mark.long) for trouble in RARE)],
    ids=lambda trouble: trouble.__name__,
)
def test_a_sweep_ends_with_the_same_numbers_in_the_same_time(launch, calm, monkeypatch, tmp_path, trouble):
    without_credentials(monkeypatch, tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    for _ in range(TRIES):
        ended, seconds = under(trouble, launch, monkeypatch)
        assert ended.code == 0, ended.err
        assert "Traceback" not in ended.err
        assert bool(struck) == (trouble in WAITING)
        assert SAID.get(trouble, "") in ended.err
        assert left(tmp_path / "stormy") == calm.left
        found = tensors(tmp_path / "stormy" / "multirun")
        assert found.keys() == calm.tensors.keys()
        assert all(torch.equal(value, found[name]) for name, value in calm.tensors.items())
        assert not trackers()
        print(f"{trouble.__name__}: {seconds:.1f} s, without W&B {calm.seconds:.1f} s")
        if seconds <= calm.seconds + max(SECONDS, SHARE * calm.seconds):
            return
        without_wandb(launch, "again")
        shutil.rmtree("again")
    pytest.fail("it takes too long")


@pytest.mark.parametrize(
    "trouble",
    [killed_tracking, errors_in_mid_run],
    ids=lambda trouble: trouble.__name__,
)
@pytest.mark.long
def test_what_trouble_kept_from_wandb_is_uploaded_later(launch, monkeypatch, tmp_path, trouble):
    without_credentials(monkeypatch, tmp_path)
    with WandbServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        with ExitStack() as stack:
            trouble(stack, server)
            assert launch(*SWEEP).code == 0
        server.status, store = None, Store(tmp_path / "multirun")
        finish(sync(store, server))
        assert_whole(store, server)


def test_a_launcher_that_is_killed_leaves_no_tracking_process(tmp_path):
    """It ends what it has begun, and itself."""
    code = (
        "import time; from bnft.runs.store import Store; from bnft.tracking.background import tracked;"
        "from bnft.sweeps.terminal import Terminal;"
        "settings = {'mode': 'offline', 'project': 'p', 'entity': None, 'tags': []};"
        "block = tracked(Store('multirun'), {'a-0123456789': []}, settings, Terminal()); block.__enter__();"
        "print('started', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"
    (tracker,) = children(process.pid, "bnft.tracking.follow")
    process.kill()
    process.wait()
    end = time.monotonic() + LOOK_SECONDS + 5
    while os.path.exists(f"/proc/{tracker}") and time.monotonic() < end:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{tracker}")


@pytest.mark.long
def test_an_interrupted_sweep_that_is_tracked_ends_as_soon(tmp_path):
    process = start(tmp_path, *INTERRUPTED_SWEEP, "wandb.mode=offline")
    until(lambda: work(tmp_path).count("t") > 25 and (tmp_path / "multirun" / "wandb").exists(), process)
    ctrl_c(process)
    assert_stopped(process)
    finish(start(tmp_path, *INTERRUPTED_SWEEP, "wandb.mode=offline"))
    for run in Store(tmp_path / "multirun").runs():
        folders = (tmp_path / "multirun" / "wandb").glob(f"offline-run-*-{run.name}*")
        steps = [
            record["history"]["item"]["_step"]
            for folder in sorted(folders)
            for record in read_back(folder)
            if record["type"] == "history"
        ]
        assert steps == list(range(len(run.history()) + 1 + len(run.evaluations())))
