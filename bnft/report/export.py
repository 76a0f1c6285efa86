"""`bnft export`: a small copy of finished runs with the data of tables, claims and figures, to publish or share.

The copy is a store, so `bnft table` and `bnft report` can read it. It has no adversarial images, and therefore no
gallery. It also lacks the epochs of the BN record that no figure shows, and the models, unless they are requested. The
records of the exported sweeps are copied too. If runs or `all` are exported, each of their studies becomes a sweep.

If the runs that are not done are requested too, the same command continues them from the copy.
"""

import lzma
import os
import re
import tarfile
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnft.common import files
from bnft.common.errors import DamagedError, InputError
from bnft.report.recorded import picked
from bnft.report.rows import Selection, read, select
from bnft.report.table import tell
from bnft.report.unfinished import QUICK, Needed, copy_status, copy_whole, needed
from bnft.runs import layout
from bnft.runs.evaluation_folder import IMAGES
from bnft.runs.result import Result, plain
from bnft.runs.result import read as read_record
from bnft.runs.run_folder import RunFolder
from bnft.runs.selection import ALL, Picked, pick
from bnft.runs.store import Store
from bnft.studies.study import Study

ARCHIVE = ".tar.xz"
# Fast compression. The window is large enough to store weights that a model shares with its base only once.
XZ = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 128 * 2**20}]
FOLDERS = re.compile(
    r"""(?:^|(?<=[=:'"\[,]))[/~][^'",\]=]*/"""
)  # the folders of an absolute path, alone or within an override


def export_to(
    store: Store, names: Sequence[str], where: Path, models: Collection[str], unfinished: bool = False
) -> tuple[int, int]:
    """Export to a folder, or if the name of the file ends in .tar.xz, to an archive of a folder named like the store.

    The arguments are those of `export`.

    Returns:
        The number of copied runs, and the size of all files, or of the archive, in bytes.
    """
    if not where.name.endswith(ARCHIVE):
        runs = export(store, names, Store(where), models, unfinished)
        return len(runs), sum(file.stat().st_size for run in runs for file in run.path.rglob("*") if file.is_file())
    if where.is_dir():
        raise InputError(f"{where}: must be a file, because its name ends in {ARCHIVE}; it is a folder")
    where.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{where.name}.", dir=where.parent) as folder:
        copy = Store(Path(folder) / (store.root.resolve().name or "multirun"))
        runs = export(store, names, copy, models, unfinished)
        packed = Path(folder) / where.name
        with lzma.open(packed, "w", filters=XZ) as file, tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(copy.root, copy.root.name, filter=_without_owner)
        os.replace(packed, where)
    return len(runs), where.stat().st_size


def _without_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def export(
    store: Store, names: Sequence[str], target: Store, models: Collection[str], unfinished: bool = False
) -> list[RunFolder]:
    """Copy results and the records of sweeps from one store to another, and replace what has the same name there.

    Args:
        store: the store to copy from.
        names: sweeps or runs, as for `selection.pick`.
        target: the store to copy to.
        models: the policies whose models are copied too.
        unfinished: whether to copy what is needed to continue runs of the sweeps that are not done.

    Returns:
        The folders of the copied runs.

    Raises:
        InputError: if runs are missing or damaged, or if no run of a policy in `models` is selected. Nothing is
            written then.
    """
    if target.root.resolve() == store.root.resolve():
        raise InputError(f"{target.root}: must be another folder than the store")
    picked = pick(store, names)
    selection, left = _with_unfinished(store, picked) if unfinished else (_finished(store, names), Needed())
    planned = [entry["run"] for sweep in picked.sweeps.values() for entry in sweep["runs"]] if unfinished else []
    _check_models(models, selection, planned)
    runs = {result.run_folder.name: result.run_folder for result in selection.results}
    runs |= {name: store.run(name) for name in sorted(left.whole | left.models)}
    with_model = {name for name in runs if name.rpartition("-")[0] in models} | left.models
    for run in [run for name, run in runs.items() if name not in left.whole]:
        if run.name in with_model and not run.trained:
            raise InputError(f"--models: {run.name} has no model any more; leave out its policy")
        _check(run, run.name in with_model)
    for name in picked.sweeps:
        _check_sweep(store, target, name)
    for run in runs.values():
        _copy(run, target.run(run.name), run.name in left.whole, run.name in with_model)
    for result in selection.results:
        run, name = result.run_folder, result.folder.path.name
        if run.name not in left.whole or name.startswith(QUICK):
            kept, _ = files.read_tensors(result.folder.path / layout.OUTCOMES, without=IMAGES)
            evaluation = target.run(run.name).evaluation(name)
            evaluation.save(kept, read_record(Result, portable(plain(result.result)), evaluation.path))
    for name in picked.sweeps:
        target.copy_sweep(name, _portable_sweep(store.sweep(name)))
    if not picked.sweeps:
        _record_studies(selection, target)
    tell(selection)
    return [target.run(name) for name in runs]


