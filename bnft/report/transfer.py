"""Adversarial images of one row, tried on the models of the others, as a matrix.

This needs PyTorch, the stored models and the adversarial images. It is therefore no part of `bnft table`.
"""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnft.common.canonical import canonical
from bnft.common.console import PLAIN_WIDTH
from bnft.common.errors import DamagedError, InputError, show
from bnft.evaluation.settings import CLEAN
from bnft.evaluation.summary import ErrorRate
from bnft.report.flat import Records
from bnft.report.rows import Rate, Row, Selection, Study
from bnft.report.stored import StoredResult
from bnft.runs import identity

if TYPE_CHECKING:  # commands that only read results start without PyTorch
    import torch
    from numpy.typing import NDArray

    from bnft.evaluation.transfer import Attacked

FORMATS = ("terminal", "csv", "json")
CAPTION = (
    "Rows are the sources of the images, and columns the models that they are tried on. A cell is the error in percent"
    " on the adversarial images of the source, among those images that the target classifies correctly without an"
    " attack, and their number. Models of equal seeds are paired, and errors are means over seeds. By evaluation=curve,"
    " each image is within the smallest budget that broke it."
)


@dataclass(frozen=True)
class Cell:
    """The error of a target on the adversarial images of a source.

    Attributes:
        source: the label of the row that the images were made for.
        target: the label of the row that they are tried on.
        rate: the error; None if there are no such images, or no common seed.
        images: the number of images, over all seeds.
        seeds: the seeds of both models.
    """

    source: str
    target: str
    rate: Rate | None
    images: int
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Transfer:
    """How adversarial images transfer between rows. `str(transfer)` is a table.

    Attributes:
        rows: the labels of the rows that are compared.
        norm: the norm of their common budget.
        eps: the size of it, in pixel units.
        cells: one cell per source and target.
        left_out: the other rows and seeds, with the reasons.
    """

    rows: tuple[str, ...]
    norm: str
    eps: float
    cells: tuple[Cell, ...]
    left_out: tuple[str, ...]

    @property
    def records(self) -> Records:
        """One flat dict per cell, for example for `pandas.DataFrame`."""
        return Records(map(_record, self.cells))

    def __str__(self) -> str:
        return render(self, "terminal")

    def _repr_html_(self) -> str:
        return self.records._repr_html_()


def measure(selection: Selection, device: str = "auto") -> Transfer:
    """Try the adversarial images of each row on the models of all rows.

    Only rows with the same data, attack, norm, eps, images and budgets are compared: those of the largest set of such
    rows. Each model has one row. While AutoAttack is not done for all runs, the previews of all are compared.

    Args:
        selection: the results.
        device: as for a run: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        InputError: if there is no row with models and adversarial images, or the device does not exist.
    """
    from bnft.common.devices import choose

    hardware = choose(device, "fp32", None)
    studies = _of_one_attack(selection).studies()
    study = Study(tuple(row for study in studies for row in study.rows))
    labels = dict(zip(study.labels(), study.rows, strict=True))
    rows, left_out = _comparable(labels)
    left_out += [f"{run}: is not done yet" for run in selection.missing]
    errors: dict[tuple[str, str], dict[int, ErrorRate | None]] = {}
    for seed in sorted({seed for row in rows.values() for seed in row.seeds}):
        runs, notes = _of_seed(rows, seed, hardware.device)
        left_out += notes
        for pair, error in _errors(runs, hardware.device).items():
            errors.setdefault(pair, {})[seed] = error
    shown = [label for label in rows if (label, label) in errors]
    if not shown:
        reason = f" ({left_out[-1]})" if left_out else ""
        raise InputError(
            f"transfer: needs runs with their models and adversarial images; none of these has both{reason}"
        )
    cells = tuple(_cell(source, target, errors.get((source, target), {})) for source in shown for target in shown)
    return Transfer(tuple(shown), *rows[shown[0]].budget, cells, tuple(left_out))


def _of_one_attack(selection: Selection) -> Selection:
    """Return the previews in the place of all results that have one, if some runs have a preview only."""
    if not selection.previewed:
        return selection
    shown = [result.preview or result for result in selection.results]
    return replace(selection, results=tuple({result.folder.path: result for result in shown}.values()))


def _comparable(labels: dict[str, Row]) -> tuple[dict[str, Row], list[str]]:
    """Return the largest set of rows that can be compared, and the other rows with the reasons.

    A model has one row in this set: the evaluation with the most seeds, or else the first.
    """
    sets: dict[str, dict[str, tuple[str, Row]]] = {}
    left_out = []
    for label, row in sorted(labels.items(), key=lambda one: -len(one[1].seeds)):
        alike = sets.setdefault(repr(_setting(row)), {})
        kept, _ = alike.setdefault(_model(row), (label, row))
        left_out += [f"{label}: is another evaluation of the models of {kept}"] if kept != label else []
    if not sets:
        return {}, []
    chosen = dict(max(sets.values(), key=len).values())
    most = {label: row for label, row in labels.items() if label in chosen}
    usual = _setting(next(iter(most.values())))
    for label, row in labels.items():
        differing = [
            f"{key}={show(value)} instead of {show(usual[key])}"
            for key, value in _setting(row).items()
            if value != usual[key]
        ]
        left_out += [f"{label}: {', '.join(differing)}"] if differing else []
    return most, left_out


