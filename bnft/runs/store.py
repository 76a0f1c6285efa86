"""The store: one folder a run, named by what the run computes.

    config.yaml               the whole resolved configuration, and the identity that the name is the hash of
    status.json               where the run stands, rewritten as it goes
    history.jsonl             one line an epoch
    batchnorm.safetensors     gamma, beta, mean, variance of every BN layer at every epoch
    checkpoint.safetensors    the newest state that training can go on from; gone when training is done
    model.safetensors         the trained model; its presence means "trained"
    evaluation/<id>/          outcomes.safetensors and result.json, written last: its presence means "done"
    tracking.json             what W&B has of the run; see `tracking.state`

Beside the runs, `sweeps/` says what was asked for together, `wandb/` is W&B's, `reports/` has reports, and `.locks/`
keeps two processes from one run. What a number can come from carries checksums, see `files`; a result and its outcomes
are also checked against each other.
"""

import errno
import fcntl
import json
import math
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from bnft.batchnorm.record import BatchNormRecord
from bnft.common import files
from bnft.common.errors import DamagedError, InputError, UnwritableError, rejected
from bnft.common.stopping import steady
from bnft.evaluation.settings import STANDS
from bnft.runs import identity

if TYPE_CHECKING:  # commands that only read results start without PyTorch
    import torch
    from numpy.typing import NDArray

    from bnft.evaluation.cascade import Cascade
    from bnft.training.loop import Progress

LOCK_POLL_SECONDS = 0.2
SLURM_FOLDER = ".slurm"  # what jobs need and write
RUN_NAME = re.compile(rf".+-[0-9a-f]{{{identity.HASH_LENGTH}}}")
IMAGES = ("adversarial", "originals")  # of the outcomes; all else is a few numbers per image
SWEEP_KEYS = {"command", "runs", "bases"}
ENTRY_KEYS = {"runs": {"run", "evaluation"}, "bases": {"run"}, "arrays": {"name", "tasks"}}  # of each in these lists
NUMBER = re.compile(rb'\s*{\s*"number": (\d+)')  # at the beginning of a sweep's record
RESULT_KEYS = {"clean", "robust", "cascade", "warnings", "seconds", "run", "evaluation", "data", "training", "seed"}


def _same(owner: object, run: str) -> bool:
    """Whether the run `owner` has the hash of the run `run`; its policy can be called otherwise now."""
    return str(owner).rpartition("-")[2] == run.rpartition("-")[2]


def task_name(run: str, evaluation: str | None) -> str:
    """`RUN/EVALUATION`, or the run alone for its training."""
    return f"{run}/{evaluation}" if evaluation else run


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def checked(store: str) -> Path:
    """The folder of a store, which need not exist yet. Raises InputError if it cannot become one."""
    if not store:
        raise rejected("store", store, "a folder; . is the current one")
    try:
        path = Path(store).expanduser()
        for part in (path, *path.parents):
            with suppress(FileNotFoundError, NotADirectoryError):
                if not stat.S_ISDIR(os.stat(part).st_mode):
                    raise rejected("store", store, f"a folder; {part} is a file")
                longest = max((len(os.fsencode(name)) for name in path.parts), default=0)
                if longest > os.pathconf(part, "PC_NAME_MAX"):
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
                break
    except OSError as error:
        raise rejected("store", store, f"a folder that can be made ({error.strerror})") from None
    except (RuntimeError, ValueError) as error:  # ~ of an unknown user, and a NUL byte
        raise rejected("store", store, f"a folder that can be made ({error})") from None
    return path


