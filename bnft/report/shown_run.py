"""`bnft show`: what a run is, its state, its results and its files, on one screen."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bnft.common.console import show_columns
from bnft.common.errors import DamagedError
from bnft.common.errors import show as text
from bnft.common.sizes import in_bytes
from bnft.report.comparison import rates
from bnft.report.costs import command_of
from bnft.report.one_run import OneRun, one_run, shown
from bnft.runs import identity
from bnft.runs.reporter import duration
from bnft.runs.result import TrainingRecord
from bnft.runs.selection import runs_of
from bnft.runs.store import Store
from bnft.sweeps.status import RunStatus, StoreStatus

HIDDEN = ("_target_", identity.SOURCE)
FILES_SHOWN = 12


@dataclass(frozen=True)
class ShownRun:
    """A run with all that is said about it.

    Attributes:
        run: its record and its results.
        bases: the names of its base, the base of its base and so on.
        statuses: the states of its evaluations.
        sweeps: the sweeps that list it.
        training: the record of its training; None if it is not trained and has no result.
        files: the sizes of its files in bytes, by their path in its folder.
    """

    run: OneRun
    bases: list[str]
    statuses: list[RunStatus]
    sweeps: list[str]
    training: TrainingRecord | None
    files: dict[str, int]

    @property
    def command(self) -> str:
        return command_of(self.run.record, self.run.record.identity["seed"])

    def lines(self) -> dict[str, str]:
        """Return what the run is, by its heading."""
        record = self.run.record
        named = record.identity
        learns, data = named["freeze_policy"], named["data"]
        overrides = ", ".join(f"{key}={text(value)}" for key, value in record.overrides.items())
        counts = self.training.counts if self.training is not None else None
        size = f"; {counts.parameters:,} parameters, {counts.share:.3g} % learn" if counts is not None else ""
        attack = named.get("attack")
        return {
            "run": self.run.name,
            "title": record.title,
            "policy": f"{record.policy}, seed {named['seed']}",
            "base": " from ".join(self.bases) or "none: trained from scratch",
            "overrides": overrides or "none",
            "data": f"{data['sha256'][: identity.HASH_LENGTH]}{self._images()}; {_settings(data, 'sha256')}",
            "model": f"{_component(named['model'])}{size}",
            "learns": f"{text(learns['parameters'])}; BN statistics: {learns['statistics']}",
            "schedule": _component(named["schedule"]),
            "attack": _component(attack) if attack else "none: clean training images",
            "trained": self._trained(),
            "state": "; ".join(dict.fromkeys(filter(None, (_state(status) for status in self.statuses)))),
            "sweeps": ", ".join(self.sweeps) or "none",
        }

    def _images(self) -> str:
        if not self.run.results:
            return ""
        data = self.run.results[0].result.data
        return f" from {data.target.removeprefix('bnft.data.')}, {data.images:,} training images"

    def _trained(self) -> str:
        if self.training is None:
            return "no"
        hardware = f" on {self.training.hardware.name}" if self.training.hardware else ""
        kept = "" if self.run.folder.trained else "; its model was removed or not exported"
        return f"{duration(self.training.seconds) if self.training.seconds else 'yes'}{hardware}{kept}"

    def fields(self) -> dict[str, Any]:
        """Return everything as plain data."""
        record = self.run.record
        return {
            "run": self.run.name,
            "title": record.title,
            "policy": record.policy,
            "seed": record.identity["seed"],
            "bases": self.bases,
            "overrides": record.overrides,
            "identity": record.identity,
            "training": asdict(self.training) if self.training is not None else None,
            "states": [status.fields() for status in self.statuses],
            "sweeps": self.sweeps,
            "results": [
                {
                    "evaluation": result.folder.path.name,
                    "settings": result.result.evaluation.settings,
                    "seconds": result.result.seconds,
                    **(rates(result) or {}),
                }
                for result in self.run.results
            ],
            "folder": str(self.run.folder.path),
            "files": self.files,
            "command": self.command,
        }


def read(store: Store, name: str, view: StoreStatus) -> ShownRun:
    """Read a run. Raise InputError if there is none of this name, DamagedError if one of its files is damaged."""
    run = one_run(store, name)
    training = run.results[0].result.training if run.results else None
    if training is None and run.folder.trained:
        training = run.folder.training()
    return ShownRun(
        run,
        _bases(store, run),
        view.of_run(name),
        [sweep for sweep, record in view.sweeps.items() if name in runs_of(record)],
        training,
        sizes(run.folder.path),
    )


def sizes(folder: Path) -> dict[str, int]:
    """Return the sizes of the files in a folder and below, in bytes."""
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.stat().st_size for file in found}


def show(run: ShownRun) -> None:
    """Print a run on one screen."""
    lines = {**run.lines(), "command": run.command}
    width = max(map(len, lines))
    for heading, value in lines.items():
        print(f"{heading:{width}}  {value}".rstrip())
    if run.run.results:
        print()
        _show_results(run.run)
    print()
    biggest = sorted(run.files.items(), key=lambda item: -item[1])
    total = sum(run.files.values())
    print(f"{run.run.folder.path}: {len(biggest)} files, {in_bytes(total)}")
    rows = [(name, in_bytes(size)) for name, size in biggest[:FILES_SHOWN]]
    show_columns(("file", "size"), rows, right=("size",))
    if len(biggest) > FILES_SHOWN:
        print(f"and {len(biggest) - FILES_SHOWN} smaller files")


def _show_results(run: OneRun) -> None:
    rows = []
    for result in run.results:
        evaluation, clean, robust = result.result.evaluation, result.result.clean, result.result.robust
        budget = f"{evaluation.norm} eps {text(evaluation.eps)}"
        spent = duration(result.result.seconds)
        images = f"{clean.images}, {robust.images}"
        rows.append((result.folder.path.name, budget, images, shown(clean, 2), shown(robust, 1), spent))
    header = ("evaluation", "within", "images", "clean error %", "robust error %", "took")
    show_columns(header, rows, right=header[2:])


def _bases(store: Store, run: OneRun) -> list[str]:
    """Return the names of the bases of a run, as far as their records can be read."""
    names: list[str] = []
    record = run.record
    while record.base is not None and record.base not in names:
        names.append(record.base)
        folder = store.run(record.base)
        try:
            record = folder.record()
        except DamagedError:  # it is missing or damaged
            return names
    base = record.identity.get("base") if record.base is None else None
    if base is not None and "sha256" in base:
        names.append(f"a file of weights, SHA-256 {base['sha256'][: identity.HASH_LENGTH]}")
    elif base is not None:
        names.append(f"a model of the run with hash {identity.digest(base)}")
    return names


def _component(value: Mapping[str, Any]) -> str:
    """Return a component in one line: the last part of its name, then its settings."""
    name = str(value.get("_target_", "")).rpartition(".")[2]
    return " ".join(filter(None, (name, _settings(value, *HIDDEN))))


def _settings(value: Mapping[str, Any], *without: str) -> str:
    shown_values = {
        key: _component(item) if isinstance(item, Mapping) else text(item)
        for key, item in value.items()
        if key not in without
    }
    return " ".join(f"{key}={f'({item})' if ' ' in item else item}" for key, item in shown_values.items())


def _state(status: RunStatus) -> str:
    return f"{status.state}{f': {status.detail}' if status.detail else ''}"
