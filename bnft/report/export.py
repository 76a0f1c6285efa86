"""A small copy of finished runs: what table, claims and figures need, to be kept beside a paper or handed on.

It is a store like any other, so `bnft table` and `bnft report` read it. Left out are the adversarial images, and with
them the gallery, the epochs of the BN record that no figure draws, and, unless asked for, the models.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

from bnft.common import files
from bnft.common.errors import DamagedError, InputError
from bnft.report.recorded import picked
from bnft.report.rows import select
from bnft.report.table import tell
from bnft.runs import layout
from bnft.runs.evaluation_folder import IMAGES
from bnft.runs.result import Result, plain, read
from bnft.runs.run_folder import RunFolder
from bnft.runs.store import Store

FOLDERS = re.compile(r"""(?:^|(?<=[=:'"\[,]))[/~][^'",\]=]*/""")  # of an absolute path, alone or within an override


def export(store: Store, names: Sequence[str], target: Store, models: Collection[str]) -> list[RunFolder]:
    """Copy results from `store` (sweeps or runs, as `picking.pick` takes them) into `target`; returns their runs there.

    `models` has the policies whose models go with them. What is in `target` under the same names is replaced. Raises
    InputError for a policy of which no run was selected, and where runs are missing or damaged; writes nothing then.
    """
    selection = select(store, names)
    policies = {result.run.policy for result in selection.results}
    if selection.missing:
        raise InputError(f"{', '.join(selection.missing)}: must be done to be exported; name the runs that are")
    for policy in models:
        if policy not in policies:
            raise InputError(f"--models {policy}: must be a policy of these runs ({', '.join(sorted(policies))})")
    for result in selection.results:
        if result.run.policy in models and not result.run_folder.trained:
            raise InputError(f"--models: {result.run_folder.name} has no model any more; leave its policy out")
    if target.root.resolve() == store.root.resolve():
        raise InputError(f"{target.root}: must be another folder than the store")
    runs = {result.run_folder.name: result.run_folder for result in selection.results}
    for run in runs.values():
        _check(run, models)
    for run in runs.values():
        copy = target.run(run.name)
        files.write_yaml(copy.path / layout.CONFIG, portable(run.config()))
        files.write_json(copy.path / layout.STATUS, {"state": "done", "stage": "evaluated"})
        _copy_logs(run, copy)
        if run.record().policy in models:
            copy_model(run, copy)
        else:
            (copy.path / layout.MODEL).unlink(missing_ok=True)
    for result in selection.results:
        kept, _ = files.read_tensors(result.folder.path / layout.OUTCOMES, without=IMAGES)
        evaluation = target.run(result.run_folder.name).evaluation(result.folder.path.name)
        evaluation.save(kept, read(Result, portable(plain(result.result)), evaluation.path))
    tell(selection)
    return [target.run(name) for name in runs]


def copy_model(run: RunFolder, copy: RunFolder) -> None:
    """Put the model of a run beside the copy of its results; the same file, unless it is from before checksums."""
    copy.save_model(*run.model())


def _check(run: RunFolder, models: Collection[str]) -> None:
    """Read all that is to be copied of a run beside its results. Raises DamagedError if something is not whole."""
    run.config()
    try:
        run.history()
        run.batchnorm()
        if run.record().policy in models:
            run.model()
    except DamagedError as error:
        raise DamagedError(f"{error}; move {run.path} away and ask for the run again, or leave it out") from None


def _copy_logs(run: RunFolder, copy: RunFolder) -> None:
    files.write_lines(copy.path / layout.HISTORY, run.history())
    stacked, record = files.read_tensors(run.path / layout.BATCHNORM)
    few = picked(stacked["epochs"].tolist())
    files.write_tensors(copy.path / layout.BATCHNORM, {name: epochs[few] for name, epochs in stacked.items()}, record)


def portable(value: Any) -> Any:
    """Plain data in which each file of this machine is named without its folders, which say nothing elsewhere.

    What names a run, its `identity`, stays as it is.
    """
    if isinstance(value, dict):
        return {key: inner if key == "identity" else portable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [portable(inner) for inner in value]
    return FOLDERS.sub("", value) if isinstance(value, str) else value
