"""The content of the report's page, as plain values for its template: tables, texts and figures."""

from collections.abc import Sequence
from typing import Any, get_args

from bnft.report import cells, claims, costs
from bnft.report.drawing import Read
from bnft.report.figures.base import Figure
from bnft.report.gallery import Pair, gallery, pairs_of
from bnft.report.groups import groups
from bnft.report.page import drawn, picture
from bnft.report.rows import Quantity, Rate, Row, Selection, Study
from bnft.report.statement import COLLAPSED, Statement
from bnft.studies.measures import DISTRIBUTIONS
from bnft.studies.study import Published

AGAIN = "These are the same models with another evaluation. Their BN layers and training curves are shown above."
SELECTORS = {"all": "all", "batchnorm": "BN", "logits": "logits", "first_conv": "first convolution", "none": "none"}
THRESHOLDS = (
    "Papers give no thresholds for such claims. Here, most layers means more than half of them. A histogram collapses"
    f" if its interquartile range is below {COLLAPSED:g} of the other row's in most layers. It collapses in part if it"
    f" is narrower in most layers. The cross-entropy hardly changes if it changes by at most"
    f" {DISTRIBUTIONS['pgd_loss'].margin:.0f} %, unless the claim has another margin. For mean m, the interval of the"
    " average difference must also leave out zero. Otherwise, there is not enough data. No verdict is a test of"
    " significance."
)
STATISTICS = {"update": "updated", "frozen": "frozen", "reset": "reset, then updated"}


def content(selection: Selection, drawings: "Sequence[StudyDrawings]", title: str, summary: str) -> dict[str, Any]:
    """Return all values that the template shows. `drawings` has the figures of each study."""
    return {
        "title": title,
        "summary": summary,
        "missing": list(selection.missing),
        "previewed": list(selection.previewed),
        "note": selection.note,
        "asked": len(selection.missing) + len(selection.results),
        "thresholds": THRESHOLDS,
        "live": None,
        "studies": [_study(one, f"study{number}") for number, one in enumerate(drawings, start=1)],
    }


