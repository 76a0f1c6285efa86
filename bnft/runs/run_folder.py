"""What one run leaves behind; see `layout` for the files of its folder."""

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
    """What one run leaves behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._owner: Path | None = None

    @property
    def name(self) -> str:
        return self.path.name

    def config(self) -> dict[str, Any]:
        """The run's configuration. Raises DamagedError unless it is there and hashes to the run's name."""
        file = self.path / layout.CONFIG
        if not file.exists():
            raise DamagedError(f"{self.path}: holds no config.yaml; move this folder away to have the run made again")
        config = files.read_yaml(file)
        try:
            record = read(RunRecord, config["run"], file)
            named = identity.digest(record.identity)
        except (TypeError, KeyError, ValueError):
            raise DamagedError(f"{file}: is damaged, it lacks run.identity; move its folder away") from None
        except DamagedError as error:
            raise DamagedError(f"{error}; move its folder away") from None
        if not identity.same_hash(f"-{named}", self.name):
            raise DamagedError(f"{file}: does not belong to the run {self.name}; move its folder away")
        assert isinstance(config, dict)
        return config

    def record(self) -> RunRecord:
        """What names and describes the run. Raises DamagedError as `config` does."""
        return read(RunRecord, self.config()["run"], self.path / layout.CONFIG)

    def open(self, record: RunRecord, config: Mapping[str, Any]) -> None:
        """Make the folder, or check that it is this run's. To be called with the run's lock held.

        From then on, what is written through this object raises InputError if the folder was removed.
        """
        if (self.path / layout.CONFIG).exists():
            self.config()
        elif self.path.exists() and any(file for file in self.path.iterdir() if not file.name.startswith(".")):
            raise DamagedError(f"{self.path}: holds no config.yaml; move this folder away to have the run made again")
        else:
            files.write_yaml(self.path / layout.CONFIG, {"run": plain(record), **config})
        self._owner = self.path / layout.CONFIG
        files.remove_temporary(self.path)
        self.remove_outdated()

    def remove_outdated(self) -> None:
        """Remove what a process that was killed between two files left. To be called with the run's lock held."""
        for file in self.outdated():
            file.unlink(missing_ok=True)

    def outdated(self) -> list[Path]:
        """Saved states of what has been finished since. A newer one is of an evaluation that is done again."""
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
        """Rewrite status.json with `fields` beside who and when."""
        status = {**fields, "host": socket.gethostname(), "pid": os.getpid(), "updated": now()}
        if "SLURM_ARRAY_JOB_ID" in os.environ:
            status["slurm_job"] = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        files.write_json(self.path / layout.STATUS, status, self._owner)

    def end_status(self, state: str, error: str) -> None:
        """Write into status.json that the work ended before it was done; how far it was stays there.

        A run that was never opened has no folder, and gets none for this.
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
        """Whether there is anything of the run. If one may not look there is: whoever reads it will be told."""
        try:
            return (self.path / layout.CONFIG).exists() or self.path.is_file()
        except PermissionError:
            return True

    def batchnorm(self) -> BatchNormRecord:
        """The record of the BN layers. Raises DamagedError if it is not there or not whole."""
        file = self.path / layout.BATCHNORM
        return BatchNormRecord(files.read_arrays(file), files.read_metadata(file).get("eps", {}))

    def model(self) -> "tuple[dict[str, torch.Tensor], TrainingRecord]":
        """The trained model's state and what was recorded with it. Raises DamagedError unless both are of this run."""
        file = self.path / layout.MODEL
        state, kept = files.read_tensors(file)
        record = read(TrainingRecord, kept, file)
        if record.run is not None and not identity.same_hash(record.run, self.name):
            raise DamagedError(f"{file}: is damaged, it is the model of {record.run}")
        return state, record

    def training(self) -> TrainingRecord:
        """What was recorded with the trained model. Raises DamagedError if it is not there or not whole."""
        file = self.path / layout.MODEL
        return read(TrainingRecord, files.read_metadata(file), file)

    def save_logs(self, progress: "TrainingState", bn_eps: Mapping[str, float]) -> None:
        files.write_lines(self.path / layout.HISTORY, progress.history, self._owner)
        record = {"eps": dict(bn_eps)}
        files.write_tensors(self.path / layout.BATCHNORM, progress.batchnorm.stacked(), record, self._owner)

    def save_checkpoint(
        self, state: "Mapping[str, torch.Tensor]", progress: "TrainingState", record: TrainingRecord
    ) -> None:
        """Keep what training goes on from: weights, momentum, and the place; the logs lie in their own files."""
        tensors = {f"model/{name}": value for name, value in state.items()}
        tensors |= {f"velocity/{name}": value for name, value in progress.velocity.items()}
        kept = {"progress": progress.place(), **plain(record)}
        files.write_tensors(self.path / layout.CHECKPOINT, tensors, kept, self._owner)

    def checkpoint(self) -> "tuple[dict[str, torch.Tensor], TrainingState, TrainingRecord] | None":
        """Model state, progress and record to go on from; None if there is no checkpoint.

        Raises DamagedError if the checkpoint, or the logs that go with it, cannot be used.
        """
        from bnft.batchnorm.log import BatchNormLog
        from bnft.training.state import TrainingState

        file = self.path / layout.CHECKPOINT
        if not file.exists():
            return None
        tensors, kept = files.read_tensors(file)
        record = read(TrainingRecord, kept, file)
        model, velocity = (
            {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
            for part in ("model/", "velocity/")
        )
        stacked, _ = files.read_tensors(self.path / layout.BATCHNORM)
        try:
            logged = BatchNormLog.from_stacked(stacked)
            progress = TrainingState.resumed(kept["progress"], velocity, self.history(), logged)
        except ValueError:
            logs = f"{layout.HISTORY} or {layout.BATCHNORM}"
            raise DamagedError(f"{file}: is damaged, or its {logs}, which lack epochs") from None
        except (KeyError, TypeError):
            raise DamagedError(f"{file}: is damaged, it is no state of a training") from None
        return model, progress, record

    def save_model(self, state: "Mapping[str, torch.Tensor]", record: TrainingRecord) -> None:
        files.write_tensors(self.path / layout.MODEL, state, plain(record), self._owner)
        (self.path / layout.CHECKPOINT).unlink(missing_ok=True)

    def discard_model(self) -> bool:
        """Remove a damaged model and set its evaluations aside; returns whether there are any.

        They may be right, but the model that is trained in its place can differ from theirs on another device.
        """
        aside = self.set_aside_evaluations()  # first: a result counts without its model
        (self.path / layout.MODEL).unlink(missing_ok=True)
        return aside

    def set_aside_evaluations(self) -> bool:
        """Move evaluations of a model that is gone out of the way of the next one's; returns whether there are any.

        Those that are not done are moved too, since nobody may go on with them on another model.
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
        """Something that is different after any progress that was kept."""
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
        """All evaluations that are done."""
        found = files.folders(self.path / layout.EVALUATION)
        return [EvaluationFolder(folder) for folder in found if (folder / layout.RESULT).exists()]


def _is_older(file: Path, other: Path) -> bool:
    """Whether both files are there, and the first was not written after the second."""
    try:
        return file.stat().st_mtime_ns <= other.stat().st_mtime_ns
    except FileNotFoundError:
        return False
