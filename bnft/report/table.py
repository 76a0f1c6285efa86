"""Table 2, ours beside the paper's, in the terminal and as md, csv, tex and json."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnft.common.console import notice
from bnft.common.errors import show as shown
from bnft.config.names import short
from bnft.report import claims
from bnft.report.rows import Rate, Row, Selection, Study, read, select
from bnft.runs import identity
from bnft.runs.result import plain
from bnft.runs.store import Store
from bnft.studies import paper

FORMATS = ("terminal", "md", "csv", "tex", "json")
PLAIN_WIDTH = 132  # where the output is no terminal
HEADER = ("Model", "clean error %", "paper", "robust error %", "paper", "learn %", "seeds")


def render(selection: Selection, form: str) -> str:
    """The selected results in one of FORMATS, without colours."""
    if form == "json":
        rows = [fields(*labelled) for study in selection.studies() for labelled in _labelled(study)]
        return json.dumps(rows, indent=1) + "\n"
    if form == "csv":
        return _csv(selection)
    if form == "tex":
        return "\n".join(_tex(study) for study in selection.studies())
    if form == "md":
        return "\n".join(_markdown(study) for study in selection.studies()) + _missing(selection)
    output = io.StringIO()
    show(selection, Console(file=output, width=PLAIN_WIDTH, color_system=None))
    return output.getvalue()


def show(selection: Selection, console: Console) -> None:
    """Print tables, claims and what is missing."""
    for study in selection.studies():
        table = Table(title=heading(study), title_justify="left", title_style="bold", pad_edge=False)
        for position, name in enumerate(HEADER):
            table.add_column(name, justify="left" if position == 0 else "right", overflow="fold")
        for labelled in _labelled(study):
            table.add_row(*map(Text, _cells(*labelled)))  # as text, since a label's brackets are no markup
        console.print(table)
        for note in notes(study):
            console.print(note, style="dim", markup=False, highlight=False)
        _show_claims(study, console)
    if _missing(selection):
        console.print(_missing(selection), markup=False, highlight=False)


def _show_claims(study: Study, console: Console) -> None:
    found = claims.tested(study)
    if not found:
        return
    table = Table(title="The paper's claims, on our outcomes", title_justify="left", title_style="bold", pad_edge=False)
    for name in ("claim", "difference of robust errors", "paper", "verdict"):
        table.add_column(name, justify="left" if name in ("claim", "verdict") else "right")
    styles = {"holds": "green", "does not hold": "red", "not enough data": "yellow"}
    for item in found:
        table.add_row(item.claim.text, difference(item), f"{item.paper_difference:+.1f}", item.verdict)
        table.rows[-1].style = styles[item.verdict]
    console.print(table)


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


def heading(study: Study) -> str:
    """What a study is about, in one line."""
    evaluation = study.first.evaluation
    data = short(study.first.data.target)
    parameters = study.first.training.counts.parameters
    model = study.first.run.identity["model"]
    source = str(model.get(identity.SOURCE, ""))[: identity.HASH_LENGTH]  # of a model of a person's own
    own = f"{model['_target_']} as of source {source}, " if source else ""
    return f"Table 2 on {data}: {own}{parameters:,} parameters, {evaluation.norm} eps {shown(evaluation.eps)}"


def notes(study: Study) -> list[str]:
    """What a reader must know of the numbers."""
    found = [
        f"In brackets: 95 % intervals (Wilson) for {_images(study)}. The paper's: {paper.CLEAN_IMAGES} clean,"
        f" {paper.ROBUST_IMAGES:,} robust."
    ]
    different = study.differences_from_paper()
    if different:
        found.append(f"Not the paper's {' and '.join(different)}: compare the pattern, not absolute numbers.")
    warned = {warning for row in study.rows for result in row.results for warning in result.result.warnings}
    found += sorted(f"Note: {warning}" for warning in warned)
    return found


def _images(study: Study) -> str:
    clean = sorted({row.clean.images for row in study.rows})
    robust = sorted({row.robust.images for row in study.rows})
    return f"{'/'.join(map(str, clean))} clean and {'/'.join(map(str, robust))} attacked images"


def _labelled(study: Study) -> list[tuple[Row, str, paper.PaperRow | None]]:
    """Each row with its name, and the paper's row beside which it is set."""
    return [(row, label, study.published(row)) for row, label in zip(study.rows, study.labels(), strict=True)]


