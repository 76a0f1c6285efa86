"""The texts and cells of the tables of rows and claims, which all formats share."""

from collections.abc import Sequence

from bnft.common.errors import show
from bnft.config.names import short
from bnft.report import claims, setting
from bnft.report.distributions import shift_of_m
from bnft.report.rows import Rate, Row, Selection, Study
from bnft.report.statement import Statement
from bnft.runs import identity
from bnft.runs.bases import Member, unequal
from bnft.studies.study import Published

CLAIMS_TITLE = "The claims, tested on our results"
STATEMENTS_TITLE = "The claims about distributions, measured"
STATEMENTS_NOTE = (
    "Brackets contain 95 % bootstrap intervals over layers. The verdicts about distributions describe these runs. They"
    " are no tests of significance, and no p-value is adjusted for them."
)
STRONGEST = "strongest %"  # the column after the robust errors, if a row has a further attack
AGAIN = "To compute them, repeat the command that requested them."
FLOOR = "†"  # marks a row that may be no better than a constant classifier

WEAKER = {
    "quick": "(quick) marks robust errors by the quick attack. They are lower bounds: AutoAttack can find more.",
    "quick, curve": (
        "(quick, curve) marks robust errors within this eps by the quick attack, which begins with smaller values of"
        " eps. They are lower bounds, and can differ by some images from (quick)."
    ),
    "pgd": "(PGD) marks robust errors by PGD. They are lower bounds: AutoAttack usually finds more.",
}  # notes on rows by other attacks than AutoAttack, which are not compared with the paper

Labelled = tuple[Row, str, Published | None]


def heading(study: Study) -> str:
    """Return one line that names the study, the data, the model and the budget."""
    evaluation = study.first.evaluation
    data = short(study.first.data.target)
    parameters = study.first.training.counts.parameters
    model = study.first.run.identity["model"]
    source = str(model.get(identity.SOURCE, ""))[: identity.HASH_LENGTH]  # of a user's own model
    own = f"{model['_target_']} (source {source}), " if source else ""
    return f"{name(study)} on {data}: {own}{parameters:,} parameters, {evaluation.norm} eps {show(evaluation.eps)}"


def name(study: Study) -> str:
    """Return the title of the study."""
    return study.definition.title.rstrip("?") if study.definition else "Runs"


def labelled(study: Study) -> list[Labelled]:
    """Return each row with its label and the published errors that it is compared with, if any."""
    return [(row, label, study.published(row)) for row, label in zip(study.rows, study.labels(), strict=True)]


def header(study: Study) -> list[str]:
    """Return the names of the columns of a table."""
    paper = ["paper"] if study.has_published else []
    strongest = [STRONGEST] if has_strongest(study) else []
    return ["Model", "clean error %", *paper, "robust error %", *paper, *strongest, "shift of m", "learn %", "seeds"]


def claims_header(paper: bool) -> list[str]:
    """Return the names of the columns of the claims. `paper` is whether published differences are shown."""
    return ["claim", "difference of errors", *(["paper"] if paper else []), "verdict"]


def statements_header(paper: bool) -> list[str]:
    """Return the names of the columns of the claims about distributions."""
    return ["statement", "measure", "ours", *(["paper"] if paper else []), "verdict"]


def has_strongest(study: Study) -> bool:
    """Return whether a row was attacked by a further attack after AutoAttack."""
    return any(row.strongest is not None for row in study.rows)


def lines(study: Study) -> list[list[str]]:
    """Return the lines of the table, with the columns of `header`."""
    return [_line(study, row, label, published) for row, label, published in labelled(study)]


def _line(study: Study, row: Row, label: str, published: Published | None) -> list[str]:
    paper = study.has_published
    return [
        label,
        _rate(row.clean, 2),
        *([f"{published.clean_error:.2f}" if published else ""] if paper else []),
        f"{FLOOR} {_rate(row.robust, 1)}" if row.at_floor else _rate(row.robust, 1),
        *([f"{published.robust_error:.1f}" if published else ""] if paper else []),
        *([strongest(row)] if has_strongest(study) else []),
        shift(row),
        f"{row.first.training.counts.share:.3f}",
        str(len(row.seeds)),
    ]


def strongest(row: Row) -> str:
    """Return the robust error of a row after the further attack too; empty if it has none."""
    return "" if row.strongest is None else f"≥ {_rate(row.strongest, 1)}"


