"""One run, from what is there already to a result: its base, training, evaluation, each kept in the run's folder.

Asking for a run that is done costs nothing. A run that was interrupted goes on from its last checkpoint, and ends with
the numbers it would have had.
"""

import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bnft.batchnorm.freezing import Freezing
from bnft.batchnorm.log import layer_eps
from bnft.common import devices, files
from bnft.common.devices import Hardware
from bnft.common.errors import DamagedError, InputError, show
from bnft.common.stopping import Pulse, Stopped, steady
from bnft.config import build, sources
from bnft.evaluation.cascade import Attack, Cascade
from bnft.evaluation.evaluate import evaluate
from bnft.runs import layout
from bnft.runs.evaluation_folder import EvaluationFolder
from bnft.runs.plan import ModelFile, Run, own_sources
from bnft.runs.reporter import Reporter, duration
from bnft.runs.run_folder import RunFolder
from bnft.runs.store import Store
from bnft.training.loop import Progress, train

STATUS_SECONDS = 1.0  # status.json is rewritten at most this often within an epoch
PACKAGES = ("torch", "torchvision", "pyautoattack", "numpy")


class BusyError(Exception):
    """Another process works on the run."""


@files.reachable()
def execute(
    run: Run,
    store: Store,
    reporter: Reporter,
    evaluated: bool = True,
    pulse: Pulse = steady,
    patient: bool = True,
) -> dict[str, Any] | None:
    """Make sure that the run is trained, and evaluated unless `evaluated` is false; returns its result.

    Another process that works on the same run is waited for; without patience, BusyError is raised instead. `pulse` is
    called between any two forward passes; if it raises Stopped, the run ends there with its state kept. Raises
    InputError if the run's folder is another's, and whatever goes wrong in the run itself, after writing it to the
    run's status.
    """
    folder = store.run(run.name)

    def taken() -> None:
        if not patient:
            raise BusyError(run.name)
        reporter.begins(run.name, "waiting", "another process works on it")

    with store.locked(run.name, taken, pulse):
        folder.open({"run": run.record(), **run.config})
        try:
            return _Worker(run, folder, store, reporter, pulse, patient).work(evaluated)
        except BusyError:  # about the base
            raise
        except BaseException as error:
            state = "interrupted" if isinstance(error, (KeyboardInterrupt, Stopped)) else "failed"
            with suppress(InputError):  # a full disk, which the error itself tells of
                folder.end_status(state, _last_line(error))
            raise


def _last_line(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, Stopped):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0]