class EvaluationFolder:
    """What one evaluation of a run leaves behind. `owner` is the run's config.yaml; see `files.write`."""

    def __init__(self, path: Path, owner: Path | None = None) -> None:
        self.path, self._owner = path, owner

    def result(self) -> dict[str, Any] | None:
        """The result, or None if the evaluation is not done. Raises DamagedError if it is not whole.

        Its `outcomes` are the checksum of the outcomes that it belongs to; a result from before checksums has none.
        """
        file = self.path / "result.json"
        if not file.exists():
            return None
        found = files.read_json(file)
        missing = RESULT_KEYS - found.keys() if isinstance(found, dict) else RESULT_KEYS
        if missing:
            raise DamagedError(f"{file}: is damaged, it lacks {', '.join(sorted(missing))}")
        result = files.unsealed(file, found)
        owner, run = result["run"].get("name"), self.path.parents[1].name
        if owner is not None and not _same(owner, run):
            raise DamagedError(f"{file}: is damaged, it is the result of {owner}")
        return result

    def outcomes(self, images: bool = True) -> "dict[str, NDArray[Any]]":
        """Per-image outcomes as arrays, see `evaluation.Outcomes`; without `images`, only a few numbers of each.

        Raises DamagedError if what is read is not whole, or not what the result was counted from.
        """
        file = self.path / "outcomes.safetensors"
        outcomes, result = files.read_arrays(file, () if images else IMAGES), self.result()
        if result is not None:
            if result.get("outcomes") != files.checksum(file):
                raise DamagedError(f"{file}: is damaged, it does not belong to the result.json beside it")
            wrong = _miscounted(result, outcomes)
            if wrong:
                raise DamagedError(f"{file}: is damaged, its {wrong} is not what the result.json beside it says")
        return outcomes

    def save(self, outcomes: "Mapping[str, torch.Tensor]", result: Mapping[str, Any]) -> None:
        """Write both, over what is there. Until the end, the evaluation is not done."""
        (self.path / "result.json").unlink(missing_ok=True)
        checksum = files.write_tensors(self.path / "outcomes.safetensors", outcomes, owner=self._owner)
        files.write_json(self.path / "result.json", files.sealed({**result, "outcomes": checksum}), self._owner)
        (self.path / "cascade.safetensors").unlink(missing_ok=True)

    def save_cascade(self, cascade: "Cascade") -> None:
        tensors = {name: getattr(cascade, name) for name in ("fallen_at", "adversarial", "members")}
        place = {name: getattr(cascade, name) for name in ("attack", "batch", "seconds", "warnings")}
        files.write_tensors(self.path / "cascade.safetensors", tensors, place, self._owner)

    def cascade(self) -> "Cascade | None":
        """The cascade to go on with, or None to start. Raises DamagedError if it is not whole."""
        from bnft.evaluation.cascade import Cascade

        file = self.path / "cascade.safetensors"
        if not file.exists():
            return None
        tensors, place = files.read_tensors(file)
        state: dict[str, Any] = {**tensors, **place}
        try:
            return Cascade(**state)
        except TypeError:
            raise DamagedError(f"{file}: is damaged, it is no state of an evaluation") from None


def _miscounted(result: Mapping[str, Any], outcomes: "Mapping[str, NDArray[Any]]") -> str | None:
    """Which error of a result is not that of its outcomes, if any; what has no outcomes to count is left alone."""
    counted: dict[str, tuple[Any, Any]] = {}
    try:
        if {"clean_logits", "labels"} <= outcomes.keys():
            counted["clean error"] = result["clean"], outcomes["clean_logits"].argmax(1) != outcomes["labels"]
        if "fallen_at" in outcomes:
            fallen_at = outcomes["fallen_at"]
            counted["robust error"] = result["robust"], fallen_at != STANDS
            for number, step in enumerate(result["cascade"], start=1):
                counted[f"error after {step['attack']}"] = step, (fallen_at >= 0) & (fallen_at <= number)
        for name, (rate, wrong) in counted.items():
            errors, images = int(wrong.sum()), len(wrong)
            if (rate["errors"], rate["images"]) != (errors, images) or not isclose(
                rate["error"], 100 * errors / images
            ):
                return name
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return "shape"
    return None


