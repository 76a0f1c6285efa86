"""Run the program in its own processes, with its work counted (see counted.py), and read the files that it writes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from bnft.common.stopping import STOP_SIGNALS
from bnft.runs.store import Store
from bnft.sweeps.status import StoreStatus
from support import warm

WORKERS, BATCH = 2, 4
COMMON = (
    "schedule.epochs=2",
    "schedule.batch_size=128",
    "model.width=2",
    "attack._target_=mischief.attack",
    "+attack.name=${title}",
    "attack.iterations=2",
    "evaluation.version=custom",
    "evaluation.attacks=[apgd-ce,apgd-dlr]",
    "evaluation.eps=0.02",
    "evaluation.n_images=16",
    f"evaluation.batch_size={BATCH}",
    "preview=null",  # test_previews.py is about it
)
SWEEP = (  # a base, two that start from it, and one beside them; two of four in adversarial training
    "-m",
    "policy=adv,bn_params,bn_stats",
    *COMMON,
    "base_overrides=[schedule.epochs=2]",
    f"hydra.launcher.workers={WORKERS}",
)
COUNTED = str(Path(__file__).with_name("counted.py"))


def start(folder: Path, *arguments: str, **options: Any) -> subprocess.Popen:
    """Start the program in its own session, so that it can receive signals, and `session` finds its processes."""
    environment = {**os.environ, "WORK": str(folder / "work"), "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return warm.Popen(
        [sys.executable, COUNTED, *arguments, "threads=1"],
        cwd=folder,
        env=environment,
        start_new_session=True,
        text=True,
        **{**pipes, **options},
    )


def heeding_signals() -> None:
    """Restore the default handling of signals, as in a terminal. Background jobs of a shell ignore some signals."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def finish(process: subprocess.Popen, code: int = 0, seconds: float = 120) -> tuple[str, str]:
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == code, f"{process.returncode}: {out}{err}"
    return out, err


def until(condition: Callable[[], object], process: subprocess.Popen | None = None, seconds: float = 60) -> None:
    """Wait until `condition()` holds or the process has ended."""
    end = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            return
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.005)


def session(process: subprocess.Popen) -> list[int]:
    """Return the processes that `process` started, and itself. Orphaned processes are included."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, number = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:  # the process has ended meanwhile
                continue
            if int(number) == process.pid and state != "Z":
                pids.append(int(entry.name))
    return pids


def work(folder: Path) -> str:
    """Return one letter for each unit of work; see counted.py."""
    file = folder / "work"
    return file.read_text() if file.exists() else ""


def statuses(folder: Path) -> dict[str, dict]:
    """Return the status of every run, by its name."""
    result = {}
    for file in (folder / "multirun").glob("*/status.json"):
        result[file.parent.name] = json.loads(file.read_text())
    return result


def states(folder: Path) -> dict[str, dict]:
    """Return the status of every run, by its policy."""
    return {name.rpartition("-")[0]: status for name, status in statuses(folder).items()}


def log_of(folder: Path, run: str) -> Path:
    return folder / "multirun" / "logs" / f"{run}.log"


def tensors(store: Path) -> dict[str, torch.Tensor]:
    """Return every tensor in the files of runs, by file and name."""
    files = [*store.glob("*/*.safetensors"), *store.glob("*/evaluation/*/*.safetensors")]
    return {f"{file.relative_to(store)}:{name}": value for file in files for name, value in load_file(file).items()}


def left(folder: Path) -> dict[str, object]:
    """Return the results and histories of all runs of a folder, without their times, so that they can be compared."""
    store = folder / "multirun"
    records: dict[str, object] = {}
    for file in store.glob("*/evaluation/*/result.json"):
        result = json.loads(file.read_text())
        steps = [{key: value for key, value in step.items() if key != "seconds"} for step in result["cascade"]]
        records[str(file.relative_to(store))] = [result["clean"], result["robust"], steps, result["warnings"]]
    for file in store.glob("*/history.jsonl"):
        lines = map(json.loads, file.read_text().splitlines())
        kept = [{key: value for key, value in line.items() if key not in ("seconds", "checksum")} for line in lines]
        records[str(file.relative_to(store))] = kept
    return records


def assert_same(calm: Path, stormy: Path, why: object = "") -> None:
    """Assert that both folders have the same runs with the same bits, and nothing else."""
    expected, actual = tensors(calm / "multirun"), tensors(stormy / "multirun")
    assert actual.keys() == expected.keys(), why
    assert [name for name, value in expected.items() if not torch.equal(value, actual[name])] == [], why
    assert left(stormy) == left(calm), why
    lying = [file for file in (stormy / "multirun").rglob("*.tmp") if "status" not in file.name]
    assert [file for file in lying if file.parent.name != "sweeps"] == [], "what was left behind is cleared away"
    assert not list((stormy / "multirun").rglob("checkpoint.safetensors"))
    assert {standing.state for standing in StoreStatus(Store(stormy / "multirun"), []).statuses()} == {"done"}


def ctrl_c(process):
    """Send SIGINT to every process, as a terminal does."""
    os.killpg(process.pid, signal.SIGINT)


def assert_stopped(process, seconds=10.0):
    """Assert that a process ends in time and with one line, and that none of its processes is left."""
    process.wait(timeout=seconds)
    _, err = finish(process, code=130)
    assert err.splitlines()[-1] == "interrupted; the same command continues from here"
    assert "Traceback" not in err
    until(lambda: not session(process), seconds=5)