class _Worker:
    """Does one run's work and keeps it; the `Keeper` of its training and the `Watcher` of its evaluation."""

    def __init__(
        self, run: Run, folder: RunFolder, store: Store, reporter: Reporter, pulse: Pulse, patient: bool
    ) -> None:
        self.run, self.folder, self.store, self.reporter = run, folder, store, reporter
        self.pulse, self.patient = pulse, patient
        self.hardware = devices.choose(run.config["device"], run.config["precision"], run.config["threads"])
        self.epochs: int = run.config["schedule"]["epochs"]
        self._status_at = 0.0

    def work(self, evaluated: bool) -> dict[str, Any] | None:
        evaluation = self.folder.evaluation(self.run.evaluation_id)
        result = self._kept_result(evaluation) if evaluated else None
        kept = result is not None or (self.folder.trained and not evaluated)
        if kept:
            if self.folder.status().get("state") != "done":  # killed after the last file, before the last status
                self._write_status("done", "evaluated" if evaluated else "trained")
        else:
            model = self._trained_model()
            result = self._evaluated(model, evaluation) if evaluated else None
            self._write_status("done", "evaluated" if evaluated else "trained")
        if evaluated or not kept:
            self._tell(result)
        return result

    def _tell(self, result: dict[str, Any] | None) -> None:
        """Say that the run is done; `result` is None if it was only to be trained."""
        if result is None:
            self.reporter.ends(self.run.name, "trained", "trained")
            return
        clean, robust = result["clean"], result["robust"]
        self.reporter.scored(self.run.name, f"{clean['error']:.2f}", f"{robust['error']:.1f}")
        text = (
            f"done: clean error {clean['error']:.2f} % of {clean['images']},"
            f" robust error {robust['error']:.1f} % of {robust['images']}"
        )
        self.reporter.ends(self.run.name, "done", text)

    def _kept_result(self, evaluation: EvaluationFolder) -> dict[str, Any] | None:
        try:
            result = evaluation.result()
            if result is not None:
                evaluation.outcomes()
            return result
        except DamagedError as error:
            self.reporter.notes(self.run.name, f"evaluating again: {error}")
            return None

    # training

    def _trained_model(self) -> nn.Module:
        """The run's model on the device, in eval mode: read if it is there, else trained."""
        if edited := self._edited():
            message = f"its source has changed since it was asked for ({', '.join(edited)}); ask for it again"
            raise InputError(f"{self.run.name}: {message}")
        data = build.dataset(self.run.config)
        if data.sha256 != self.run.identity["data"]["sha256"]:
            raise InputError(f"{self.run.name}: its data have changed since it was asked for; ask for it again")
        model = build.model(self.run.config, data)
        if self.folder.trained:
            try:
                state, self.record = self.folder.model()
                model.load_state_dict(state)
                self._settle(self.record)
                return self.hardware.place(model).eval()
            except (DamagedError, RuntimeError) as error:  # load_state_dict raises RuntimeError for what does not fit
                self._discard_model(self.folder, error)
        self._train(model)
        return model.eval()

    def _edited(self) -> list[str]:
        """The files of a person's own that are not what they were when the run was asked for."""
        sources.forget()
        found, asked = own_sources(self.run.config), self.run.sources
        return sorted(name for name in {*found, *asked} if found.get(name) != asked.get(name))

    def _train(self, model: nn.Module) -> None:
        config = self.run.config
        resumed = self._checkpoint()
        progress = None
        if resumed is None and self.folder.set_aside_evaluations():
            self.reporter.notes(self.run.name, "training again, since its model is gone; its results are set aside")
        if resumed is not None:
            state, progress, record = resumed
            model.load_state_dict(state)
            self._settle(record)
        else:
            if self.run.base is not None:
                model.load_state_dict(self._base_state())
            self._settle({})
        policy = config["freeze_policy"]
        self.hardware.place(model)
        freezing = Freezing(model, policy["parameters"], policy["statistics"])
        counts = freezing.counts()
        self.record = {
            "run": self.run.name,
            "hardware": {
                "device": str(self.hardware.device),
                "precision": self.hardware.precision,
                "threads": self.hardware.threads,
                "name": self.hardware.describe(),
            },
            "counts": {**vars(counts), "share": counts.share, "statistics_share": counts.statistics_share},
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        }
        where = f", going on from epoch {progress.epoch + 1}" if progress is not None else ""
        self.reporter.begins(self.run.name, "training", f"{counts}; {self.hardware.describe()}{where}")
        epoch = progress.epoch if progress is not None else 0
        self._write_status("running", "training", epoch=epoch, epochs=self.epochs)
        data = build.dataset(config).to(self.hardware.device)
        progress = train(model, freezing, data, build.recipe(config), self.hardware, self, progress)
        model.eval()
        self.folder.save_logs(progress, layer_eps(model))
        self.record["seconds"] = round(sum(line["seconds"] for line in progress.history), 3)
        self.folder.save_model(model.state_dict(), self.record)

    def _base_state(self) -> dict[str, torch.Tensor]:
        base = self.run.base
        if isinstance(base, ModelFile):
            state, _ = files.read_tensors(base.path)
            if files.sha256(base.path) != base.sha256:
                raise InputError(f"{base.path}: has changed since the run was asked for; ask for it again")
            return self._started_from(base.path, state)
        assert isinstance(base, Run)
        folder = self.store.run(base.name)
        for _ in range(2):
            if folder.trained:  # read without its lock, which whoever evaluates it holds
                folder.config()
                self.store.remove_outdated(base.name)
            else:
                execute(base, self.store, self.reporter, evaluated=False, pulse=self.pulse, patient=self.patient)
            try:
                return self._started_from(folder.path / layout.MODEL, folder.model()[0])
            except DamagedError as error:
                self._discard_model(folder, error)
        raise DamagedError(f"{folder.path}: its model cannot be read back; check the disk")

    def _checkpoint(self) -> tuple[dict[str, torch.Tensor], Progress, dict[str, Any]] | None:
        try:
            return self.folder.checkpoint()
        except DamagedError as error:
            self.reporter.notes(self.run.name, f"training from the start: {error}")
            return None

    def _discard_model(self, folder: RunFolder, error: Exception) -> None:
        """Remove the damaged model of this run, or of its base, so that it is trained again."""
        aside = "; its results are set aside" if folder.discard_model() else ""
        self.reporter.notes(folder.name, f"training again: {str(error).splitlines()[0]}{aside}")

    def _started_from(self, file: Path, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The weights that were read from `file`; says so if nothing tells whether they are whole."""
        if files.checksum(file) is None:
            self.reporter.notes(self.run.name, f"note: {file} has no checksum and was read unchecked")
        return state

    def _settle(self, record: dict[str, Any]) -> None:
        """Use the precision and threads that the run was started with, if it was."""
        fixed = record.get("hardware")
        if fixed:
            self.hardware = Hardware(self.hardware.device, fixed["precision"], fixed["threads"])
        self.hardware.settle()

    def save(self, model: nn.Module, progress: Progress) -> None:
        self.folder.save_logs(progress, layer_eps(model))
        self.folder.save_checkpoint(model.state_dict(), progress, self.record)
        self._status_at = 0.0

    def stepped(self, progress: Progress, steps: int) -> None:
        if time.monotonic() - self._status_at < STATUS_SECONDS:
            return
        done = progress.epoch + progress.step / steps
        spent = sum(line["seconds"] for line in progress.history) + progress.seconds
        left = spent / done * (self.epochs - done) if done else 0.0
        self._write_status("running", "training", epoch=progress.epoch, epochs=self.epochs, seconds_left=round(left))
        self.reporter.moves(
            self.run.name,
            f"epoch {progress.epoch + 1} of {self.epochs}, {duration(left)} left, loss {self._loss(progress)}",
        )

    @staticmethod
    def _loss(progress: Progress) -> str:
        return f"{progress.losses / progress.images:.3f}" if progress.images else "-"

    # evaluation

    def _evaluated(self, model: nn.Module, folder: EvaluationFolder) -> dict[str, Any]:
        config = build.evaluation(self.run.config)
        data = build.dataset(self.run.config).to(self.hardware.device)
        cascade = self._cascade(folder)
        self._evaluation_folder = folder
        how = f"{config.version} AutoAttack" if config.attack == "autoattack" else "PGD"
        self.reporter.begins(
            self.run.name, "evaluating", f"{how}, {config.norm} eps {show(config.eps)}, {config.n_images} images"
        )
        self._write_status("running", "evaluating")
        processes = 1 if self._edited() else self.hardware.threads  # others would import what was edited meanwhile
        outcomes, summary = evaluate(model, data, config, self, cascade, processes=processes)
        result = {
            **summary,
            "run": self.run.record(),
            "evaluation": {"id": self.run.evaluation_id, **self.run.config["evaluation"]},
            "data": {**self._data_record(), "images": len(data.x_train)},
            "training": self.record,
            "seed": self.run.config["seed"],
        }
        folder.save(outcomes.tensors(), result)
        return result

    def _cascade(self, folder: EvaluationFolder) -> Cascade | None:
        try:
            return folder.cascade()
        except DamagedError as error:
            self.reporter.notes(self.run.name, f"evaluating from the first attack: {error}")
            return None

    def _data_record(self) -> dict[str, Any]:
        config = self.run.config["data"]
        return {"target": config["_target_"], "validation": config["validation"], **self.run.identity["data"]}

    def attacked(self, cascade: Cascade, attacks: Sequence[Attack]) -> None:
        self._evaluation_folder.save_cascade(cascade)
        name = attacks[cascade.attack].name
        images, standing = len(cascade.fallen_at), cascade.standing
        self._write_status("running", "evaluating", attack=name, standing=standing, images=images)
        self.reporter.scored(self.run.name, "", f"≥ {100 * (1 - standing / images):.1f}")
        self.reporter.moves(self.run.name, f"{name}, {standing} of {images} images stand")

    def _write_status(self, state: str, stage: str, **progress: Any) -> None:
        self._status_at = time.monotonic()
        self.folder.write_status(state=state, stage=stage, hardware=self.hardware.describe(), **progress)
