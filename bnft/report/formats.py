"""Tables as md, csv, tex and json."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from bnft.report import claims, setting, statements
from bnft.report.cells import (
    CLAIMS_TITLE,
    FLOOR,
    STATEMENTS_NOTE,
    STATEMENTS_TITLE,
    claim_cells,
    claims_header,
    has_published_claims,
    has_strongest,
    header,
    heading,
    labelled,
    lines,
    missing,
    notes,
    statement_cells,
    statements_header,
)
from bnft.report.distributions import shift_of_m
from bnft.report.rows import Row, Selection, Study
from bnft.report.statement import Statement
from bnft.runs.result import plain
from bnft.studies.study import Published


def as_json(selection: Selection) -> str:
    """Return `{"rows": [...], "claims": [...]}` of all studies, with errors in percent and differences in points."""
    studies = selection.studies()
    rows = [fields(*line) for study in studies for line in labelled(study)]
    return json.dumps({"rows": rows, "claims": _claims(studies)}, indent=1) + "\n"


def _claims(studies: Iterable[Study]) -> list[dict[str, Any]]:
    """Return the claims about errors of each study, then its statements about distributions, as JSON objects."""
    found = []
    for study in studies:
        found += [_claim(item, study) for item in claims.tested(study)]
        found += [_statement(item, study) for item in statements.of_study(study)]
    return found


def _claim(item: claims.Tested, study: Study) -> dict[str, Any]:
    """Return one claim about errors as a JSON object."""
    difference = item.difference
    return {
        "text": item.claim.text,
        "verdict": item.verdict,
        "qualification": item.qualification or None,
        "difference": difference.value if difference else None,
        "interval": list(difference.interval) if difference else None,
        "seeds": difference.seeds if difference else 0,
        "images": difference.images if difference else 0,
        "margin": item.claim.equal_below,
        "adjusted_p": item.adjusted_p,
        "paper": claims.published(item.claim, study),
        "measure": "difference of errors, points",
        "measured": None,
        "study": heading(study),
    }


def _statement(item: Statement, study: Study) -> dict[str, Any]:
    """Return one statement about distributions as a JSON object with the keys of a claim."""
    return {
        "text": item.text,
        "verdict": item.verdict,
        "qualification": None,
        "difference": item.difference,
        "interval": list(item.interval) if item.interval else None,
        "seeds": item.seeds,
        "images": item.images,
        "margin": item.margin,
        "adjusted_p": None,  # it is not a test
        "paper": item.published,
        "measure": item.measure,
        "measured": item.measured,
        "study": heading(study),
    }


def fields(row: Row, label: str, published: Published | None) -> dict[str, Any]:
    """Return one row as a JSON object, with errors in percent."""
    first = plain(row.first)
    return {
        "policy": row.policy,
        "title": row.plain_title,
        "label": label,
        "study": row.place.study.name if row.place else None,
        "overrides": row.first.run.overrides,
        "clean_error": row.clean.error,
        "clean_interval": list(row.clean.interval),
        "clean_sd": row.clean.deviation,
        "clean_images": row.clean.images,
        "clean_error_900": row.mean("clean_error_900"),
        "attack": row.attack,
        "robust_error": row.robust.error,
        "robust_interval": list(row.robust.interval),
        "robust_sd": row.robust.deviation,
        "robust_images": row.robust.images,
        "curve": [
            {"eps": eps, "error": rate.error, "interval": list(rate.interval), "sd": rate.deviation}
            | {"images": rate.images}
            for eps, rate in row.curve.items()
        ]
        or None,
        "strongest_error": row.strongest.error if row.strongest else None,
        "robust_error_correct": row.mean("robust_error_correct"),
        "constant_error": row.mean("constant_error"),
        "largest_class": row.mean("largest_class"),
        "at_floor": row.at_floor,
        "shift_of_m": shift_of_m(row),
        "seeds": row.seeds,
        "paper": {"clean_error": published.clean_error, "robust_error": published.robust_error} if published else None,
        "differences": {
            key: {"ours": ours, "paper": theirs} for key, (ours, theirs) in setting.differences(row).items()
        },
        "learning_percent": row.first.training.counts.share,
        "parameters": row.first.training.counts.parameters,
        "evaluation": first["evaluation"],
        "data": first["data"],
        "sources": row.first.run.sources,
        "runs": [result.run_folder.name for result in row.results],
        "seconds": sum(result.result.seconds + (result.result.training.seconds or 0.0) for result in row.results),
        "warnings": sorted({warning for result in row.results for warning in result.result.warnings}),
    }


_ROW: list[str] = ["policy", "title", "label", "clean_error", "clean_low", "clean_high", "clean_sd", "clean_images"]
_ROW += ["clean_error_900", "attack", "robust_error", "robust_low", "robust_high", "robust_sd", "robust_images"]
_ROW += [
    "strongest_error",
    "robust_error_correct",
    "constant_error",
    "largest_class",
    "at_floor",
    "shift_of_m",
    "seeds",
]
_ROW += ["paper_clean", "paper_robust", "differences"]
_CLAIM = ["verdict", "qualification", "difference", "difference_low", "difference_high", "images", "margin"]
_CLAIM += ["adjusted_p", "paper_difference", "measure", "measured"]


def as_csv(selection: Selection) -> str:
    """Return one table of rows and claims. The column `kind` distinguishes them, and `label` of a claim is its text."""
    output = io.StringIO()
    writer = csv.DictWriter(output, ("kind", *_ROW, *_CLAIM), restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    studies = selection.studies()
    writer.writerows(_csv_row(fields(*line), line[0]) for study in studies for line in labelled(study))
    writer.writerows(map(_csv_claim, _claims(studies)))
    return output.getvalue()


def _csv_row(entry: dict[str, Any], row: Row) -> dict[str, Any]:
    published = entry["paper"] or {}
    (clean_low, clean_high), (robust_low, robust_high) = entry["clean_interval"], entry["robust_interval"]
    return {
        **entry,
        "kind": "row",
        "clean_low": clean_low,
        "clean_high": clean_high,
        "robust_low": robust_low,
        "robust_high": robust_high,
        "seeds": " ".join(map(str, entry["seeds"])),
        "paper_clean": published.get("clean_error"),
        "paper_robust": published.get("robust_error"),
        "differences": "; ".join(setting.told(setting.differences(row))),
    }


def _csv_claim(entry: dict[str, Any]) -> dict[str, Any]:
    low, high = entry["interval"] or (None, None)
    fields = {"kind": "claim", "label": entry["text"], "paper_difference": entry["paper"]}
    return {**entry, **fields, "difference_low": low, "difference_high": high}


def as_markdown(selection: Selection) -> str:
    return "\n".join(_markdown(study) for study in selection.studies()) + missing(selection)


def _markdown(study: Study) -> str:
    columns = header(study)
    text = [f"**{heading(study)}**", "", *_pipes(columns, f"l{'r' * (len(columns) - 1)}", lines(study))]
    text += ["", *notes(study), ""]
    tested = claims.tested(study)
    if tested:
        paper = has_published_claims(tested, study)
        columns = claims_header(paper)
        cells = [claim_cells(item, study, paper) for item in tested]
        text += [*_pipes(columns, f"l{'r' * (len(columns) - 2)}l", cells), "", *claims.notes(tested)]
    return "\n".join(text) + "\n"


def _pipes(header: Sequence[str], sides: str, lines: Iterable[Sequence[str]]) -> list[str]:
    """Return a table in Markdown. `sides` has `l` or `r` for each column, as in LaTeX."""
    rows = [header, ["---" if side == "l" else "---:" for side in sides], *lines]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


_TEX_SPECIAL = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        FLOOR: r"$\dagger$",
        "≥": r"$\geq$",
    }
)


def as_tex(selection: Selection) -> str:
    """Return tables for LaTeX, which need the package booktabs."""
    return "\n".join(_tex(study) for study in selection.studies())


def _tex(study: Study) -> str:
    paper = study.has_published
    extra = has_strongest(study)
    clean, robust = 1 + paper, 1 + paper + extra
    columns = 1 + clean + robust
    text = [f"% {heading(study)}; needs \\usepackage{{booktabs}}", rf"\begin{{tabular}}{{l{'r' * (columns - 1)}}}"]
    text += [
        r"\toprule",
        rf"& \multicolumn{{{clean}}}{{c}}{{clean error (\%)}} & \multicolumn{{{robust}}}{{c}}{{robust error (\%)}} \\",
    ]
    text += [rf"\cmidrule(lr){{2-{1 + clean}}} \cmidrule(lr){{{2 + clean}-{columns}}}"]
    ours = ["ours", *(["paper"] if paper else [])]
    text += [_tex_line(["Model", *ours, *ours, *(["strongest"] if extra else [])]), r"\midrule"]
    text += [_tex_line(line[:columns]) for line in lines(study)]
    text += [r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in notes(study))]
    tested = claims.tested(study)
    if tested:
        paper = has_published_claims(tested, study)
        names = claims_header(paper)
        sides = f"l{'r' * (len(names) - 2)}l"
        text += ["", f"% {CLAIMS_TITLE}", rf"\begin{{tabular}}{{{sides}}}", r"\toprule", _tex_line(names), r"\midrule"]
        text += [_tex_line(claim_cells(item, study, paper)) for item in tested]
        text += [r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in claims.notes(tested))]
    stated = statements.of_study(study)
    if stated:
        paper = any(one.published is not None for one in stated)
        names = statements_header(paper)
        column = r"p{0.25\linewidth}"
        text += [
            "",
            f"% {STATEMENTS_TITLE}",
            rf"\begin{{tabular}}{{{2 * column}{'r' * (len(names) - 3)}l}}",
            r"\toprule",
        ]
        text += [_tex_line(names), r"\midrule", *(_tex_line(statement_cells(item, paper)) for item in stated)]
        text += [r"\bottomrule", r"\end{tabular}", f"% {STATEMENTS_NOTE}"]
    return "\n".join(text) + "\n"


def _tex_line(line: Sequence[str]) -> str:
    return " & ".join(cell.translate(_TEX_SPECIAL) for cell in line) + r" \\"