def notes(study: Study) -> list[str]:
    """Return the notes below a table, which explain its numbers."""
    texts = [f"Brackets contain 95 % intervals (Wilson) for {_images(study)}.{_published_images(study)}"]
    shown = {row.first.evaluation.shown_attack for row in study.rows}
    texts += [text for attack, text in WEAKER.items() if attack in shown]
    if has_strongest(study):
        texts.append(
            "Strongest is the robust error after a further attack on the images that AutoAttack has not broken."
            " It counts what either of them has broken. Published numbers and claims are about AutoAttack alone."
        )
    texts += _further(study) + _floor(study)
    if any(row.first.run.identity.get("base") for row in study.rows):
        texts.append(
            "The shift of m is how far mean m (Equation 1) of the BN layers has moved from that of the base, averaged"
            " over layers."
        )
    different = setting.of_study(study)
    if different:
        texts.append(
            f"These rows differ from the paper's in {_listed(different)}. Compare the pattern, not absolute numbers."
        )
    differences = setting.note([(label, row) for row, label, published in labelled(study) if published])
    texts += [differences] if differences else []
    texts += [f"Note: {text}" for text in unequal(_members(study))]
    warnings = {warning for row in study.rows for result in row.results for warning in result.result.warnings}
    texts += sorted(f"Note: {warning}" for warning in warnings)
    return texts


def _members(study: Study) -> list[Member]:
    return [
        Member(row.plain_title, stored.run_folder.name, stored.run.base, stored.run.identity)
        for row in study.rows
        for stored in row.results
    ]


def _published_images(study: Study) -> str:
    setting = study.definition.setting if study.definition else None
    if not study.has_published or setting is None or not (setting.clean_images and setting.robust_images):
        return ""
    return f" The paper uses {setting.clean_images} clean and {setting.robust_images:,} attacked images."


def _listed(items: Sequence[str]) -> str:
    """Join items as `a, b and c`."""
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))


def _further(study: Study) -> list[str]:
    """Say in which rows quick broke images that AutoAttack did not break, unless the table has both numbers."""
    counts = [
        (sum(result.further_by_preview for result in row.results), label)
        for row, label in zip(study.rows, study.labels(), strict=True)
        if row.strongest is None
    ]
    found = [f"{count} of {label}" for count, label in counts if count]
    if not found:
        return []
    return [
        f"The quick attack broke further images, which AutoAttack did not break: {', '.join(found)}."
        " evaluation=strongest reports both numbers."
    ]


def _floor(study: Study) -> list[str]:
    """Explain FLOOR, if a row has this mark."""
    floors = sorted({f"{row.mean('constant_error'):.1f}" for row in study.rows if row.at_floor})
    if not floors:
        return []
    return [
        f"{FLOOR} May be no better than a constant classifier, because the interval reaches its error. A constant"
        " classifier always predicts the most frequent class. Its error on the attacked images is"
        f" {' or '.join(floors)} % under any attack."
    ]


def _images(study: Study) -> str:
    clean = sorted({row.clean.images for row in study.rows})
    robust = sorted({row.robust.images for row in study.rows})
    return f"{'/'.join(map(str, clean))} clean and {'/'.join(map(str, robust))} attacked images"


def shift(row: Row) -> str:
    """Return the shift of m of a row; empty for a row without a base."""
    moved = shift_of_m(row)
    return "" if moved is None else f"{moved:+.3f}"


def claim_cells(item: claims.Tested, study: Study, paper: bool) -> list[str]:
    """Return one line of the table of claims, with the columns of `claims_header`."""
    shown = [claim_published(item, study)] if paper else []
    return [item.claim.text, difference(item), *shown, claims.verdict_text(item)]


def claim_published(item: claims.Tested, study: Study) -> str:
    """Return the published difference that a claim is about; empty if there is none."""
    value = claims.published(item.claim, study)
    return "" if value is None else f"{value:+.1f}"


def statement_cells(item: Statement, paper: bool) -> list[str]:
    """Return one line of the table of claims about distributions, with the columns of `statements_header`."""
    digits = 1 if item.measure.endswith("%") else 3
    ours, published = ("-" if value is None else f"{value:+.{digits}f}" for value in (item.difference, item.published))
    if item.interval is not None:
        ours += " [{:+.{digits}f}, {:+.{digits}f}]".format(*item.interval, digits=digits)
    return [item.text, item.measure, ours, *([published] if paper else []), item.verdict]


def has_published_claims(items: Sequence[claims.Tested], study: Study) -> bool:
    """Return whether a published difference can be shown beside one of our own."""
    return any(claims.published(item.claim, study) is not None for item in items)


def _rate(rate: Rate, digits: int) -> str:
    low, high = rate.interval
    spread = f" ± {rate.deviation:.{digits}f}" if rate.deviation is not None else ""
    return f"{rate.error:.{digits}f}{spread} [{low:.1f}, {high:.1f}]"


def difference(item: claims.Tested) -> str:
    """Return the difference that a claim is about, with its interval."""
    if item.difference is None:
        return "-"
    low, high = item.difference.interval
    return f"{item.difference.value:+.1f} [{low:+.1f}, {high:+.1f}]"


def missing(selection: Selection) -> str:
    """Return a text that names the requested runs that are not done; empty if all are done."""
    parts = [f"Not done yet: {', '.join(selection.missing)}."] if selection.missing else []
    if selection.previewed:
        parts.append(f"AutoAttack is not done yet, so (quick) is shown: {', '.join(selection.previewed)}.")
    return " ".join([*parts, AGAIN]) if parts else ""
