"""The progress of one run: written to its status.json, and passed to a reporter."""

import time
from collections.abc import Sequence
from typing import Any

from bnft.common.devices import Hardware
from bnft.common.errors import show
from bnft.evaluation.cascade import Attack, Cascade
from bnft.evaluation.settings import Evaluation, by, score_text
from bnft.runs.plan import Run
from bnft.runs.reporter import Reporter, duration
from bnft.runs.result import Result
from bnft.runs.run_folder import RunFolder
from bnft.training.state import TrainingState

STATUS_SECONDS = 1.0  # minimum time between two writes of status.json within an epoch


class RunProgress:
    """Writes and reports the progress of a run. `hardware` may still change until training begins."""

    def __init__(self, run: Run, folder: RunFolder, reporter: Reporter, hardware: Hardware) -> None:
        self.hardware = hardware
        self._run, self._folder, self._reporter = run, folder, reporter
        self._epochs: int = run.config["schedule"]["epochs"]
        self._written_at = 0.0
        self._preview: Result | None = None

    def note(self, text: str, run: str | None = None) -> None:
        """Report a message about this run, or about the given one."""
        self._reporter.notes(run or self._run.name, text)

    def training_begins(self, learning: str, progress: TrainingState | None) -> None:
        """Report that training begins.

        Args:
            learning: describes what learns.
            progress: the saved state from which training continues, if there is one.
        """
        where = f", continuing from epoch {progress.epoch + 1}" if progress is not None else ""
        self._reporter.begins(self._run.name, "training", f"{learning}; {self.hardware.describe()}{where}")
        self._write("running", "training", epoch=progress.epoch if progress is not None else 0, epochs=self._epochs)

    def saved(self) -> None:
        """Write the status at the next step, because the state has just been saved."""
        self._written_at = 0.0

    def stepped(self, progress: TrainingState, steps: int) -> None:
        """Report that a batch is done. `steps` is the number of batches per epoch."""
        if time.monotonic() - self._written_at < STATUS_SECONDS:
            return
        done = progress.epoch + progress.step / steps
        left = progress.spent / done * (self._epochs - done) if done else 0.0
        self._write("running", "training", epoch=progress.epoch, epochs=self._epochs, seconds_left=round(left))
        loss = f"{progress.losses / progress.images:.3f}" if progress.images else "-"
        text = f"epoch {progress.epoch + 1} of {self._epochs}, {duration(left)} left, loss {loss}"
        self._reporter.moves(self._run.name, text)

    def evaluation_begins(self, config: Evaluation) -> None:
        names = {"autoattack": f"{config.version} AutoAttack", "quick": "quick attack", "pgd": "PGD"}
        how = names[config.attack] + (", then quick" if config.then else ", curve" if config.budgets else "")
        detail = f"{how}, {config.norm} eps {show(config.eps)}, {config.n_images} images"
        self._reporter.begins(self._run.name, "evaluating", detail)
        self._write("running", "evaluating")

    def attacked(self, cascade: Cascade, attacks: Sequence[Attack]) -> None:
        """Report that a batch of an attack is done."""
        name = attacks[cascade.attack].name
        images, standing = len(cascade.fallen_at), cascade.standing
        self._write("running", "evaluating", attack=name, standing=standing, images=images)
        if self._preview is None or images - standing > self._preview.robust.errors:  # else the preview is shown
            self._reporter.scored(self._run.name, "", f"≥ {100 * (1 - standing / images):.1f}")
        self._reporter.moves(self._run.name, f"{name}, {standing} of {images} images are robust so far")

    def previewed(self, result: Result) -> None:
        """Report the result of the preview. It is shown until the evaluation has found more."""
        self._preview = result
        self._scored(result)

    def done(self, evaluated: bool) -> None:
        """Write the status of a run that is done."""
        self._write("done", "evaluated" if evaluated else "trained")

    def was_done(self, evaluated: bool) -> None:
        """Write the status of a finished run that was killed before it could write its last status."""
        if self._folder.status().get("state") != "done":
            self.done(evaluated)

    def ends(self, result: Result | None) -> None:
        """Report that the run is done. `result` is None if it was not evaluated."""
        if result is None:
            numbers = f": {_numbers(self._preview)}" if self._preview is not None else ""
            self._reporter.ends(self._run.name, "trained", f"trained{numbers}")
            return
        self._scored(result)
        self._reporter.ends(self._run.name, "done", f"done: {_numbers(result)}")

    def _scored(self, result: Result) -> None:
        text = score_text(result.robust.error, result.evaluation.shown_attack)
        self._reporter.scored(self._run.name, f"{result.clean.error:.2f}", text)

    def _write(self, state: str, stage: str, **progress: Any) -> None:
        self._written_at = time.monotonic()
        self._folder.write_status(state=state, stage=stage, hardware=self.hardware.describe(), **progress)


def _numbers(result: Result) -> str:
    """Return the numbers of a result in words, and the attack if it is weaker than AutoAttack."""
    clean, robust = result.clean, result.robust
    return (
        f"clean error {clean.error:.2f} % of {clean.images},"
        f" robust error {robust.error:.1f} % of {robust.images}{by(result.evaluation.shown_attack)}"
    )
