"""Measure the cost of tracking for a run on CIFAR-10. The limit is 2 % of the training time.

    python benchmarks/tracking.py                  # ten minutes on two idle CPU cores; with a GPU, --images 50000
    python benchmarks/tracking.py --data-root DIR  # on CIFAR-10; without it, on random images of the same shape

The network is the paper's ResNet-20 of width 64, with six histograms for each of its BN layers at each epoch. The
script measures:

1. the time of the trainer for the record that tracking reads, in an epoch of a long training, with or without tracking;
2. the CPU time of the tracking process and W&B's own process for an epoch, at the lowest priority;
3. the wall time of trainings on few images, without tracking and with it (offline), in turns.

A tracking process needs about one CPU second to start, once per launcher. In a training of seconds, this dominates. The
first two times are compared with `--epoch-seconds`, the duration of an epoch of the paper's schedule on your machine.
This is the worst case, in which they slow down training by their whole duration.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from bnft.batchnorm.log import layer_eps
from bnft.models.resnet import ResNet
from bnft.runs.run_folder import RunFolder
from bnft.runs.store import Store
from bnft.sweeps.terminal import Terminal
from bnft.tracking.background import tracked
from bnft.training.state import TrainingState

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 2.0  # percent
LONG = 100  # epochs of the training whose record is measured
FOLLOWED = 12  # epochs that are tracked one by one
EPOCH_SECONDS = 1.5  # the duration of each of these
OFFLINE = {"mode": "offline", "project": "benchmark", "entity": None, "tags": []}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="CIFAR-10 as torchvision unpacks it")
    parser.add_argument("--images", type=int, default=512, help="training images (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of each training (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="trainings of each kind (default: %(default)s)")
    parser.add_argument("--epoch-seconds", type=float, default=8.0, help="a whole epoch (default: %(default)s)")
    options = parser.parse_args()
    network = ResNet(channels=3, num_classes=10, width=64, blocks=[3, 3, 3])
    print(f"{len(layer_eps(network))} BN layers, {os.cpu_count()} CPUs, {_device()}\n")
    with tempfile.TemporaryDirectory() as folder:
        kept = recording(network, Path(folder))
        followed = following(network, Path(folder))
        for what, seconds in (("record kept by the trainer", kept), ("CPU time of tracking", followed)):
            share = 100 * seconds / options.epoch_seconds
            print(f"{what}: {1000 * seconds:.0f} ms an epoch, {share:.2f} % of {options.epoch_seconds:g} s")
        print()
        ratio = training(options, Path(folder))
    verdict = "within" if ratio <= LIMIT else "ABOVE"
    print(f"\ntracking adds {ratio:+.2f} % to the training time: {verdict} the limit of {LIMIT:g} %")
    sys.exit(ratio > LIMIT)


def recording(network: torch.nn.Module, folder: Path) -> float:
    """Return the seconds of the trainer for the record of an epoch, in the middle of a long training."""
    run, progress = RunFolder(folder / "record"), TrainingState()
    for epoch in range(LONG // 2):
        _add_epoch(progress, network, epoch)
    spent = []
    for epoch in range(LONG // 2, LONG // 2 + 10):
        began = time.monotonic()
        _add_epoch(progress, network, epoch)
        run.save_logs(progress, layer_eps(network))
        spent.append(time.monotonic() - began)
    return statistics.median(spent)


def following(network: torch.nn.Module, folder: Path) -> float:
    """Return the CPU seconds of the tracking process and W&B's for an epoch, without those for a run of no epochs."""
    spent = []
    for epochs in (0, FOLLOWED):
        store, usage = Store(folder / f"followed-{epochs}"), Usage(("bnft.tracking.follow", "wandb-core"))
        with usage:
            name = _follow(network, store, epochs)
        rows = json.loads((store.run(name).path / "tracking.json").read_text())["targets"]["offline"]["rows"]
        assert rows == epochs + 1, "every row is logged"
        spent.append(usage.seconds)
    print(f"CPU time of tracking a run of one row: {spent[0]:.2f} s, of {FOLLOWED + 1} rows: {spent[1]:.2f} s")
    return (spent[1] - spent[0]) / FOLLOWED


