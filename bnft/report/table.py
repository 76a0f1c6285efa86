"""Print the table of a study with its claims. `bnft.report.formats` has the formats md, csv, tex and json."""

import io
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnft.common.console import PLAIN_WIDTH, notice, output
from bnft.report import claims, formats
from bnft.report.cells import (
    CLAIMS_TITLE,
    claim_cells,
    claims_header,
    has_published_claims,
    header,
    heading,
    lines,
    missing,
    notes,
)
from bnft.report.rows import Place, Selection, Study, read, select
from bnft.report.verdicts import Verdict
from bnft.runs.store import Store

if TYPE_CHECKING:  # it imports PyTorch
    from bnft.runs.plan import Plan

FORMATS = ("terminal", "md", "csv", "tex", "json")
STYLES: dict[Verdict, str] = {
    "holds": "green",
    "does not hold": "red",
    "differs by less than the margin": "green",
    "not enough data": "yellow",
    "not measured": "yellow",
}


def render(selection: Selection, form: str) -> str:
    """Return the selected results in one of FORMATS, without colours."""
    if form == "terminal":
        text = io.StringIO()
        show(selection, Console(file=text, width=PLAIN_WIDTH, color_system=None))
        return text.getvalue()
    writers = {"json": formats.as_json, "csv": formats.as_csv, "tex": formats.as_tex, "md": formats.as_markdown}
    return writers[form](selection)


def show(selection: Selection, console: Console) -> None:
    """Print the tables, the claims, and the names of missing runs."""
    for study in selection.studies():
        table = Table(title=heading(study), title_justify="left", title_style="bold", pad_edge=False)
        for position, name in enumerate(header(study)):
            table.add_column(name, justify="left" if position == 0 else "right", overflow="fold")
        for line in lines(study):
            table.add_row(*map(Text, line))  # Text, because the brackets of a label are not markup
        console.print(table)
        _print(notes(study), console)
        _show_claims(study, console)
    if text := missing(selection):
        console.print(text, markup=False, highlight=False)


def _show_claims(study: Study, console: Console) -> None:
    tested = claims.tested(study)
    if not tested:
        return
    table = Table(title=CLAIMS_TITLE, title_justify="left", title_style="bold", pad_edge=False)
    paper = has_published_claims(tested, study)
    for name in claims_header(paper):
        table.add_column(name, justify="left" if name in ("claim", "verdict") else "right")
    for item in tested:
        table.add_row(*map(Text, claim_cells(item, study, paper)), style=STYLES[item.verdict])
    console.print(table)
    _print(claims.notes(tested), console)


def _print(lines: Iterable[str], console: Console) -> None:
    for line in lines:
        console.print(line, style="dim", markup=False, highlight=False)


def print_sweep(store: Store, name: str) -> None:
    """Print the table of one sweep."""
    selection = select(store, [name])
    show(selection, output())
    tell(selection)


def print_planned(planned: "Plan") -> None:
    """Print the table of a plan whose runs are all done."""
    wanted = [(run.name, run.evaluation_id) for run in planned.runs]
    places = {
        (run.name, run.evaluation_id): [Place(planned.study, run.row, run.changed)]
        for run in planned.runs
        if planned.study is not None and run.row is not None
    }
    show(read(planned.store, wanted, rows=places), output())


def print_result(store: Store, run: str, evaluation: str) -> None:
    """Print the result of one run."""
    selection = read(store, [(run, evaluation)])
    console = output()
    show(selection, console)
    console.print(f"in {store.run(run).path}{os.sep}; figures: `bnft report {run}`", markup=False, highlight=False)
    tell(selection)


def tell(selection: Selection) -> None:
    """Print the note on the selected results to standard error, if there is one."""
    if selection.note:
        notice(selection.note)
