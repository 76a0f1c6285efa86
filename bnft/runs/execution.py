"""One run, from what is there already to a result: its base, training, evaluation, each kept in the run's folder.

Asking for a run that is done costs nothing. A run that was interrupted goes on from its last checkpoint, and ends with
the numbers it would have had.
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
) -> Result | None:
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
        folder.open(run.record(), run.config)
        try:
            return _work(run, folder, store, reporter, evaluated, pulse, patient)
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


def _work(
    run: Run, folder: RunFolder, store: Store, reporter: Reporter, evaluated: bool, pulse: Pulse, patient: bool
) -> Result | None:
    """What `execute` does with the lock held."""

    def train_base(base: Run) -> None:
        execute(base, store, reporter, evaluated=False, pulse=pulse, patient=patient)

    progress = RunProgress(run, folder, reporter, hardware_of(run))
    evaluation = RunEvaluation(run, folder.evaluation(run.evaluation_id), progress, pulse)
    result = evaluation.kept() if evaluated else None
    kept = result is not None or (folder.trained and not evaluated)
    if kept:
        progress.was_done(evaluated)
    else:
        training = RunTraining(run, folder, store, progress, pulse, train_base)
        model = training.model()
        result = evaluation.result(model, training.record) if evaluated else None
        progress.done(evaluated)
    if evaluated or not kept:
        progress.ends(result)
    return result