class Usage:
    """The CPU seconds of all processes with one of some words in their command lines, sampled in a `with` block."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self._words, self._over = words, threading.Event()
        self._seconds: dict[str, float] = {}
        self._thread = threading.Thread(target=self._sample)

    @property
    def seconds(self) -> float:
        return sum(self._seconds.values())

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(0.05):
            for entry in Path("/proc").iterdir():
                with suppress(OSError):
                    if entry.name.isdigit() and any(word in (entry / "cmdline").read_text() for word in self._words):
                        ticks = (entry / "stat").read_text().rpartition(")")[2].split()[11:13]
                        self._seconds[entry.name] = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _follow(network: torch.nn.Module, store: Store, epochs: int) -> str:
    from bnft.common import files
    from bnft.runs import identity

    named = {"benchmark": epochs}
    name = f"normal-{identity.digest(named)}"
    run, progress = store.run(name), TrainingState()
    config = {"run": {"policy": "normal", "identity": named}, "attack": None, "wandb": OFFLINE}
    files.write_yaml(run.path / "config.yaml", config)
    progress.batchnorm.append(0, network)
    with tracked(store, {name: []}, OFFLINE, Terminal(), stopped_seconds=60.0):
        for epoch in range(epochs + 1):
            if epoch:
                _add_epoch(progress, network, epoch)
            run.save_logs(progress, layer_eps(network))
            run.write_status(state="running", stage="training", epoch=epoch)
            time.sleep(EPOCH_SECONDS)
        run.write_status(state="done", stage="trained")
        time.sleep(2 * EPOCH_SECONDS)
    return name


def training(options: argparse.Namespace, folder: Path) -> float:
    """Return by how many percent trainings take longer with tracking.

    The fastest trainings are compared, because other work on the machine disturbs them least.
    """
    data = folder / "images.npz"
    np.savez(data, **_images(options))  # type: ignore[arg-type]
    modes = ("disabled", "offline")
    times: dict[str, list[tuple[float, float, float]]] = {mode: [] for mode in modes}
    for repeat in range(options.repeats):
        for mode in modes if repeat % 2 == 0 else modes[::-1]:
            wall, cpu, epochs = _trained(options, folder / f"{mode}-{repeat}", data, mode)
            times[mode].append((wall, cpu, epochs))
            print(f"{mode:8}  training {epochs:7.2f} s; whole run {wall:7.2f} s, CPU {cpu:7.2f} s", flush=True)
    fastest = {mode: [min(column) for column in zip(*times[mode], strict=True)] for mode in modes}
    for place, what in enumerate(("whole run", "CPU", "training")):
        off, on = (fastest[mode][place] for mode in modes)
        print(f"fastest {what}: {off:.2f} s without, {on:.2f} s with tracking, {100 * (on / off - 1):+.2f} %")
    alike = [epochs for _, _, epochs in times["disabled"]]
    print(f"trainings without tracking differ by {100 * (max(alike) / min(alike) - 1):.1f} % among themselves")
    return 100 * (fastest["offline"][2] / fastest["disabled"][2] - 1)


def _trained(options: argparse.Namespace, folder: Path, data: Path, mode: str) -> tuple[float, float, float]:
    """Return the wall and CPU seconds of `launch.py`, without W&B's processes, and the wall seconds of its epochs."""
    line = (
        "policy=normal",
        "data=npz",
        f"data.path={data}",
        "model=resnet20",
        f"schedule.epochs={options.epochs}",
        "schedule.batch_size=128",
        "evaluation=pgd",
        "evaluation.iterations=1",
        "evaluation.n_images=10",
        f"wandb.mode={mode}",
    )
    folder.mkdir()
    began, before = time.monotonic(), _children_seconds()
    done = subprocess.run([sys.executable, ROOT / "launch.py", *line], cwd=folder, capture_output=True, text=True)
    wall, cpu = time.monotonic() - began, _children_seconds() - before
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    (history,) = folder.glob("multirun/*/history.jsonl")
    tracked_runs = len(list(folder.glob("multirun/wandb/offline-run-*")))
    assert tracked_runs == (mode == "offline"), "runs are tracked only with wandb.mode=offline"
    return wall, cpu, sum(json.loads(text)["seconds"] for text in history.read_text().splitlines())


def _images(options: argparse.Namespace) -> dict[str, np.ndarray]:
    if options.data_root is not None:
        from bnft.data.cifar10 import load

        arrays = load(str(options.data_root), download=False)
        images = (arrays.x_train, arrays.y_train, arrays.x_test[:100], arrays.y_test[:100])
    else:
        random = np.random.RandomState(0)
        shapes = (options.images, 100)
        pairs = [(random.randint(0, 256, (n, 32, 32, 3)).astype(np.uint8), np.arange(n) % 10) for n in shapes]
        images = (*pairs[0], *pairs[1])
    x_train, y_train = images[0][: options.images], images[1][: options.images]
    return {"x_train": x_train, "y_train": y_train, "x_test": images[2], "y_test": images[3]}


def _add_epoch(progress: TrainingState, network: torch.nn.Module, epoch: int) -> None:
    line = {"epoch": epoch, "loss": 1.0, "error": 50.0, "clean_error": 50.0, "lr": 0.1, "images": 50000, "seconds": 8.0}
    progress.history.append(line)
    progress.batchnorm.append(epoch, network)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


if __name__ == "__main__":
    main()
