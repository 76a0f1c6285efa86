"""The evaluation of one run. An interrupted evaluation continues from its saved state."""

from collections.abc import Sequence

from torch import nn

from bnft.common.errors import DamagedError
from bnft.common.stopping import Pulse
from bnft.config import build
from bnft.evaluation.cascade import Attack, Cascade
from bnft.evaluation.evaluate import after_autoattack, evaluate
from bnft.evaluation.settings import autoattack_alone
from bnft.runs import identity
from bnft.runs.evaluation_folder import EvaluationFolder
from bnft.runs.plan import Run, edited_sources
from bnft.runs.progress import RunProgress
from bnft.runs.result import FORMAT, DataRecord, EvaluationRecord, Result, TrainingRecord


class RunEvaluation:
    """Evaluates a run and saves the result. It is the `Watcher` of the cascade of attacks."""

    def __init__(self, run: Run, folder: EvaluationFolder, progress: RunProgress, pulse: Pulse) -> None:
        self.pulse = pulse
        self.run, self._folder, self._progress = run, folder, progress

    def kept(self) -> Result | None:
        """Return the saved result; None if there is none, or if it is damaged."""
        try:
            result = self._folder.result()
            if result is not None:
                self._folder.outcomes()
            return result
        except DamagedError as error:
            self._progress.note(f"evaluating again: {error}")
            return None

    def result(self, model: nn.Module, training: TrainingRecord) -> Result:
        """Evaluate a model, which is on its device and in eval mode. `training` is the record of its training."""
        config, hardware = build.evaluation(self.run.config), self._progress.hardware
        data = build.dataset(self.run.config).to(hardware.device)
        cascade = self._cascade()
        self._progress.evaluation_begins(config)
        processes = 1 if edited_sources(self.run) else hardware.threads  # new processes would import edited files
        outcomes, summary = evaluate(model, *data.test, config, self, cascade, processes=processes)
        settings = self.run.config["data"]
        result = Result(
            **vars(summary),
            run=self.run.record(),
            evaluation=EvaluationRecord(id=self.run.evaluation_id, **self.run.config["evaluation"]),
            data=DataRecord(
                target=settings["_target_"],
                validation=settings["validation"],
                images=len(data.x_train),
                **self.run.identity["data"],
            ),
            training=training,
            seed=self.run.config["seed"],
            format=FORMAT,
        )
        self._folder.save(outcomes.tensors(), result)
        return result

    def attacked(self, cascade: Cascade, attacks: Sequence[Attack]) -> None:
        self._folder.save_cascade(cascade)
        self._progress.attacked(cascade, attacks)

    def _cascade(self) -> Cascade | None:
        """Return the state to continue from; None to begin with the first attack."""
        try:
            saved = self._folder.cascade()
            return saved if saved is not None else self._autoattack()
        except DamagedError as error:
            self._progress.note(f"evaluating from the first attack: {error}")
            return None

    def _autoattack(self) -> Cascade | None:
        """Return the state after AutoAttack, if only a further attack is left to do; else None."""
        evaluation = self.run.config["evaluation"]
        if not evaluation["then"]:
            return None
        alone = self._folder.beside(identity.evaluation_id(autoattack_alone(evaluation)))
        result = alone.result()
        if result is None:
            return None
        cascade = after_autoattack(alone.tensors(), result)
        if cascade is not None:
            self._progress.note(f"AutoAttack is done already ({alone.path.name}); only the further attack is computed")
        return cascade