def _cells(row: Row, label: str, published: paper.PaperRow | None) -> list[str]:
    return [
        label,
        _rate(row.clean, 2),
        f"{published.clean_error:.2f}" if published else "",
        _rate(row.robust, 1),
        f"{published.robust_error:.1f}" if published else "",
        f"{row.first.training.counts.share:.3f}",
        str(len(row.seeds)),
    ]


def _rate(rate: Rate, digits: int) -> str:
    low, high = rate.interval
    spread = f" ± {rate.deviation:.{digits}f}" if rate.deviation is not None else ""
    return f"{rate.error:.{digits}f}{spread} [{low:.1f}, {high:.1f}]"


def difference(item: claims.Tested) -> str:
    if item.difference is None:
        return "-"
    middle, low, high = item.difference
    return f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]"


def _missing(selection: Selection) -> str:
    if not selection.missing:
        return ""
    return f"Not done yet: {', '.join(selection.missing)}. The command that asked for them goes on with them."


def fields(row: Row, label: str, published: paper.PaperRow | None) -> dict[str, Any]:
    """One row as a JSON object; errors in percent."""
    first = plain(row.first)
    return {
        "policy": row.policy,
        "label": label,
        "overrides": row.overrides,
        "clean_error": row.clean.error,
        "clean_interval": list(row.clean.interval),
        "clean_sd": row.clean.deviation,
        "clean_images": row.clean.images,
        "robust_error": row.robust.error,
        "robust_interval": list(row.robust.interval),
        "robust_sd": row.robust.deviation,
        "robust_images": row.robust.images,
        "seeds": row.seeds,
        "paper": {"clean_error": published.clean_error, "robust_error": published.robust_error} if published else None,
        "learning_percent": row.first.training.counts.share,
        "parameters": row.first.training.counts.parameters,
        "evaluation": first["evaluation"],
        "data": first["data"],
        "sources": row.first.run.sources,
        "runs": [result.run_folder.name for result in row.results],
        "seconds": sum(result.result.seconds + (result.result.training.seconds or 0.0) for result in row.results),
        "warnings": sorted({warning for result in row.results for warning in result.result.warnings}),
    }


def _csv(selection: Selection) -> str:
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    names: tuple[str, ...] = (
        "policy",
        "label",
        "clean_error",
        "clean_low",
        "clean_high",
        "clean_sd",
        "clean_images",
        "robust_error",
    )
    names += ("robust_low", "robust_high", "robust_sd", "robust_images", "seeds", "paper_clean", "paper_robust")
    writer.writerow(names)
    for study in selection.studies():
        for labelled in _labelled(study):
            entry = fields(*labelled)
            published = entry["paper"] or {}
            values = {
                **entry,
                "clean_low": entry["clean_interval"][0],
                "clean_high": entry["clean_interval"][1],
                "robust_low": entry["robust_interval"][0],
                "robust_high": entry["robust_interval"][1],
                "seeds": " ".join(map(str, entry["seeds"])),
                "paper_clean": published.get("clean_error"),
                "paper_robust": published.get("robust_error"),
            }
            writer.writerow([values[name] for name in names])
    return output.getvalue()


def _markdown(study: Study) -> str:
    lines = [f"**{heading(study)}**", "", _pipes(HEADER), _pipes(["---", *["---:"] * (len(HEADER) - 1)])]
    lines += [_pipes([cell.replace("|", "\\|") for cell in _cells(*labelled)]) for labelled in _labelled(study)]
    lines += ["", *notes(study), ""]
    found = claims.tested(study)
    if found:
        lines += [_pipes(("claim", "difference of robust errors", "paper", "verdict")), _pipes(["---"] * 4)]
        lines += [
            _pipes((item.claim.text, difference(item), f"{item.paper_difference:+.1f}", item.verdict)) for item in found
        ]
    return "\n".join(lines) + "\n"


def _pipes(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


_TEX_SPECIAL = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


def _tex(study: Study) -> str:
    """A table for LaTeX with the package booktabs."""
    lines = [f"% {heading(study)}; needs \\usepackage{{booktabs}}", r"\begin{tabular}{lrrrr}", r"\toprule"]
    lines += [r"& \multicolumn{2}{c}{clean error (\%)} & \multicolumn{2}{c}{robust error (\%)} \\"]
    lines += [r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}", r"Model & ours & paper & ours & paper \\", r"\midrule"]
    for labelled in _labelled(study):
        cells = [cell.translate(_TEX_SPECIAL).replace("±", r"$\pm$") for cell in _cells(*labelled)[:5]]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [f"% {note}" for note in notes(study)]
    return "\n".join(lines) + "\n"
