"""The folder of one run; see `layout` for its files."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnft.batchnorm.record import BatchNormRecord
from bnft.common import files
from bnft.common.clock import now
from bnft.common.errors import DamagedError
from bnft.runs import identity, layout
from bnft.runs.evaluation_folder import EvaluationFolder
from bnft.runs.result import RunRecord, TrainingRecord, plain, read

if TYPE_CHECKING:  # commands that only read results start without PyTorch
    import torch

    from bnft.training.state import TrainingState


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._owner: Path | None = None

    @property
    def name(self) -> str:
        return self.path.name

    def config(self) -> dict[str, Any]:
        """Return the run's configuration. Raise DamagedError if it is missing, damaged or that of another run."""
        file = self.path / layout.CONFIG
        if not file.exists():
            raise self._without_config()
        config = files.read_yaml(file)
        try:
            record = read(RunRecord, config["run"], file)
            named = identity.digest(record.identity)
        except (TypeError, KeyError, ValueError):
            raise DamagedError(f"{file}: is damaged, run.identity is missing; move its folder away") from None
        except DamagedError as error:
            raise DamagedError(f"{error}; move its folder away") from None
        if not identity.same_hash(f"-{named}", self.name):
            raise DamagedError(f"{file}: does not belong to the run {self.name}; move its folder away")
        assert isinstance(config, dict)
        return config

    def _without_config(self) -> DamagedError:
        return DamagedError(f"{self.path}: holds no config.yaml; move this folder away to compute the run again")

    def record(self) -> RunRecord:
        """Return the record of the run. Raise DamagedError as `config` does."""
        return read(RunRecord, self.config()["run"], self.path / layout.CONFIG)

    def open(self, record: RunRecord, config: Mapping[str, Any]) -> None:
        """Create the folder, or check that it belongs to this run. The caller must hold the run's lock.

        Later writes through this object raise InputError if the folder has been removed.
        """
        if (self.path / layout.CONFIG).exists():
            self.config()
        elif self.path.exists() and any(file for file in self.path.iterdir() if not file.name.startswith(".")):
            raise self._without_config()
        else:
            files.write_yaml(self.path / layout.CONFIG, {"run": plain(record), **config})
        self._owner = self.path / layout.CONFIG
        files.remove_temporary(self.path)
        self.remove_outdated()

    def remove_outdated(self) -> None:
        """Remove the files that `outdated` returns. The caller must hold the run's lock."""
        for file in self.outdated():
            file.unlink(missing_ok=True)

    def outdated(self) -> list[Path]:
        """Return saved states of work that is done, which a killed process left behind.

        A state that is newer than the result is kept: the evaluation is being repeated.
        """
        finished = [(self.path / layout.CHECKPOINT, self.path / layout.MODEL)]
        for evaluation in self.evaluations():
            finished.append((evaluation.path / layout.CASCADE, evaluation.path / layout.RESULT))
        return [state for state, made in finished if _is_older(state, made)]

    def status(self) -> dict[str, Any]:
        try:
            status = files.read_json(self.path / layout.STATUS)
        except (FileNotFoundError, DamagedError):
            return {}
        return status if isinstance(status, dict) else {}

    def write_status(self, **fields: Any) -> None:
        """Write status.json with `fields`, the host, the process and the time."""
        status = {**fields, "host": socket.gethostname(), "pid": os.getpid(), "updated": now()}
        if "SLURM_ARRAY_JOB_ID" in os.environ:
            status["slurm_job"] = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        files.write_json(self.path / layout.STATUS, status, self._owner)

    def end_status(self, state: str, error: str) -> None:
        """Write to status.json that the run ended before it was done. Its progress is kept.

        Does nothing if the run was never opened.
        """
        if (self.path / layout.CONFIG).exists():
            self.write_status(**{**self.status(), "state": state, "error": error})

    @property
    def trained(self) -> bool:
        return (self.path / layout.MODEL).exists()

    def history(self) -> list[dict[str, Any]]:
        return files.read_lines(self.path / layout.HISTORY)

    @property
    def begun(self) -> bool:
        """Whether the run has files. It is true for an unreadable folder too, which raises an error when it is read."""
        try:
            return (self.path / layout.CONFIG).exists() or self.path.is_file()
        except PermissionError:
            return True

    def batchnorm(self) -> BatchNormRecord:
        """Return the record of the BN layers. Raise DamagedError if it is missing or damaged."""
        file = self.path / layout.BATCHNORM
        about = files.read_metadata(file)
        return BatchNormRecord(files.read_arrays(file), about.get("eps", {}), about.get("kept"))

    def model(self) -> "tuple[dict[str, torch.Tensor], TrainingRecord]":
        """Return the state of the trained model and its record. Raise DamagedError unless both belong to this run."""
        file = self.path / layout.MODEL
        state, kept = files.read_tensors(file)
        record = read(TrainingRecord, kept, file)
        if record.run is not None and not identity.same_hash(record.run, self.name):
            raise DamagedError(f"{file}: is damaged, it is the model of {record.run}")
        return state, record

    def training(self) -> TrainingRecord:
        """Return the record of the trained model. Raise DamagedError if it is missing or damaged."""
        file = self.path / layout.MODEL
        return read(TrainingRecord, files.read_metadata(file), file)

    def save_logs(self, progress: "TrainingState", bn_eps: Mapping[str, float], kept: int | None = None) -> None:
        """Save the history and the record of the BN layers. `kept` is the epoch whose model is that of the run."""
        files.write_lines(self.path / layout.HISTORY, progress.history, self._owner)
        record = {"eps": dict(bn_eps), **({"kept": kept} if kept is not None else {})}
        files.write_tensors(self.path / layout.BATCHNORM, progress.batchnorm.stacked(), record, self._owner)

    def save_checkpoint(
        self, state: "Mapping[str, torch.Tensor]", progress: "TrainingState", record: TrainingRecord
    ) -> None:
        """Save the state of training: weights, momentum, the best weights, epoch and step. The logs have own files."""
        tensors = {f"model/{name}": value for name, value in state.items()}
        tensors |= {f"velocity/{name}": value for name, value in progress.velocity.items()}
        tensors |= {f"best/{name}": value for name, value in progress.best.items()}
        kept = {"progress": progress.place(), **plain(record)}
        files.write_tensors(self.path / layout.CHECKPOINT, tensors, kept, self._owner)

    def checkpoint(self) -> "tuple[dict[str, torch.Tensor], TrainingState, TrainingRecord] | None":
        """Return the saved model state, progress and record; None if there is no checkpoint.

        Raise DamagedError if the checkpoint or the logs that belong to it are damaged.
        """
        from bnft.batchnorm.log import BatchNormLog
        from bnft.training.state import TrainingState

        file = self.path / layout.CHECKPOINT
        if not file.exists():
            return None
        tensors, kept = files.read_tensors(file)
        record = read(TrainingRecord, kept, file)
        model, velocity, best = (
            {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
            for part in ("model/", "velocity/", "best/")
        )
        stacked, _ = files.read_tensors(self.path / layout.BATCHNORM)
        try:
            logged = BatchNormLog.from_stacked(stacked)
            progress = TrainingState.resumed(kept["progress"], velocity, self.history(), logged, best)
        except ValueError:
            logs = f"{layout.HISTORY} or {layout.BATCHNORM}"
            raise DamagedError(f"{file}: is damaged, or {logs} has too few epochs") from None
        except (KeyError, TypeError):
            raise DamagedError(f"{file}: is damaged, it is not the state of a training") from None
        return model, progress, record

    def save_model(self, state: "Mapping[str, torch.Tensor]", record: TrainingRecord) -> None:
        files.write_tensors(self.path / layout.MODEL, state, plain(record), self._owner)
        (self.path / layout.CHECKPOINT).unlink(missing_ok=True)

    def discard_model(self) -> bool:
        """Remove a damaged model and move its evaluations aside. Return whether there are any.

        The evaluations may be correct, but on another device the new model can differ from the damaged one.
        """
        aside = self.set_aside_evaluations()  # before the model is removed, because results are used without it too
        (self.path / layout.MODEL).unlink(missing_ok=True)
        return aside

    def set_aside_evaluations(self) -> bool:
        """Move the evaluations of a removed model to another folder. Return whether there are any.

        Unfinished evaluations are moved too, because they must not continue with another model.
        """
        folder, number = self.path / layout.EVALUATION, 1
        if not files.folders(folder):
            return False
        while (aside := self.path / f"evaluation.{number}").exists():
            number += 1
        folder.rename(aside)
        return True

    @files.reachable()
    def progress_made(self) -> list[Any]:
        """Return a value that changes with any saved progress."""
        made: list[Any] = [self.trained, len(self.evaluations())]
        for file in (self.path / layout.CHECKPOINT, *self.path.glob(f"{layout.EVALUATION}/*/{layout.CASCADE}")):
            with suppress(DamagedError):
                kept = files.read_metadata(file)
                place = kept.get("progress", kept)
                made.append([place.get(name) for name in ("epoch", "step", "attack", "batch")])
        return made

    def evaluation(self, evaluation_id: str) -> EvaluationFolder:
        return EvaluationFolder(self.path / layout.EVALUATION / evaluation_id, self._owner)

    def evaluations(self) -> list[EvaluationFolder]:
        """Return all evaluations that are done."""
        folders = files.folders(self.path / layout.EVALUATION)
        return [EvaluationFolder(folder) for folder in folders if (folder / layout.RESULT).exists()]


def _is_older(file: Path, other: Path) -> bool:
    """Return whether both files exist, and the first was not written after the second."""
    try:
        return file.stat().st_mtime_ns <= other.stat().st_mtime_ns
    except FileNotFoundError:
        return False
