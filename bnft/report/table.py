"""Table 2, ours beside the paper's, in the terminal; `formats` has md, csv, tex and json."""

import io
import os
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnft.common.console import notice
from bnft.report import claims, formats
from bnft.report.cells import CLAIMS_HEADER, CLAIMS_TITLE, HEADER, cells, claim_cells, heading, labelled, missing, notes
from bnft.report.rows import Selection, Study, read, select
from bnft.report.verdicts import Verdict
from bnft.runs.store import Store

FORMATS = ("terminal", "md", "csv", "tex", "json")
PLAIN_WIDTH = 140  # where the output is no terminal
STYLES: dict[Verdict, str] = {
    "holds": "green",
    "does not hold": "red",
    "differs by less than the margin": "green",
    "not enough data": "yellow",
    "not measured": "yellow",
}


def render(selection: Selection, form: str) -> str:
    """The selected results in one of FORMATS, without colours."""
    if form == "terminal":
        output = io.StringIO()
        show(selection, Console(file=output, width=PLAIN_WIDTH, color_system=None))
        return output.getvalue()
    written = {"json": formats.as_json, "csv": formats.as_csv, "tex": formats.as_tex, "md": formats.as_markdown}
    return written[form](selection)


def show(selection: Selection, console: Console) -> None:
    """Print tables, claims and what is missing."""
    for study in selection.studies():
        table = Table(title=heading(study), title_justify="left", title_style="bold", pad_edge=False)
        for position, name in enumerate(HEADER):
            table.add_column(name, justify="left" if position == 0 else "right", overflow="fold")
        for line in labelled(study):
            table.add_row(*map(Text, cells(*line)))  # as text, since a label's brackets are no markup
        console.print(table)
        _print(notes(study), console)
        _show_claims(study, console)
    if selection.missing:
        console.print(missing(selection), markup=False, highlight=False)


def _show_claims(study: Study, console: Console) -> None:
    found = claims.tested(study)
    if not found:
        return
    table = Table(title=CLAIMS_TITLE, title_justify="left", title_style="bold", pad_edge=False)
    for name in CLAIMS_HEADER:
        table.add_column(name, justify="left" if name in ("claim", "verdict") else "right")
    for item in found:
        table.add_row(*map(Text, claim_cells(item)), style=STYLES[item.verdict])
    console.print(table)
    _print(claims.notes(found), console)


def _print(lines: Iterable[str], console: Console) -> None:
    for line in lines:
        console.print(line, style="dim", markup=False, highlight=False)


def print_sweep(store: Store, name: str) -> None:
    """The table of one sweep, on standard output."""
    selection = select(store, [name])
    show(selection, _console())
    tell(selection)


def print_wanted(store: Store, wanted: Iterable[tuple[str, str]]) -> None:
    """The table of some evaluations of runs, on standard output."""
    show(read(store, wanted), _console())


def print_result(store: Store, run: str, evaluation: str) -> None:
    """What one run came to, on standard output."""
    selection = read(store, [(run, evaluation)])
    console = _console()
    show(selection, console)
    console.print(f"kept in {store.run(run).path}{os.sep}; figures: `bnft report {run}`", markup=False, highlight=False)
    tell(selection)


def tell(selection: Selection) -> None:
    """What is to be said of results beside their tables, on standard error."""
    if selection.note:
        notice(selection.note)


def _console() -> Console:
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=PLAIN_WIDTH)
