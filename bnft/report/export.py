"""`bnft export`: a small copy of finished runs with the data of tables, claims and figures, to publish or share.

The copy is a store, so `bnft table` and `bnft report` can read it. It has no adversarial images, and therefore no
gallery. It also lacks the epochs of the BN record that no figure shows, and the models, unless they are requested.
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

FOLDERS = re.compile(
    r"""(?:^|(?<=[=:'"\[,]))[/~][^'",\]=]*/"""
)  # the folders of an absolute path, alone or within an override


def export(store: Store, names: Sequence[str], target: Store, models: Collection[str]) -> list[RunFolder]:
    """Copy results from one store to another, and replace runs of the same names there.

    Args:
        store: the store to copy from.
        names: sweeps or runs, as for `selection.pick`.
        target: the store to copy to.
        models: the policies whose models are copied too.

    Returns:
        The folders of the copied runs.

    Raises:
        InputError: if runs are missing or damaged, or if no run of a policy in `models` is selected. Nothing is
            written then.
    """
    selection = select(store, names)
    policies = {result.run.policy for result in selection.results}
    if undone := (*selection.missing, *selection.previewed):
        raise InputError(f"{', '.join(undone)}: must be done to be exported; name only runs that are done")
    for policy in models:
        if policy not in policies:
            raise InputError(f"--models {policy}: must be a policy of these runs ({', '.join(sorted(policies))})")
    for result in selection.results:
        if result.run.policy in models and not result.run_folder.trained:
            raise InputError(f"--models: {result.run_folder.name} has no model any more; leave out its policy")
    if target.root.resolve() == store.root.resolve():
        raise InputError(f"{target.root}: must be another folder than the store")
    runs = {result.run_folder.name: result.run_folder for result in selection.results}
    with_model = {result.run_folder.name for result in selection.results if result.run.policy in models}
    for run in runs.values():
        _check(run, run.name in with_model)
    for run in runs.values():
        copy = target.run(run.name)
        files.write_yaml(copy.path / layout.CONFIG, portable(run.config()))
        files.write_json(copy.path / layout.STATUS, {"state": "done", "stage": "evaluated"})
        _copy_logs(run, copy)
        if run.name in with_model:
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
    """Copy the model of a run. The file stays the same, unless it was written before checksums were introduced."""
    copy.save_model(*run.model())


def _check(run: RunFolder, with_model: bool) -> None:
    """Read the files of a run that will be copied, apart from its results. Raise DamagedError if one is damaged."""
    run.config()
    try:
        run.history()
        run.batchnorm()
        if with_model:
            run.model()
    except DamagedError as error:
        raise DamagedError(f"{error}; move {run.path} away and compute the run again, or leave it out") from None


def _copy_logs(run: RunFolder, copy: RunFolder) -> None:
    files.write_lines(copy.path / layout.HISTORY, run.history())
    stacked, record = files.read_tensors(run.path / layout.BATCHNORM)
    few = picked(stacked["epochs"].tolist(), kept=record.get("kept"))
    files.write_tensors(copy.path / layout.BATCHNORM, {name: epochs[few] for name, epochs in stacked.items()}, record)


def portable(value: Any) -> Any:
    """Remove the folders from all absolute paths in plain data, because they are meaningless on other machines.

    The `identity` of a run is kept, because the run's name depends on it.
    """
    if isinstance(value, dict):
        return {key: inner if key == "identity" else portable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [portable(inner) for inner in value]
    return FOLDERS.sub("", value) if isinstance(value, str) else value