class StudyDrawings:
    """A study, its groups of rows, and their figures with the paths of their files."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.groups = [Read(group, study) for group in groups(study)]
        self.again: list[bool] = []  # whether all runs of a group are in earlier groups
        seen: set[str] = set()
        for read in self.groups:
            runs = {result.run_folder.name for series in read.group.series for result in series.row.results}
            self.again.append(runs <= seen)
            seen |= runs
        detailed = {series.label: series.row for series in self.groups[0].compared}
        self.pairs, self.unseen = gallery(detailed, pairs_of(list(detailed)))
        self.figures: list[list[tuple[Figure, str | None]]] = []
        self.common: list[tuple[Figure, str | None]] = []


def _study(drawings: StudyDrawings, place: str) -> dict[str, Any]:
    study, main = drawings.study, drawings.groups[0]
    colours = {id(series.row): series.look for read in drawings.groups for series in read.group.series}
    reproductions, spent = costs.reproductions(study), costs.costs(study)
    sweeps, notes = costs.sweeps(study)
    pairs = drawings.pairs
    tested = claims.tested(study)
    groups_shown = [
        {
            "id": f"{place}-group{number}",
            "title": read.group.title,
            "note": AGAIN if drawings.again[number - 1] else "",
            "figures": [drawn(figure, f"{place}-group{number}", files) for figure, files in figures],
        }
        for number, (read, figures) in enumerate(zip(drawings.groups, drawings.figures, strict=True), start=1)
    ]
    return {
        "id": place,
        "short": cells.heading(study).partition(":")[0],
        "heading": _sentence(cells.heading(study)),
        "table": cells.name(study),
        "paper": study.has_published,
        "paper_claims": cells.has_published_claims(tested, study),
        "paper_statements": any(one.published is not None for one in main.statements),
        "source": study.definition.source if study.definition else None,
        "rows": [
            {**_row(row, label, study.published(row)), "look": colours[id(row)]}
            for row, label in zip(study.rows, study.labels(), strict=True)
        ],
        "strongest": cells.has_strongest(study),
        "notes": cells.notes(study),
        "claims": [
            {
                "text": item.claim.text,
                "difference": cells.difference(item),
                "paper": cells.claim_published(item, study),
                "verdict": item.verdict,
                "qualification": item.qualification,
            }
            for item in tested
        ],
        "claims_title": cells.CLAIMS_TITLE,
        "claims_notes": claims.notes(tested),
        "statements": [_statement(one) for one in main.statements],
        "groups": groups_shown,
        "figures": [drawn(figure, place, files) for figure, files in drawings.common],
        "gallery": [_pair(pair) for pair in pairs if pair.pictures],
        "environment": _environment(study),
        "reproductions": [
            {
                "label": one.label,
                "run": one.run,
                "command": one.command if one.exact else f"{one.command} (see also the run's config.yaml)",
                "training": _seconds(cost.training),
                "evaluation": _seconds(cost.evaluation),
                "hardware": cost.hardware or "unknown",
            }
            for one, cost in zip(reproductions, spent, strict=False)
        ],
        "sweeps": sweeps[:10],
        "reading_notes": list(dict.fromkeys([*main.notes, *notes, *drawings.unseen])),
        "links": _links(place, groups_shown, any(pair.pictures for pair in pairs), bool(main.statements), bool(tested)),
    }


def _links(
    place: str, shown: list[dict[str, Any]], pictures: bool, stated: bool, claimed: bool
) -> list[dict[str, str]]:
    links = [("table", "Table", True), ("claims", "Claims", claimed), ("statements", "Distributions", stated)]
    shown_links = [{"id": f"{place}-{key}", "title": title} for key, title, is_shown in links if is_shown]
    shown_links += [{"id": one["id"], "title": one["title"].partition(":")[0]} for one in shown[0]["figures"]]
    shown_links += [{"id": f"{place}-gallery", "title": "Gallery"}] if pictures else []
    return [*shown_links, {"id": f"{place}-reproduce", "title": "Reproduce"}]


def _row(row: Row, label: str, published: Published | None) -> dict[str, Any]:
    counts, identity = row.first.training.counts, row.first.run.identity
    policy = identity["freeze_policy"]
    learning = counts.share
    changing = policy["statistics"] != "frozen" and not counts.learning
    return {
        "label": label,
        "clean": _rate(row.clean, 2),
        "robust": _rate(row.robust, 1),
        "floor": cells.FLOOR if row.at_floor else "",
        "strongest": _strongest(row),
        **{name: _percent(row.mean(name)) for name in get_args(Quantity)},
        "paper_clean": f"{published.clean_error:.2f}" if published else "",
        "paper_robust": f"{published.robust_error:.1f}" if published else "",
        "learning": f"{learning:.3f}",
        "share": f"({counts.statistics_share:.3f})" if changing else f"{learning:.3f}",
        "paper_share": _share(published, changing),
        "seeds": len(row.seeds),
        "shift": cells.shift(row),
        "start": _start(row),
        "examples": "PGD" if identity.get("attack") else "clean images",
        "parameters": ", ".join(SELECTORS.get(name, name) for name in policy["parameters"]),
        "statistics": STATISTICS[policy["statistics"]],
    }


def _share(published: Published | None, changing: bool) -> str:
    """Return the published share of learning parameters, in brackets if only statistics change."""
    if published is None or published.learning is None:
        return ""
    return f"({published.learning:.2f})" if changing else f"{published.learning:.2f}"


def _strongest(row: Row) -> str:
    """Return the error after a further attack, and the number of images that only this attack broke."""
    if row.strongest is None:
        return ""
    results = [stored.result for stored in row.results]
    only = sum(one.strongest.errors - one.robust.errors for one in results if one.strongest is not None)
    return f"≥ {row.strongest.error:.1f} (+{only} image{'s' * (only != 1)})"


def _rate(rate: Rate, digits: int) -> tuple[str, str, str, str]:
    """Return error, interval and deviation as texts."""
    low, high = rate.interval
    spread = "" if rate.deviation is None else f"{rate.deviation:.{digits}f}"
    return f"{rate.error:.{digits}f}", f"{low:.1f}", f"{high:.1f}", spread


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _start(row: Row) -> str:
    """Return what the runs of a row start from: the name of the base, or its policy if each seed has its own base."""
    if not row.first.run.identity.get("base"):
        return "scratch"
    bases = {stored.run.base for stored in row.results if stored.run.base is not None}
    if any(stored.run.base is None for stored in row.results):
        return "a file"
    return bases.pop() if len(bases) == 1 else " and ".join(sorted({base.rpartition("-")[0] for base in bases}))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _statement(one: Statement) -> dict[str, str]:
    shown = "" if one.published is None else f"{one.published:+.3f}"
    return {"text": one.text, "measured": one.measured, "paper": shown, "verdict": one.verdict}


def _pair(pair: Pair) -> dict[str, Any]:
    pictures = [
        {
            "index": one.index,
            "label": one.label,
            "largest": f"{one.largest:.3g}",
            "clean": picture(one.clean),
            "adversarial": picture(one.adversarial),
            "perturbation": picture(one.perturbation),
            "views": [
                {
                    "name": view.policy,
                    "clean": _class(view.clean_prediction, view.clean_confidence),
                    "adversarial": _class(view.adversarial_prediction, view.adversarial_confidence, view.fell_to),
                }
                for view in one.views
            ],
        }
        for one in pair.pictures
    ]
    title = f"Robust for {pair.stands}, broken for {pair.falls}"
    return {"title": f"{title}: {pair.count} of {pair.images} images", "pictures": pictures}


def _class(prediction: int | None, confidence: float | None, fell_to: str | None = None) -> str:
    if prediction is None or confidence is None:
        return "misclassified" if fell_to == "no attack" else "robust"
    return f"{prediction}, {100 * confidence:.0f} %"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def _environment(study: Study) -> str:
    versions = study.first.training.versions
    shown = ", ".join(f"{name} {value}" for name, value in versions.items())
    return f"Versions: {shown}. SHA-256 of the data: {study.first.data.sha256}."
