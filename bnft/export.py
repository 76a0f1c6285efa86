"""A small copy of finished runs: what table, claims and figures need, to be kept beside a paper or handed on.

It is a store like any other, so `bnft table` and `bnft report` read it. Left out are the adversarial images, and with
them the gallery, the epochs of the BN record that no figure draws, and, unless asked for, the models.
"""

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from bnft import files
from bnft.errors import InputError
from bnft.report.recorded import picked
from bnft.report.rows import select
from bnft.store import RunFolder, Store

IMAGES = ("adversarial", "originals")  # of the outcomes; all else is a few numbers an image


def export(store: Store, names: Sequence[str], target: Store, models: Collection[str]) -> list[RunFolder]:
    """Copy results from `store` (sweeps or runs, as `rows.select` takes them) into `target`; returns their runs there.

    `models` has the policies whose models go with them. What is in `target` under the same names is replaced. Raises
    InputError for a policy of which no run was selected, and where runs are missing; writes nothing then.
    """
    selection = select(store, names)
    policies = {str(result.run["policy"]) for result in selection.results}
    if selection.missing:
        raise InputError(f"{', '.join(selection.missing)}: must be done to be exported; name the runs that are")
    for policy in models:
        if policy not in policies:
            raise InputError(f"--models {policy}: must be a policy of these runs ({', '.join(sorted(policies))})")
    for result in selection.results:
        if result.run["policy"] in models and not result.run_folder.trained:
            raise InputError(f"--models: {result.run_folder.name} has no model any more; leave its policy out")
    if target.root.resolve() == store.root.resolve():
        raise InputError(f"{target.root}: must be another folder than the store")
    for result in selection.results:
        run = result.run_folder
        copy = target.run(run.name)
        outcomes, _ = files.read_tensors(result.folder.path / "outcomes.safetensors")
        kept = {name: values for name, values in outcomes.items() if name not in IMAGES}
        files.write_yaml(copy.path / "config.yaml", portable(run.config()))
        copy.evaluation(result.folder.path.name).save(kept, portable(result.values))
        _copy_logs(run, copy)
        if result.run["policy"] in models:
            shutil.copyfile(run.path / "model.safetensors", copy.path / "model.safetensors")
    return [target.run(name) for name in dict.fromkeys(result.run_folder.name for result in selection.results)]


def _copy_logs(run: RunFolder, copy: RunFolder) -> None:
    files.write_lines(copy.path / "history.jsonl", run.history())
    stacked, record = files.read_tensors(run.path / "batchnorm.safetensors")
    few = picked(stacked["epochs"].tolist())
    files.write_tensors(
        copy.path / "batchnorm.safetensors", {name: epochs[few] for name, epochs in stacked.items()}, record
    )


def portable(value: Any) -> Any:
    """Plain data in which each file of this machine is named without its folders, which say nothing elsewhere.

    A command line is a list of `key=value`, so the path there is what follows the sign.
    """
    if isinstance(value, dict):
        return {key: portable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [portable(inner) for inner in value]
    if not isinstance(value, str):
        return value
    key, sign, rest = value.rpartition("=")
    return f"{key}{sign}{Path(rest).name}" if Path(rest).is_absolute() else value
