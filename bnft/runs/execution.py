"""Carry out one run: train its base, train it, and evaluate it. The run's folder keeps each part.

A run that is done is not computed again. An interrupted run continues from its last checkpoint, with the same numbers
as without the interruption.
"""

from contextlib import suppress

from bnft.common import files
from bnft.common.errors import InputError
from bnft.common.stopping import Pulse, Stopped, steady
from bnft.runs.plan import Run
from bnft.runs.progress import RunProgress
from bnft.runs.reporter import Reporter
from bnft.runs.result import Result
from bnft.runs.run_evaluation import RunEvaluation
from bnft.runs.run_folder import RunFolder
from bnft.runs.run_training import RunTraining, hardware_of
from bnft.runs.store import Store


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
    previewed: bool = False,
) -> Result | None:
    """Train and evaluate a run, unless it is done. An error is written to the run's status before it is raised.

    If the run has a preview (`Run.preview`), it is made before the evaluation.

    Args:
        run: the run.
        store: the store.
        reporter: shows the progress.
        evaluated: whether to evaluate the run.
        pulse: called between any two forward passes. If it raises Stopped, the run saves its state and ends.
        patient: whether to wait if another process works on the same run.
        previewed: whether to make the preview of a run that is not `evaluated`.

    Returns:
        The result; None if the run is not evaluated.

    Raises:
        BusyError: if another process works on the run, and `patient` is false.
        InputError: if the run's folder belongs to another run.
    """
    folder = store.run(run.name)

    def wait() -> None:
        if not patient:
            raise BusyError(run.name)
        reporter.begins(run.name, "waiting", "another process works on it")

    with store.locked(run.name, wait, pulse):
        folder.open(run.record(), run.config)
        try:
            return _work(run, folder, store, reporter, evaluated, pulse, patient, previewed or evaluated)
        except BusyError:  # about the base
            raise
        except BaseException as error:
            state = "interrupted" if isinstance(error, (KeyboardInterrupt, Stopped)) else "failed"
            with suppress(InputError):  # for example a full disk, which is then the reason of `error` too
                folder.end_status(state, _last_line(error))
            raise


def _last_line(error: BaseException) -> str:
    """Return an error in one line."""
    if isinstance(error, Stopped):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _work(
    run: Run,
    folder: RunFolder,
    store: Store,
    reporter: Reporter,
    evaluated: bool,
    pulse: Pulse,
    patient: bool,
    previewed: bool,
) -> Result | None:
    """Do the work of `execute` while the lock is held."""

    def train_base(base: Run) -> None:
        execute(base, store, reporter, evaluated=False, pulse=pulse, patient=patient)

    progress = RunProgress(run, folder, reporter, hardware_of(run))
    evaluation = RunEvaluation(run, folder.evaluation(run.evaluation_id), progress, pulse)
    result = evaluation.kept() if evaluated else None
    preview = run.preview if previewed else None
    kept = result is not None or (folder.trained and not evaluated and preview is None)
    if kept:
        progress.was_done(evaluated)
    else:
        training = RunTraining(run, folder, store, progress, pulse, train_base)
        model = training.model()
        if preview is not None:
            quick = RunEvaluation(preview, folder.evaluation(preview.evaluation_id), progress, pulse)
            progress.previewed(quick.kept() or quick.result(model, training.record))
        result = evaluation.result(model, training.record) if evaluated else None
        progress.done(evaluated)
    if evaluated or not kept:
        progress.ends(result)
    return result
