"""Select what a dashboard compares: the runs of a sweep."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bnft.common.canonical import canonical
from bnft.common.errors import DamagedError, InputError, rejected
from bnft.report import table
from bnft.report.rows import select
from bnft.report.style import looks
from bnft.runs import identity, layout
from bnft.runs.selection import newest, readable, runs_of
from bnft.runs.store import Store
from bnft.studies.study import Study

PLAIN = re.compile(r"[A-Za-z0-9._:-]{1,64}")  # wandb-workspaces cannot quote quotes and operators in a name


@dataclass(frozen=True)
class ComparedRun:
    """A run of a dashboard. Its name is also its id in W&B. Runs that differ only in their seed have one `recipe`."""

    name: str
    policy: str
    title: str
    recipe: str  # its identity without the seed
    row: str  # the title of its row in the study, or without a study that of its policy
    monitored: bool  # whether errors on held-out images are measured while it trains


@dataclass(frozen=True)
class Comparison:
    """The contents of a dashboard.

    Attributes:
        sweep: the name of the sweep.
        runs: its runs, in the order of its study; empty if the sweep is not in the store.
        shared: the names of its runs that another sweep has too. In W&B they may be in the group of that sweep.
        layers: the BN layers of the models; empty if the sweep is not in the store.
        layer: the BN layer whose histograms are shown.
        table: the table of the sweep as Markdown; empty if no run is done.
        study: the study; None without one.
    """

    sweep: str
    runs: tuple[ComparedRun, ...]
    shared: tuple[str, ...]
    layers: tuple[str, ...]
    layer: str | None
    table: str
    study: Study | None = None

    @property
    def title(self) -> str:
        return self.study.title if self.study else "Runs"

    @property
    def rows(self) -> dict[str, list[str]]:
        """The names of the runs of each row."""
        names: dict[str, list[str]] = {}
        for run in self.runs:
            names.setdefault(run.row, []).append(run.name)
        return names

    @property
    def colours(self) -> dict[str, str]:
        """The colour of each row, as in the report on this machine."""
        return {row: look.colour for row, look in looks(self.rows, self.study).items()}

    @property
    def grouped(self) -> bool:
        """Whether runs of one title differ only in their seed, so that a mean over them is meaningful."""
        return len({(run.title, run.recipe) for run in self.runs}) == len({run.title for run in self.runs})

    @property
    def monitored(self) -> bool:
        return any(run.monitored for run in self.runs)

    @property
    def notes(self) -> list[str]:
        """Messages about what is left out, and why."""
        notes = []
        if not self.runs:
            notes.append(f"sweep {self.sweep} is not in the store, so its table and its BN histograms are left out")
        if self.layer is None:
            notes.append("no BN layer is known, so there are no histograms; --layer NAME chooses one")
        if not self.grouped:
            notes.append("some runs of one title differ in more than their seed, so each run is drawn separately")
        return notes


def compare(store: Store, sweep: str | None = None, layer: str | None = None) -> Comparison:
    """Return the contents of the dashboard of a sweep.

    Args:
        store: the store.
        sweep: the sweep; the newest if None.
        layer: the BN layer whose histograms are shown. The default is that of the study.

    Raises:
        InputError: if there is no sweep, or its models do not have the layer.
    """
    sweep = sweep or newest(store)
    if sweep is None:
        raise InputError(f"store={store.root}: has no sweep; name the one to compare as it is called in W&B")
    if not PLAIN.fullmatch(sweep):
        raise rejected("sweep", sweep, "at most 64 letters, digits and . _ : -")
    if not store.has_sweep(sweep):
        if store.sweeps():
            store.sweep(sweep)  # raises InputError, because the name is probably mistyped
        return Comparison(sweep, (), (), (), layer, "")
    record = store.sweep(sweep)
    study = Study.decoded(record["study"]) if record.get("study") else None
    titles = {entry["run"]: entry.get("row") for entry in record["runs"]}
    names = list(titles)
    runs = list(_runs(store, titles))
    if study is not None:
        runs.sort(key=lambda run: study.order.get(run.row, len(study.order)))
    if not runs:
        raise InputError(f"sweep {sweep}: none of its runs has begun, so there is nothing to compare yet")
    layers = _layers(store, names)
    if layer is None and layers:
        layer = layers[min(study.layer if study else 1, len(layers)) - 1]
    elif layers and layer not in layers:
        raise rejected("--layer", layer, f"one of {', '.join(layers)}")
    others = {run for other, record in readable(store) if other != sweep for run in runs_of(record)}
    shared = tuple(run.name for run in runs if run.name in others)
    return Comparison(sweep, tuple(runs), shared, layers, layer, _table(store, sweep), study)


def _runs(store: Store, titles: Mapping[str, str | None]) -> Iterator[ComparedRun]:
    """Yield the runs that have begun. `titles` has the title of the row of each run in the study, if there is one."""
    for name, row in titles.items():
        folder = store.run(name)
        if not (folder.path / layout.CONFIG).exists():  # not begun
            continue
        record = folder.record()
        recipe = canonical(identity.without(record.identity, "seed"))
        yield ComparedRun(name, record.policy, record.title, recipe, row or record.title, "monitor" in record.identity)


def _layers(store: Store, names: Iterable[str]) -> tuple[str, ...]:
    """Return the BN layers of all runs, each once, in the order of the models. Skip damaged and missing records."""
    layers: dict[str, None] = {}
    for name in names:
        try:
            layers |= dict.fromkeys(store.run(name).batchnorm().layers)
        except DamagedError:
            continue
    return tuple(layers)


def _table(store: Store, sweep: str) -> str:
    """Return the table of the sweep and its claims; "" if no run is done."""
    selection = select(store, [sweep])
    return table.render(selection, "md") if selection.results else ""
