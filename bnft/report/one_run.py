"""One run of a store, from whatever it has: its configuration, or at least a result."""

from dataclasses import dataclass

from bnft.common.errors import InputError, did_you_mean
from bnft.evaluation.summary import ErrorRate
from bnft.report.stored import StoredResult, repairable
from bnft.runs.result import RunRecord
from bnft.runs.run_folder import RunFolder
from bnft.runs.store import Store


@dataclass(frozen=True)
class OneRun:
    """A run, its record and its results."""

    folder: RunFolder
    record: RunRecord
    results: tuple[StoredResult, ...]

    @property
    def name(self) -> str:
        return self.folder.name


def one_run(store: Store, name: str) -> OneRun:
    """Read a run and its results.

    Raises:
        InputError: if the store has no run of this name.
        DamagedError: if one of its files is damaged.
    """
    folder = store.run(name)
    evaluations = folder.evaluations()
    if not folder.begun and not evaluations:
        if store.has_sweep(name):
            raise InputError(f"{name}: must be a run; it is a sweep, and `bnft status {name}` lists its runs")
        names = [run.name for run in store.folders()]
        raise InputError(f"{name}: must be a run in {store.root}{did_you_mean(name, names)}; `bnft status` lists them")
    results = []
    for evaluation in evaluations:
        with repairable():
            result = evaluation.result()
        if result is not None:
            results.append(StoredResult(evaluation, result))
    record = folder.record() if folder.begun else results[0].run
    return OneRun(folder, record, tuple(results))


def shown(rate: ErrorRate, digits: int) -> str:
    """Return an error in percent with its interval: `1.00 [0.4, 2.3]`."""
    low, high = rate.interval
    return f"{rate.error:.{digits}f} [{low:.1f}, {high:.1f}]"