class RunFolder:
    """What one run leaves behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._owner: Path | None = None

    @property
    def name(self) -> str:
        return self.path.name

    def config(self) -> dict[str, Any]:
        """The run's configuration. Raises DamagedError unless it is there and hashes to the run's name."""
        file = self.path / "config.yaml"
        if not file.exists():
            raise DamagedError(f"{self.path}: holds no config.yaml; move this folder away to have the run made again")
        config = files.read_yaml(file)
        try:
            named = identity.digest(config["run"]["identity"])
        except (TypeError, KeyError):
            raise DamagedError(f"{file}: is damaged, it lacks run.identity; move its folder away") from None
        if not _same(f"-{named}", self.name):
            raise DamagedError(f"{file}: does not belong to the run {self.name}; move its folder away")
        assert isinstance(config, dict)
        return config

    def open(self, config: Mapping[str, Any]) -> None:
        """Make the folder, or check that it is this run's. To be called with the run's lock held.

        From then on, what is written through this object raises InputError if the folder was removed.
        """
        if (self.path / "config.yaml").exists():
            self.config()
        elif self.path.exists() and any(file for file in self.path.iterdir() if not file.name.startswith(".")):
            raise DamagedError(f"{self.path}: holds no config.yaml; move this folder away to have the run made again")
        else:
            files.write_yaml(self.path / "config.yaml", dict(config))
        self._owner = self.path / "config.yaml"
        files.remove_temporary(self.path)
        self.remove_outdated()

    def remove_outdated(self) -> None:
        """Remove what a process that was killed between two files left. To be called with the run's lock held."""
        for file in self.outdated():
            file.unlink(missing_ok=True)

    def outdated(self) -> list[Path]:
        """Saved states of what has been finished since. A newer one is of an evaluation that is done again."""
        finished = [(self.path / "checkpoint.safetensors", self.path / "model.safetensors")]
        for evaluation in self.evaluations():
            finished.append((evaluation.path / "cascade.safetensors", evaluation.path / "result.json"))
        return [state for state, made in finished if _is_older(state, made)]

    def status(self) -> dict[str, Any]:
        try:
            status = files.read_json(self.path / "status.json")
        except (FileNotFoundError, DamagedError):
            return {}
        return status if isinstance(status, dict) else {}

    def write_status(self, **fields: Any) -> None:
        """Rewrite status.json with `fields` beside who and when."""
        status = {**fields, "host": socket.gethostname(), "pid": os.getpid(), "updated": now()}
        if "SLURM_ARRAY_JOB_ID" in os.environ:
            status["slurm_job"] = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        files.write_json(self.path / "status.json", status, self._owner)

    def end_status(self, state: str, error: str) -> None:
        """Write into status.json that the work ended before it was done; how far it was stays there.

        A run that was never opened has no folder, and gets none for this.
        """
        if (self.path / "config.yaml").exists():
            self.write_status(**{**self.status(), "state": state, "error": error})

    @property
    def trained(self) -> bool:
        return (self.path / "model.safetensors").exists()

    def history(self) -> list[dict[str, Any]]:
        return files.read_lines(self.path / "history.jsonl")

    @property
    def begun(self) -> bool:
        """Whether there is anything of the run. If one may not look there is: whoever reads it will be told."""
        try:
            return (self.path / "config.yaml").exists() or self.path.is_file()
        except PermissionError:
            return True

    def batchnorm(self) -> BatchNormRecord:
        """The record of the BN layers. Raises DamagedError if it is not there or not whole."""
        file = self.path / "batchnorm.safetensors"
        return BatchNormRecord(files.read_arrays(file), files.read_metadata(file).get("eps", {}))

    def model(self) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
        """The trained model's state and what was recorded with it. Raises DamagedError unless both are of this run."""
        file = self.path / "model.safetensors"
        state, record = files.read_tensors(file)
        owner = record.get("run")
        if owner is not None and not _same(owner, self.name):
            raise DamagedError(f"{file}: is damaged, it is the model of {owner}")
        return state, record

    def save_logs(self, progress: "Progress", bn_eps: Mapping[str, float]) -> None:
        files.write_lines(self.path / "history.jsonl", progress.history, self._owner)
        record = {"eps": dict(bn_eps)}
        files.write_tensors(self.path / "batchnorm.safetensors", progress.batchnorm.stacked(), record, self._owner)

    def save_checkpoint(
        self, state: "Mapping[str, torch.Tensor]", progress: "Progress", record: Mapping[str, Any]
    ) -> None:
        """Keep what training goes on from: weights, momentum, and the place; the logs lie in their own files."""
        tensors = {f"model/{name}": value for name, value in state.items()}
        tensors |= {f"velocity/{name}": value for name, value in progress.velocity.items()}
        place = {name: getattr(progress, name) for name in _PLACE}
        kept = {"progress": place, **record}
        files.write_tensors(self.path / "checkpoint.safetensors", tensors, kept, self._owner)

    def checkpoint(self) -> "tuple[dict[str, torch.Tensor], Progress, dict[str, Any]] | None":
        """Model state, progress and record to go on from; None if there is no checkpoint.

        Epochs that were logged after the checkpoint will be trained again, so their lines are left out. Raises
        DamagedError if the checkpoint, or the logs that go with it, cannot be used.
        """
        from bnft.batchnorm.log import BatchNormLog
        from bnft.training.loop import Progress

        file = self.path / "checkpoint.safetensors"
        if not file.exists():
            return None
        try:
            tensors, record = files.read_tensors(file)
            progress = Progress(**record.pop("progress"))
            stacked, _ = files.read_tensors(self.path / "batchnorm.safetensors")
            progress.history = [line for line in self.history() if line["epoch"] <= progress.epoch]
            progress.batchnorm = BatchNormLog.from_stacked(stacked).up_to(progress.epoch)
        except (KeyError, TypeError):
            raise DamagedError(f"{file}: is damaged, it is no state of a training") from None
        if len(progress.history) != progress.epoch or len(progress.batchnorm.epochs) != progress.epoch + 1:
            raise DamagedError(f"{file}: is damaged, or its history.jsonl or batchnorm.safetensors, which lack epochs")
        model, progress.velocity = (
            {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
            for part in ("model/", "velocity/")
        )
        return model, progress, record

    def save_model(self, state: "Mapping[str, torch.Tensor]", record: Mapping[str, Any]) -> None:
        files.write_tensors(self.path / "model.safetensors", state, record, self._owner)
        (self.path / "checkpoint.safetensors").unlink(missing_ok=True)

    def discard_model(self) -> bool:
        """Remove a damaged model and set its evaluations aside; returns whether there are any.

        They may be right, but the model that is trained in its place can differ from theirs on another device.
        """
        aside = self.set_aside_evaluations()  # first: a result counts without its model
        (self.path / "model.safetensors").unlink(missing_ok=True)
        return aside

    def set_aside_evaluations(self) -> bool:
        """Move evaluations of a model that is gone out of the way of the next one's; returns whether there are any.

        Those that are not done are moved too, since nobody may go on with them on another model.
        """
        folder, number = self.path / "evaluation", 1
        if not files.folders(folder):
            return False
        while (aside := self.path / f"evaluation.{number}").exists():
            number += 1
        folder.rename(aside)
        return True

    @files.reachable()
    def progress_made(self) -> list[Any]:
        """Something that is different after any progress that was kept."""
        made: list[Any] = [self.trained, len(self.evaluations())]
        for file in (self.path / "checkpoint.safetensors", *self.path.glob("evaluation/*/cascade.safetensors")):
            with suppress(DamagedError):
                kept = files.read_metadata(file)
                place = kept.get("progress", kept)
                made.append([place.get(name) for name in ("epoch", "step", "attack", "batch")])
        return made

    def evaluation(self, evaluation_id: str) -> EvaluationFolder:
        return EvaluationFolder(self.path / "evaluation" / evaluation_id, self._owner)

    def evaluations(self) -> list[EvaluationFolder]:
        """All evaluations that are done."""
        found = files.folders(self.path / "evaluation")
        return [EvaluationFolder(folder) for folder in found if (folder / "result.json").exists()]


def _is_older(file: Path, other: Path) -> bool:
    """Whether both files are there, and the first was not written after the second."""
    try:
        return file.stat().st_mtime_ns <= other.stat().st_mtime_ns
    except FileNotFoundError:
        return False


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except OSError as error:
        folder = Path(lock.lock_file).parents[1]
        if error.errno != errno.ENOSYS:
            raise _unwritable(folder, error) from None
        raise InputError(f"store={folder}: must be on a file system with locks (flock); this one has none") from None
    return True


def _unwritable(folder: Path, error: OSError) -> UnwritableError:
    return UnwritableError(f"store={folder}: must be a folder that can be written to ({error.strerror})")


def _number(file: Path) -> float:
    """The number of a sweep, from the first bytes of its record. 0 if it was recorded before there were numbers.

    Infinity if there is no record in the file, so that whoever looks for the newest sweep comes upon it first.
    """
    try:
        with file.open("rb", buffering=0) as opened:
            beginning = opened.read(64) or b""
    except OSError:
        return math.inf
    found = NUMBER.match(beginning)
    if found is not None:
        return int(found[1])
    return 0 if beginning.startswith(b"{") else math.inf


def _is_record(value: Any) -> bool:
    """Whether this is the record of a sweep, with everything that is read of it."""
    return (
        isinstance(value, dict)
        and value.keys() >= SWEEP_KEYS
        and all(isinstance(value.get(part, []), list) for part in ENTRY_KEYS)
        and all(
            isinstance(entry, dict) and entry.keys() >= keys
            for part, keys in ENTRY_KEYS.items()
            for entry in value.get(part, [])
        )
    )


_PLACE = ("epoch", "step", "losses", "errors", "images", "seconds")


class Store:
    """The folder that holds all runs."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.root / name)

    def folders(self) -> list[RunFolder]:
        """Everything in the store that is named as a run is."""
        found = sorted(self.root.iterdir()) if self.root.is_dir() else []
        return [RunFolder(path) for path in found if RUN_NAME.fullmatch(path.name)]

    def runs(self) -> list[RunFolder]:
        """Every run in the store."""
        return [folder for folder in self.folders() if folder.begun]

    @contextmanager
    def locked(self, name: str, waiting: Callable[[], None], pulse: Callable[[], None]) -> Iterator[None]:
        """Hold the lock `name`, a run's or a sweep's; if another process has it, call `waiting` once and wait.

        `pulse` is called while waiting; what it or `waiting` raises ends that. The lock is the operating system's and
        goes with its process, however that ends.
        """
        lock = self._lock(name)
        if not _acquired(lock):
            waiting()
            while not _acquired(lock):
                pulse()
                time.sleep(LOCK_POLL_SECONDS)
        try:
            yield
        finally:
            lock.release()

    def remove_outdated(self, name: str) -> None:
        """Remove what a run needs no more, as `RunFolder.open` does, unless another process has its lock."""
        folder = self.run(name)
        if folder.outdated() and _acquired(lock := self._lock(name)):
            folder.remove_outdated()
            lock.release()

    def is_locked(self, name: str) -> bool:
        """Whether a process of this machine, or of one that shares the store, holds the lock `name`.

        Writes nothing, so that it can be asked of a store that is read-only.
        """
        try:
            file = self._lock_file(name).open("rb")
        except OSError:  # it was never taken
            return False
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:  # any other: the file system has no locks, so nobody can work there
                return error.errno in (errno.EAGAIN, errno.EACCES)
        return False

    def _lock_file(self, name: str) -> Path:
        return self.root / ".locks" / f"{name}.lock"

    def _lock(self, name: str) -> FileLock:
        file = self._lock_file(name)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.root, error) from None
        return FileLock(file, fallback_to_soft=False)  # a soft lock would outlive a killed process

    def log(self, name: str) -> Path:
        """Where a local run's output goes: what libraries print, warnings, the traceback of a failure."""
        return self.root / "logs" / f"{name}.log"

    def kept_log(self, name: str) -> Path | None:
        """The run's log, if there is anything in it."""
        log = self.log(name)
        return log if log.exists() and log.stat().st_size else None

    def job_log(self, sweep: str, array: str, index: str | int) -> Path:
        """Where a SLURM job writes: submitit's name for the output of a task of an array."""
        return self.root / SLURM_FOLDER / sweep / "log" / f"{array}_{index}_0_log.out"

    def save_sweep(
        self, entries: list[dict[str, str]], bases: list[dict[str, str]], command: str, commit: str | None
    ) -> str:
        """Write down what was asked for together, and who launches it; returns the sweep's name.

        Sweeps are numbered in the order in which they are recorded, whatever the clocks of their machines say.
        Raises UnwritableError if the store cannot be written to.
        """
        launcher = {"host": socket.gethostname(), "pid": os.getpid()}
        with self.locked("sweeps", steady, steady):
            numbers = self._numbers()
            number = 1 + max((number for number in numbers.values() if number < math.inf), default=0)
            while (name := datetime.now().strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3]) in numbers:
                time.sleep(0.002)
            sweep = {"number": number, "command": command, "commit": commit, "time": now(), "launcher": launcher}
            files.write_json(self._sweep_file(name), {**sweep, "runs": entries, "bases": bases})
        return name

    def extend_sweep(self, name: str, **fields: Any) -> None:
        """Write more about a sweep into its record."""
        files.write_json(self._sweep_file(name), {**self.sweep(name), **fields})

    def sweeps(self) -> list[str]:
        """The names of all sweeps, oldest first. Reads only the first bytes of each record."""
        numbers = self._numbers()
        return sorted(numbers, key=lambda name: (numbers[name], name))

    def _numbers(self) -> dict[str, float]:
        """The number of every sweep, by its name."""
        return {file.stem: _number(file) for file in (self.root / "sweeps").glob("*.json")}

    def has_sweep(self, name: str) -> bool:
        return self._sweep_file(name).exists()

    def _sweep_file(self, name: str) -> Path:
        return self.root / "sweeps" / f"{name}.json"

    def sweep(self, name: str) -> dict[str, Any]:
        """One sweep: `number`, `command`, `commit`, `time`, `launcher`, `runs`, `bases`, and what its launcher adds.

        A run has `run`, `evaluation` and, if it starts from another, `base`; a base has `run` and maybe `base`.
        Raises InputError if there is no such sweep, DamagedError if its record cannot be read.
        """
        file = self._sweep_file(name)
        if not file.exists():
            newest = ", ".join(self.sweeps()[-3:]) or "none"
            raise InputError(f"sweep {name}: must be one of those in {self.root / 'sweeps'} (newest: {newest})")
        try:
            sweep = json.loads(file.read_text())
        except (OSError, ValueError):
            sweep = None
        if not _is_record(sweep):
            raise DamagedError(f"{file}: is damaged, it must be the record of a sweep; remove this file, the runs stay")
        assert isinstance(sweep, dict)
        return sweep
