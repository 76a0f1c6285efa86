"""The training of one run. An interrupted training continues from its last checkpoint."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bnft import models
from bnft.batchnorm.freezing import Freezing
from bnft.batchnorm.log import layer_eps
from bnft.common import devices, files
from bnft.common.devices import Hardware
from bnft.common.errors import DamagedError, InputError
from bnft.common.stopping import Pulse
from bnft.config import build
from bnft.runs import layout
from bnft.runs.plan import ModelFile, Run, edited_sources
from bnft.runs.progress import RunProgress
from bnft.runs.result import FORMAT, HardwareRecord, MonitoredErrors, MonitorRecord, TrainingRecord
from bnft.runs.run_folder import RunFolder
from bnft.runs.store import Store
from bnft.training.loop import train
from bnft.training.monitor import CLEAN, ROBUST, best_of, monitored
from bnft.training.state import TrainingState

PACKAGES = ("torch", "torchvision", "pyautoattack", "numpy")


class RunTraining:
    """Trains the model of a run, unless it is trained, and saves it. It is the `Keeper` of the training loop.

    Args:
        run: the run.
        folder: its folder.
        store: the store.
        progress: reports the progress.
        pulse: called between any two forward passes.
        train_base: trains a base, unless it is trained.

    Attributes:
        record: the record of the training; set by `model`.
    """

    def __init__(
        self,
        run: Run,
        folder: RunFolder,
        store: Store,
        progress: RunProgress,
        pulse: Pulse,
        train_base: Callable[[Run], object],
    ) -> None:
        self.pulse = pulse
        self.record: TrainingRecord
        self.run, self._folder, self._store = run, folder, store
        self._progress, self._train_base = progress, train_base

    @property
    def hardware(self) -> Hardware:
        return self._progress.hardware

    def model(self) -> nn.Module:
        """Return the run's model, on the device and in eval mode. Train it first, unless it is trained."""
        if edited := edited_sources(self.run):
            message = f"its source has changed since it was planned ({', '.join(edited)}); start the command again"
            raise InputError(f"{self.run.name}: {message}")
        data = build.dataset(self.run.config)
        if data.sha256 != self.run.identity["data"]["sha256"]:
            raise InputError(f"{self.run.name}: its data have changed since it was planned; start the command again")
        model = build.model(self.run.config, data)
        if self._folder.trained:
            try:
                state, self.record = self._folder.model()
                models.restore(model, state)
                self._settle(self.record)
                return self.hardware.place(model).eval()
            except (DamagedError, RuntimeError) as error:  # RuntimeError if the state does not fit the model
                self._discard_model(self._folder, error)
        self._train(model)
        return model.eval()

    def save(self, model: nn.Module, progress: TrainingState) -> None:
        self._folder.save_logs(progress, layer_eps(model))
        self._folder.save_checkpoint(model.state_dict(), progress, self.record)
        self._progress.saved()

    def stepped(self, progress: TrainingState, steps: int) -> None:
        self._progress.stepped(progress, steps)

    def _train(self, model: nn.Module) -> None:
        config = self.run.config
        progress = self._resume(model)
        policy = config["freeze_policy"]
        self.hardware.place(model)
        freezing = Freezing(model, **policy, seed=config["seed"])
        self.record = self._record(freezing)
        self._progress.training_begins(str(freezing.counts()), progress)
        data = build.dataset(config).to(self.hardware.device)
        if data.held_out is not None and _may_know_held_out(self.run.identity):
            self._progress.note(
                "its base may have been trained on images that are held out here, so monitored errors can be too low"
            )
        progress = train(model, freezing, data, build.recipe(config), self.hardware, self, progress)
        model.eval()
        monitor = _monitor_record(config["monitor"], progress)
        self.record = replace(self.record, seconds=round(progress.spent, 3), monitor=monitor)
        self._folder.save_logs(progress, layer_eps(model), kept=monitor.epoch if monitor else None)
        self._folder.save_model(model.state_dict(), self.record)
        if monitor is not None:
            self._progress.note(str(monitor))

    def _resume(self, model: nn.Module) -> TrainingState | None:
        """Load the checkpoint into the model, or else the base. Return the progress of the checkpoint, if any."""
        try:
            resumed = self._folder.checkpoint()
        except DamagedError as error:
            self._progress.note(f"training from the start: {error}")
            resumed = None
        if resumed is not None:
            state, progress, record = resumed
            models.restore(model, state)
            self._settle(record)
            return progress
        if self._folder.set_aside_evaluations():
            self._progress.note("training again, because its model is missing; its results are moved aside")
        if self.run.base is not None:
            models.restore(model, self._base_state())
        self._settle(None)
        return None

    def _record(self, freezing: Freezing) -> TrainingRecord:
        """Return the record that is saved with the model."""
        return TrainingRecord(
            run=self.run.name,
            hardware=HardwareRecord(
                device=str(self.hardware.device),
                precision=self.hardware.precision,
                threads=self.hardware.threads,
                name=self.hardware.describe(),
            ),
            counts=freezing.counts(),
            versions={"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            format=FORMAT,
        )

    def _base_state(self) -> dict[str, torch.Tensor]:
        base = self.run.base
        if isinstance(base, ModelFile):
            state, _ = files.read_tensors(base.path)
            if files.sha256(base.path) != base.sha256:
                raise InputError(f"{base.path}: has changed since the run was planned; start the command again")
            return self._started_from(base.path, state)
        assert isinstance(base, Run)
        folder = self._store.run(base.name)
        for _ in range(2):
            if folder.trained:  # read without its lock, which a process that evaluates it holds
                folder.config()
                self._store.remove_outdated(base.name)
            else:
                self._train_base(base)
            try:
                return self._started_from(folder.path / layout.MODEL, folder.model()[0])
            except DamagedError as error:
                self._discard_model(folder, error)
        raise DamagedError(f"{folder.path}: its model cannot be read back; check the disk")

    def _discard_model(self, folder: RunFolder, error: Exception) -> None:
        """Remove the damaged model of this run or of its base, so that it is trained again."""
        aside = "; its results are moved aside" if folder.discard_model() else ""
        self._progress.note(f"training again: {str(error).splitlines()[0]}{aside}", folder.name)

    def _started_from(self, file: Path, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the weights that were read from `file`. Report it if the file has no checksum."""
        if files.checksum(file) is None:
            self._progress.note(f"note: {file} has no checksum and was read unchecked")
        return state

    def _settle(self, record: TrainingRecord | None) -> None:
        """Use the precision and threads with which training began, if it has begun."""
        if record is not None and record.hardware is not None:
            fixed = record.hardware
            self._progress.hardware = Hardware(self.hardware.device, fixed.precision, fixed.threads)
        self.hardware.settle()


def _monitor_record(monitor: Mapping[str, Any], progress: TrainingState) -> MonitorRecord | None:
    lines = monitored(progress.history)
    if not lines:
        return None
    best, last = (
        MonitoredErrors(epoch=line["epoch"], clean_error=line[CLEAN], robust_error=line[ROBUST])
        for line in (best_of(lines), lines[-1])
    )
    kept = best if monitor["keep"] == "best" else last
    return MonitorRecord(images=monitor["images"], epoch=kept.epoch, best=best, last=last)


def _may_know_held_out(run: Mapping[str, Any]) -> bool:
    """Return whether a base of the run with this identity may have been trained on the images that the run holds out.

    It was not if it held out at least as many, because a larger draw contains a smaller one.
    """
    base = run.get("base")
    if base is None:
        return False
    if "data" in base and base["data"]["sha256"] != run["data"]["sha256"]:
        return False
    held_out = base.get("monitor", {}).get("images", 0)
    return held_out < run["monitor"]["images"] or _may_know_held_out({**base, "monitor": run["monitor"]})


def hardware_of(run: Run) -> Hardware:
    """Return the hardware that a run uses if it has not begun yet."""
    return devices.choose(run.config["device"], run.config["precision"], run.config["threads"])