def _check_models(models: Collection[str], selection: Selection, planned: Sequence[str]) -> None:
    """Raise InputError if no run, nor any of those `planned`, has a policy whose models were requested."""
    policies = {result.run.policy for result in selection.results} | {name.rpartition("-")[0] for name in planned}
    for policy in models:
        if policy not in policies:
            raise InputError(f"--models {policy}: must be a policy of these runs ({', '.join(sorted(policies))})")


def _finished(store: Store, names: Sequence[str]) -> Selection:
    """Return the results of some sweeps and runs. Raise InputError if one of them is not done."""
    selection = select(store, names)
    if undone := (*selection.missing, *selection.previewed):
        which = "name only runs that are done, or add --unfinished"
        raise InputError(f"{', '.join(undone)}: must be done to be exported; {which}")
    return selection


def _with_unfinished(store: Store, picked: Picked) -> tuple[Selection, Needed]:
    """Return the results of some sweeps, and what their runs need that are not done."""
    if picked.runs or picked.everything:
        other = ALL if picked.everything else picked.runs[0]
        raise InputError(f"--unfinished: must be given with sweeps only, not with {other}")
    left = needed(store, picked.sweeps)
    wanted = [(entry["run"], entry["evaluation"]) for sweep in picked.sweeps.values() for entry in sweep["runs"]]
    for name in left.whole:
        wanted += [(name, evaluation.path.name) for evaluation in store.run(name).evaluations()]
    return read(store, wanted), left


def _copy(run: RunFolder, copy: RunFolder, whole: bool, with_model: bool) -> None:
    """Copy a run without its results: the `whole` state, or what figures show and, `with_model`, the model."""
    files.write_yaml(copy.path / layout.CONFIG, portable(run.config()))
    if whole:
        copy_whole(run, copy)
        copy_status(run, copy)
        return
    stage = "evaluated" if run.evaluations() else "trained"
    files.write_json(copy.path / layout.STATUS, {"state": "done", "stage": stage})
    _copy_logs(run, copy)
    (copy.path / layout.CHECKPOINT).unlink(missing_ok=True)
    if with_model:
        copy_model(run, copy)
    else:
        (copy.path / layout.MODEL).unlink(missing_ok=True)


def _check_sweep(store: Store, target: Store, name: str) -> None:
    """Raise InputError if the target has another sweep of this name."""
    if target.has_sweep(name) and target.sweep(name)["runs"] != store.sweep(name)["runs"]:
        raise InputError(f"{target.root}: must not have another sweep named {name}; export to another folder")


def _portable_sweep(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a sweep without what belongs to this machine: its process, its jobs and absolute paths."""
    kept: dict[str, Any] = portable({key: value for key, value in sweep.items() if key not in ("launcher", "arrays")})
    return {**kept, "command": " ".join(map(portable, str(sweep["command"]).split(" ")))}


def _record_studies(selection: Selection, target: Store) -> None:
    """Record the rows of studies that the copied runs belong to, so that the copy has the same tables and claims."""
    entries: dict[str, list[dict[str, Any]]] = {}
    studies: dict[str, Study] = {}
    for result, place in selection.placed:
        if place is None:
            continue
        base = {"base": result.run.base} if result.run.base is not None else {}
        changed = {"changed": portable(place.changed)} if place.changed else {}
        entry = {"run": result.run_folder.name, "evaluation": result.folder.path.name, **base}
        studies[place.study.name] = place.study
        entries.setdefault(place.study.name, []).append({**entry, "row": place.title, **changed})
    for name, study in studies.items():
        target.save_study(portable(study.encoded()), entries[name])


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
