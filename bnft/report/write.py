"""Write the report: a folder with `index.html`, and each figure as PDF and PNG in `figures/`."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import vl_convert

from bnft.common import files
from bnft.common.errors import InputError, did_you_mean, rejected
from bnft.report import page
from bnft.report.content import StudyDrawings, content
from bnft.report.drawing import Read, drawn, showing
from bnft.report.figures.base import Figure
from bnft.report.figures.errors import over_eps
from bnft.report.groups import Series
from bnft.report.rows import select
from bnft.report.table import tell
from bnft.runs import layout
from bnft.runs.selection import default
from bnft.runs.store import Store

TITLE = "Batch normalisation in adversarial training"
PRINTED_GROUPS = 3  # number of groups of a study whose figures are also written for print
EVERY_EPOCH_GROUPS = 3  # number of groups with histograms at every logged epoch, which are the largest part of a page
PIXELS_PER_POINT = 300 / 72  # resolution of a PNG


def report(
    store: Store,
    names: Sequence[str],
    folder: Path | None = None,
    layer: str | None = None,
    rows: str | None = None,
) -> Path:
    """Write the report of some sweeps or runs.

    Args:
        store: the store.
        names: the names of sweeps or runs, as for `selection.pick`.
        folder: the folder of the report; None for one within the store.
        layer: the BN layer that Figure 1 shows, by name or number; None for the usual one.
        rows: the titles of the rows that the figures show, separated by commas; None for the usual ones.

    Returns:
        The path of the page.

    Raises:
        InputError: if no run is done, the folder cannot be written to, or a layer or a row does not exist.
    """
    asked = list(names) or default(store)
    selection = select(store, asked)
    if not selection.results:
        raise InputError(f"{', '.join(asked)}: has no run that is done yet; name another sweep or run, or all")
    folder = folder or store.root / layout.REPORTS / "+".join(asked)[:100]
    drawings = [StudyDrawings(study) for study in selection.studies()]
    reads = [read for drawing in drawings for read in drawing.groups]
    chosen = _rows([series for read in reads for series in read.group.series], rows) if rows is not None else ()
    for drawing in drawings:
        drawing.groups = [replace(read, chosen=chosen) for read in drawing.groups]
    layer = _layer(reads, layer) if layer is not None else None
    whole = 0
    for number, drawing in enumerate(drawings, start=1):
        for place, read in enumerate(drawing.groups, start=1):
            whole += 1
            prefix = "".join((f"study{number}-" if len(drawings) > 1 else "", f"group{place}-" if place > 1 else ""))
            figures = drawn(read, whole <= EVERY_EPOCH_GROUPS, drawing.again[place - 1], layer)
            drawing.figures.append(_written(figures, folder, prefix, place <= PRINTED_GROUPS))
        common = over_eps(drawing.study)
        shown = showing(common, chosen) if common is not None else None
        prefix = f"study{number}-" if len(drawings) > 1 else ""
        drawing.common = _written([shown] if shown is not None else [], folder, prefix, True)
    _clear(
        folder, [place for drawing in drawings for pairs in (*drawing.figures, drawing.common) for _, place in pairs]
    )
    index = folder / "index.html"
    titles = {one.study.definition.title if one.study.definition else TITLE for one in drawings}
    title = titles.pop() if len(titles) == 1 else TITLE
    files.write(index, page.render(content(selection, drawings, title, _summary(store, asked, drawings))).encode())
    tell(selection)
    return index


def _rows(series: Sequence[Series], titles: str) -> tuple[str, ...]:
    """Return the labels of the rows with these titles or labels."""
    labels = []
    for title in re.split(r",(?![^[]*])", titles):  # labels have commas within brackets
        name = title.strip().casefold()
        found = [one.label for one in series if name in (one.label.casefold(), one.row.title.casefold())]
        if not found:
            there = list(dict.fromkeys(one.row.title for one in series))
            raise rejected("--rows", title.strip(), f"one of {', '.join(there)}{did_you_mean(title.strip(), there)}")
        labels += found
    return tuple(dict.fromkeys(labels))


def _layer(reads: Sequence[Read], wanted: str) -> str:
    """Return the name of a BN layer, which can be given by its number, counted from 1."""
    layers = list(dict.fromkeys(name for read in reads for row in read.records.values() for name in row.layers))
    if wanted in layers:
        return wanted
    if wanted.isdecimal() and 0 < int(wanted) <= len(layers):
        return layers[int(wanted) - 1]
    raise rejected("--layer", wanted, f"a BN layer: {', '.join(layers)}, or its number{did_you_mean(wanted, layers)}")


def _clear(folder: Path, written: Sequence[str | None]) -> None:
    """Remove the figures of an earlier report that this one does not have."""
    kept = {Path(place).name for place in written if place is not None}
    for file in (folder / "figures").glob("*.*"):
        if file.suffix in (".pdf", ".png") and file.stem not in kept:
            file.unlink()


def _written(figures: list[Figure], folder: Path, prefix: str, for_print: bool) -> list[tuple[Figure, str | None]]:
    """Write figures for print. Return each with the path of its files, relative to the page; None if not printed."""
    with_paths: list[tuple[Figure, str | None]] = []
    for figure in figures:
        name = f"figures/{prefix}{figure.key}" if for_print else None
        if name is not None:
            printed(figure, folder / name)
        with_paths.append((figure, name))
    return with_paths


def printed(figure: Figure, stem: Path) -> None:
    """Write a figure for print, as PDF and PNG. `stem` is the path without a suffix."""
    specification = figure.printed()
    files.write(stem.parent / f"{stem.name}.pdf", vl_convert.vegalite_to_pdf(specification))
    files.write(stem.parent / f"{stem.name}.png", vl_convert.vegalite_to_png(specification, scale=PIXELS_PER_POINT))


def _summary(store: Store, asked: Sequence[str], drawings: Sequence[StudyDrawings]) -> str:
    what = f"Every run in {store.root}" if asked == ["all"] else ", ".join(asked)
    studies = [drawing.study for drawing in drawings]
    rows = sum(len(study.rows) for study in studies)
    runs = len({result.run_folder.name for study in studies for row in study.rows for result in row.results})
    several = f" on {len(studies)} combinations of data and model" if len(studies) > 1 else ""
    counted = f"{runs} run{'s' * (runs > 1)} in {rows} row{'s' * (rows > 1)}"
    return f"{what}: {counted}{several}. Errors in percent, eps in pixel units (images in [0, 1])."
