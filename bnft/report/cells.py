"""What a table says of rows and claims, in words and cells that its formats share."""

from bnft.common.errors import show
from bnft.config.names import short
from bnft.report import claims, setting
from bnft.report.distributions import shift_of_m
from bnft.report.rows import Rate, Row, Selection, Study
from bnft.runs import identity
from bnft.studies import paper

HEADER = ("Model", "clean error %", "paper", "robust error %", "paper", "shift of m", "learn %", "seeds")
CLAIMS_TITLE = "The paper's claims, on our outcomes"
CLAIMS_HEADER = ("claim", "difference of errors", "paper", "verdict")
FLOOR = "†"  # before the robust error of a row that may be no better than a constant classifier

Labelled = tuple[Row, str, paper.PaperRow | None]


def heading(study: Study) -> str:
    """What a study is about, in one line."""
    evaluation = study.first.evaluation
    data = short(study.first.data.target)
    parameters = study.first.training.counts.parameters
    model = study.first.run.identity["model"]
    source = str(model.get(identity.SOURCE, ""))[: identity.HASH_LENGTH]  # of a model of a person's own
    own = f"{model['_target_']} as of source {source}, " if source else ""
    return f"Table 2 on {data}: {own}{parameters:,} parameters, {evaluation.norm} eps {show(evaluation.eps)}"


def labelled(study: Study) -> list[Labelled]:
    """Each row with its name, and the paper's row beside which it is set."""
    return [(row, label, study.published(row)) for row, label in zip(study.rows, study.labels(), strict=True)]


def notes(study: Study) -> list[str]:
    """What a reader must know of the numbers."""
    found = [
        f"In brackets: 95 % intervals (Wilson) for {_images(study)}. The paper's: {paper.CLEAN_IMAGES} clean,"
        f" {paper.ROBUST_IMAGES:,} robust."
    ]
    found += _floor(study)
    different = setting.of_study(study)
    if different:
        found.append(f"Not the paper's {' and '.join(different)}: compare the pattern, not absolute numbers.")
    beside = setting.note([(label, row) for row, label, published in labelled(study) if published])
    found += [beside] if beside else []
    warned = {warning for row in study.rows for result in row.results for warning in result.result.warnings}
    found += sorted(f"Note: {warning}" for warning in warned)
    return found


def _floor(study: Study) -> list[str]:
    """What the mark of a row means, if one has it."""
    floors = sorted({f"{row.mean('constant_error'):.1f}" for row in study.rows if row.at_floor})
    if not floors:
        return []
    return [
        f"{FLOOR} No better than a constant classifier as far as the interval tells: always predicting the most"
        f" frequent class has {' or '.join(floors)} % error on the attacked images, and no attack changes it."
    ]


def _images(study: Study) -> str:
    clean = sorted({row.clean.images for row in study.rows})
    robust = sorted({row.robust.images for row in study.rows})
    return f"{'/'.join(map(str, clean))} clean and {'/'.join(map(str, robust))} attacked images"


def cells(row: Row, label: str, published: paper.PaperRow | None) -> list[str]:
    """A line of the table, as HEADER has it."""
    return [
        label,
        _rate(row.clean, 2),
        f"{published.clean_error:.2f}" if published else "",
        f"{FLOOR} {_rate(row.robust, 1)}" if row.at_floor else _rate(row.robust, 1),
        f"{published.robust_error:.1f}" if published else "",
        _shift(row),
        f"{row.first.training.counts.share:.3f}",
        str(len(row.seeds)),
    ]


def _shift(row: Row) -> str:
    shift = shift_of_m(row)
    return "" if shift is None else f"{shift:+.3f}"


def claim_cells(item: claims.Tested) -> tuple[str, ...]:
    """A line of the table of claims, as CLAIMS_HEADER has it."""
    return item.claim.text, difference(item), f"{item.claim.paper_difference:+.1f}", claims.verdict_text(item)


def _rate(rate: Rate, digits: int) -> str:
    low, high = rate.interval
    spread = f" ± {rate.deviation:.{digits}f}" if rate.deviation is not None else ""
    return f"{rate.error:.{digits}f}{spread} [{low:.1f}, {high:.1f}]"


def difference(item: claims.Tested) -> str:
    """The difference that a claim is about, with its interval."""
    if item.difference is None:
        return "-"
    low, high = item.difference.interval
    return f"{item.difference.value:+.1f} [{low:+.1f}, {high:+.1f}]"


def missing(selection: Selection) -> str:
    """What was asked for and is not done; empty if nothing."""
    if not selection.missing:
        return ""
    return f"Not done yet: {', '.join(selection.missing)}. The command that asked for them goes on with them."