def _setting(row: Row) -> dict[str, Any]:
    """Return what rows must have in common to be compared."""
    data, (norm, eps) = row.first.data, row.budget
    hashed = data.sha256[: identity.HASH_LENGTH]
    common = {"data": hashed, "data.validation": data.validation, "attack": row.attack, "norm": norm, "eps": eps}
    return {**common, "images": row.robust.images, "budgets": row.first.evaluation.budgets}


def _model(row: Row) -> str:
    """Return what the models of a row have in common."""
    return canonical([row.policy, identity.without(row.first.run.identity, "seed")])


@dataclass(frozen=True)
class _Attacked:
    """The files of one run: its model with what the attack found, and the labels (n,) of the images."""

    attacked: "Attacked"
    labels: "NDArray[np.int64]"


def _of_seed(rows: dict[str, Row], seed: int, device: "torch.device") -> tuple[dict[str, _Attacked], list[str]]:
    """Read the runs of one seed, by label. Returns them, and those that cannot be used with the reasons."""
    read: dict[str, _Attacked] = {}
    left_out = []
    for label, row in rows.items():
        for stored in (stored for stored in row.results if stored.seed == seed):
            try:
                run = _read(stored, device)
            except (DamagedError, InputError) as error:
                left_out.append(f"{label}, seed {seed}: {error}")
                continue
            if read and not np.array_equal(run.labels, next(iter(read.values())).labels):
                left_out.append(f"{label}, seed {seed}: was evaluated on other images")
                continue
            read[label] = run
    return read, left_out


def _read(stored: StoredResult, device: "torch.device") -> _Attacked:
    """Read one run. Raise DamagedError or InputError if its model or its adversarial images cannot be used."""
    import torch

    from bnft.evaluation.transfer import Attacked
    from bnft.runs.trained import trained_model

    outcomes = stored.outcomes()
    if "adversarial" not in outcomes:
        raise InputError(f"{stored.run_folder.name}: was exported without its adversarial images")
    try:
        fallen_at = outcomes["fallen_at"]
        labels = outcomes["labels"][: len(fallen_at)].astype(np.int64)
        predicted = outcomes["clean_logits"][: len(fallen_at)].argmax(1)
    except KeyError as error:
        raise DamagedError(f"{stored.folder.path}: is damaged, {error.args[0]} is missing") from None
    attacked = Attacked(
        trained_model(stored.run_folder).to(device),
        torch.from_numpy(outcomes["adversarial"]),
        torch.from_numpy(fallen_at > CLEAN),
        torch.from_numpy(predicted == labels),
    )
    return _Attacked(attacked, labels)


def _errors(runs: dict[str, _Attacked], device: "torch.device") -> dict[tuple[str, str], ErrorRate | None]:
    """Return the error of each pair of runs of one seed, by the labels of source and target."""
    import torch

    from bnft.evaluation.transfer import transfer

    if not runs:
        return {}
    labels = torch.from_numpy(next(iter(runs.values())).labels)
    matrix = transfer([run.attacked for run in runs.values()], labels, device)
    return {
        (source, target): error
        for source, line in zip(runs, matrix, strict=True)
        for target, error in zip(runs, line, strict=True)
    }


def _cell(source: str, target: str, errors: Mapping[int, ErrorRate | None]) -> Cell:
    known = {seed: error for seed, error in errors.items() if error is not None}
    rate = Rate.of([*known.values()]) if known else None
    return Cell(source, target, rate, sum(error.images for error in known.values()), tuple(known))


def render(transfer: Transfer, form: str) -> str:
    """Return the matrix in one of FORMATS, without colours."""
    if form == "json":
        head = {"rows": list(transfer.rows), "norm": transfer.norm, "eps": transfer.eps}
        return json.dumps({**head, "cells": transfer.records, "left_out": list(transfer.left_out)}, indent=1) + "\n"
    text = io.StringIO()
    if form == "csv":
        writer = csv.DictWriter(text, [*transfer.records[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**one, "seeds": " ".join(map(str, one["seeds"]))} for one in transfer.records)
    else:
        print_matrix(transfer, Console(file=text, width=PLAIN_WIDTH, color_system=None))
    return text.getvalue()


def print_matrix(transfer: Transfer, console: Console) -> None:
    """Print the matrix, with numbers for the columns, and its notes."""
    title = f"Transfer of adversarial images, {transfer.norm} eps {show(transfer.eps)}"
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False, show_lines=True)
    table.add_column("source of the images", overflow="fold")
    for number in range(1, len(transfer.rows) + 1):
        table.add_column(str(number), justify="right")
    cells = {(cell.source, cell.target): cell for cell in transfer.cells}
    for number, source in enumerate(transfer.rows, start=1):
        table.add_row(Text(f"{number} {source}"), *(_shown(cells[source, target]) for target in transfer.rows))
    console.print(table)
    for note in (CAPTION, *(f"Left out: {one}" for one in transfer.left_out)):
        console.print(note, style="dim", markup=False, highlight=False)


def _shown(cell: Cell) -> str:
    return f"{cell.rate.error:.1f}\nof {cell.images:,}" if cell.rate else "-"


def _record(cell: Cell) -> dict[str, Any]:
    low, high = cell.rate.interval if cell.rate else (None, None)
    return {
        "source": cell.source,
        "target": cell.target,
        "error": cell.rate.error if cell.rate else None,
        "low": low,
        "high": high,
        "sd": cell.rate.deviation if cell.rate else None,
        "images": cell.images,
        "seeds": list(cell.seeds),
    }
