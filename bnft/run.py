"""One run, from what is there already to a result: its base, training, evaluation, each kept in the run's folder.

Asking for a run that is done costs nothing. A run that was interrupted goes on from its last checkpoint, and ends with
the numbers it would have had.
"""

import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from bnft import build, devices, files
from bnft.batchnorm import layer_eps
from bnft.devices import Hardware
from bnft.errors import DamagedError
from bnft.evaluation import evaluate
from bnft.evaluation.cascade import Attack, Cascade
from bnft.freezing import Freezing
from bnft.plan import ModelFile, Run
from bnft.progress import Reporter, duration
from bnft.store import EvaluationFolder, RunFolder, Store
from bnft.training import Progress, train

STATUS_SECONDS = 1.0  # status.json is rewritten at most this often within an epoch
PACKAGES = ("torch", "torchvision", "pyautoattack", "numpy")


def execute(run: Run, store: Store, reporter: Reporter, evaluated: bool = True) -> dict[str, Any] | None:
    """Make sure that the run is trained, and evaluated unless `evaluated` is false; returns its result.

    Another process that works on the same run is waited for. Raises InputError if the run's folder is another's, and
    whatever goes wrong in the run itself, after writing it to the run's status.
    """
    folder = store.run(run.name)
    with store.locked(run.name, lambda: reporter.begins(run.name, "waiting", "another process works on it")):
        folder.open({"run": run.record(), **run.config})
        try:
            return _Worker(run, folder, store, reporter).work(evaluated)
        except BaseException as error:
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            with suppress(OSError):
                folder.write_status(**{**folder.status(), "state": state, "error": _last_line(error)})
            raise


def _last_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


class _Worker:
    """Does one run's work and keeps it; the `Keeper` of its training and the `Watcher` of its evaluation."""

    def __init__(self, run: Run, folder: RunFolder, store: Store, reporter: Reporter) -> None:
        self.run, self.folder, self.store, self.reporter = run, folder, store, reporter
        self.hardware = devices.choose(run.config["device"], run.config["precision"], run.config["threads"])
        self.epochs: int = run.config["schedule"]["epochs"]
        self._status_at = 0.0

    def work(self, evaluated: bool) -> dict[str, Any] | None:
        evaluation = self.folder.evaluation(self.run.evaluation_id)
        result = self._kept_result(evaluation) if evaluated and self.folder.trained else None
        if result is not None or (self.folder.trained and not evaluated):
            if self.folder.status().get("state") != "done":  # killed after the last file, before the last status
                self._write_status("done", "evaluated" if evaluated else "trained")
            return result
        model = self._trained_model()
        result = self._evaluated(model, evaluation) if evaluated else None
        self._write_status("done", "evaluated" if evaluated else "trained")
        return result

    def _kept_result(self, evaluation: EvaluationFolder) -> dict[str, Any] | None:
        try:
            result = evaluation.result()
            if result is not None:
                files.read_arrays(evaluation.path / "outcomes.safetensors")
            return result
        except DamagedError as error:
            self.reporter.ends(self.run.name, f"evaluating again: {error}")
            return None

    # training

    def _trained_model(self) -> nn.Module:
        """The run's model on the device, in eval mode: read if it is there, else trained."""
        data = build.dataset(self.run.config)
        model = build.model(self.run.config, data)
        if self.folder.trained:
            try:
                state, self.record = self.folder.model()
                model.load_state_dict(state)
                self._settle(self.record)
                return self.hardware.place(model).eval()
            except (DamagedError, RuntimeError) as error:  # load_state_dict raises RuntimeError for what does not fit
                self.reporter.ends(self.run.name, f"training again: {str(error).splitlines()[0]}")
                self.folder.discard_model()
        self._train(model)
        return model.eval()

    def _train(self, model: nn.Module) -> None:
        config = self.run.config
        resumed = self.folder.checkpoint()
        progress = None
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
        data = build.dataset(config).to(self.hardware.device)
        progress = train(model, freezing, data, build.recipe(config), self.hardware, self, progress)
        model.eval()
        self.folder.save_logs(progress, layer_eps(model))
        self.record["seconds"] = round(sum(line["seconds"] for line in progress.history), 3)
        self.folder.save_model(model.state_dict(), self.record)

    def _base_state(self) -> dict[str, torch.Tensor]:
        base = self.run.base
        if isinstance(base, ModelFile):
            return files.read_tensors(base.path)[0]
        assert isinstance(base, Run)
        folder = self.store.run(base.name)
        for _ in range(2):
            execute(base, self.store, self.reporter, evaluated=False)
            try:
                return folder.model()[0]
            except DamagedError as error:
                self.reporter.ends(base.name, f"training again: {error}")
                folder.discard_model()
        raise DamagedError(f"{folder.path}: its model cannot be read back; check the disk")

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
        cascade = folder.cascade()
        self._evaluation_folder = folder
        how = f"{config.version} AutoAttack" if config.attack == "autoattack" else "PGD"
        self.reporter.begins(
            self.run.name, "evaluating", f"{how}, {config.norm} eps {config.eps:.4g}, {config.n_images} images"
        )
        outcomes, summary = evaluate(model, data, config, self, cascade)
        result = {
            **summary,
            "run": self.run.record(),
            "evaluation": {"id": self.run.evaluation_id, **self.run.config["evaluation"]},
            "data": {**self._data_record(), "images": len(data.x_train)},
            "training": self.record,
            "seed": self.run.config["seed"],
        }
        folder.save(outcomes.tensors(), result)
        robust, clean = result["robust"], result["clean"]
        self.reporter.ends(
            self.run.name,
            f"done: clean error {clean['error']:.2f} % of {clean['images']},"
            f" robust error {robust['error']:.1f} % of {robust['images']}",
        )
        return result

    def _data_record(self) -> dict[str, Any]:
        config = self.run.config["data"]
        return {"target": config["_target_"], "validation": config["validation"], **self.run.identity["data"]}

    def attacked(self, cascade: Cascade, attacks: Sequence[Attack]) -> None:
        self._evaluation_folder.save_cascade(cascade)
        name = attacks[cascade.attack].name
        self._write_status("running", "evaluating", attack=name, standing=cascade.standing)
        self.reporter.moves(self.run.name, f"{name}, {cascade.standing} of {len(cascade.fallen_at)} images stand")

    def _write_status(self, state: str, stage: str, **progress: Any) -> None:
        self._status_at = time.monotonic()
        self.folder.write_status(state=state, stage=stage, hardware=self.hardware.describe(), **progress)
