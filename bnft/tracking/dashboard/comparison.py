"""What a dashboard compares: the runs of a sweep as the store knows them, or the paper's rows where it does not."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bnft.common.canonical import canonical
from bnft.common.errors import DamagedError, InputError, rejected
from bnft.report import table
from bnft.report.rows import select
from bnft.report.style import looks
from bnft.runs import identity, layout
from bnft.runs.selection import newest, readable, runs_of
from bnft.runs.store import Store
from bnft.studies import paper

PAPER_LAYER = 8  # the BN layer of the paper's Figure 1, counted from 1
PLAIN = re.compile(r"[A-Za-z0-9._:-]{1,64}")  # wandb-workspaces mistakes quotes and operators in a name for its own


@dataclass(frozen=True)
class ComparedRun:
    """What a dashboard needs to know of a run, whose name is its id in W&B too."""

    name: str
    policy: str
    title: str
    recipe: str  # what it computes, apart from the seed


@dataclass(frozen=True)
class Comparison:
    """One sweep, its rows in the paper's order and the layers of its models.

    `titles` maps policies to titles. `runs` and `layers` are empty if the sweep is not in the store. `shared` are the
    runs that another sweep asked for too, so that W&B may have them in that one's group.
    """

    sweep: str
    runs: tuple[ComparedRun, ...]
    shared: tuple[str, ...]
    titles: dict[str, str]
    layers: tuple[str, ...]
    layer: str | None
    table: str  # Markdown

    @property
    def colours(self) -> dict[str, str]:
        """The colour of each policy, as in the report on this machine."""
        return {policy: look.colour for policy, look in looks(self.titles).items()}

    @property
    def grouped(self) -> bool:
        """Whether runs of one title differ in nothing but their seed, so that a mean over them says something."""
        return len({(run.title, run.recipe) for run in self.runs}) == len({run.title for run in self.runs})

    @property
    def notes(self) -> list[str]:
        """What is left out, and why."""
        found = []
        if not self.runs:
            found.append(f"sweep {self.sweep} is not in the store, so runs are looked for by the paper's policies")
        if self.layer is None:
            found.append("no BN layer is known, so there are no histograms; --layer NAME chooses one")
        if not self.grouped:
            found.append("some runs of one policy differ in more than their seed, so each run is drawn by itself")
        return found


def compare(store: Store, sweep: str | None = None, layer: str | None = None) -> Comparison:
    """What there is to compare in a sweep, the newest if None; `layer` is the BN layer whose histograms are shown.

    Raises InputError if there is no sweep to take, or no such layer in its models.
    """
    sweep = sweep or newest(store)
    if sweep is None:
        raise InputError(f"store={store.root}: has no sweep; name the one to compare as it is called in W&B")
    if not PLAIN.fullmatch(sweep):
        raise rejected("sweep", sweep, "at most 64 letters, digits and . _ : -")
    if not store.has_sweep(sweep):
        if store.sweeps():
            store.sweep(sweep)  # which refuses: a slip, rather than a sweep of another machine
        titles = {row.policy: row.title for row in paper.ROWS}
        return Comparison(sweep, (), (), titles, (), layer, _published())
    names = list(dict.fromkeys(entry["run"] for entry in store.sweep(sweep)["runs"]))
    runs = sorted(_runs(store, names), key=lambda run: paper.ORDER.get(run.policy, len(paper.ORDER)))
    if not runs:
        raise InputError(f"sweep {sweep}: none of its runs has begun, so there is nothing to compare yet")
    layers = _layers(store, names)
    if layer is None and layers:
        layer = layers[min(PAPER_LAYER, len(layers)) - 1]
    elif layers and layer not in layers:
        raise rejected("--layer", layer, f"one of {', '.join(layers)}")
    titles = {run.policy: run.title for run in runs}
    others = {run for other, record in readable(store) if other != sweep for run in runs_of(record)}
    shared = tuple(run.name for run in runs if run.name in others)
    return Comparison(sweep, tuple(runs), shared, titles, layers, layer, _ours(store, sweep) or _published())


def _runs(store: Store, names: Iterable[str]) -> Iterable[ComparedRun]:
    for name in names:
        folder = store.run(name)
        if not (folder.path / layout.CONFIG).exists():  # not begun
            continue
        record = folder.record()
        recipe = canonical(identity.without(record.identity, "seed"))
        yield ComparedRun(name, record.policy, record.title, recipe)


def _layers(store: Store, names: Iterable[str]) -> tuple[str, ...]:
    """The BN layers of all runs, each once, in the order of the models; damaged and missing records have none."""
    found: dict[str, None] = {}
    for name in names:
        try:
            found |= dict.fromkeys(store.run(name).batchnorm().layers)
        except DamagedError:
            continue
    return tuple(found)


def _ours(store: Store, sweep: str) -> str:
    """Table 2 and the claims, ours beside the paper's; nothing if no run of the sweep is done."""
    selection = select(store, [sweep])
    return table.render(selection, "md") if selection.results else ""


def _published() -> str:
    lines = ["| Model | clean error %, paper | robust error %, paper |", "| --- | ---: | ---: |"]
    lines += [f"| {row.title} | {row.clean_error:.2f} | {row.robust_error:.1f} |" for row in paper.ROWS]
    return "\n".join(lines) + "\n"
