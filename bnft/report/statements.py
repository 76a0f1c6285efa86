"""The paper's statements about distributions (section 3.3), measured on our runs.

The paper gives no thresholds. Ours are the constants below, and "most layers" means more than half of them. With
several seeds, each layer counts with its mean over the seeds that both rows have, or over all seeds if they share none.
A statement whose rows are missing is "not measured". A statement about a difference averaged over layers holds only if
the interval of the average leaves out zero. Otherwise there is "not enough data". The verdicts describe the given runs.
They are not tests of significance.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bnft.report import outcomes, recorded
from bnft.report.distributions import mean_difference
from bnft.report.groups import groups
from bnft.report.outcomes import QUANTITIES, Kind, RowScores, distance
from bnft.report.recorded import Moments, RowRecords
from bnft.report.rows import Row, Study

COMPARED = ("normal", "adv", "bn_params")  # the policies in the paper's figures
COLLAPSED = 0.5  # a spread below this fraction of the base's is a collapse
UNCHANGED = 0.1  # a relative change of the cross-entropy up to this counts as hardly a change
PAPER_DIFFERENCE = -0.177  # average difference of mean m (section 3.3)

Verdict = Literal["holds", "holds in part", "does not hold", "not enough data", "not measured"]
Measure = Callable[[NDArray[np.float64]], float]


@dataclass(frozen=True)
class Statement:
    """A statement of the paper, and whether it holds for our runs.

    Attributes:
        key: its name, as an identifier.
        text: the paper's statement in our words.
        measured: our measurements in words.
        verdict: whether it holds.
        measure: what `difference` is, with its unit.
        difference: our main number, of which zero means no difference.
        interval: its 95 % interval over layers, if it is an average over layers.
        margin: up to which difference values count as equal, in percent; None if the statement is not one of equality.
        images: the number of images; None for a statement about BN layers.
        paper: the paper's difference, if it gives one.
        details: a dict per layer with `layer` and our numbers. For histograms of scores, a dict per histogram with
            `quantity` and `kind`.
        true: the number of layers (or histograms) for which the statement is true.
        of: the number of all layers (or histograms).
        seeds: the number of seeds.
    """

    key: str
    text: str
    measured: str
    verdict: Verdict
    measure: str
    difference: float | None = None
    interval: tuple[float, float] | None = None
    margin: float | None = None
    images: int | None = None
    paper: float | None = None
    details: tuple[dict[str, Any], ...] = ()
    true: int | None = None
    of: int | None = None
    seeds: int = 0


def statements(
    records: Mapping[str, RowRecords], scores: Mapping[str, RowScores], rows: Mapping[str, Row]
) -> list[Statement]:
    """Return all statements.

    The BN layers of NORMAL are those of its row. For seeds that this row lacks, they are those that BN PARAMS started
    from.

    Args:
        records: the BN records by policy, from `recorded.read`.
        scores: the scores by policy, from `outcomes.read`.
        rows: the rows by policy.
    """
    tuned, adv = _ends(records, "bn_params"), _ends(records, "adv")
    normal = {**(records["bn_params"].bases if "bn_params" in records else {}), **_ends(records, "normal")}
    return [
        _concentration("gamma", tuned, normal),
        _concentration("gamma", tuned, normal, centre=1.0),
        _concentration("beta", tuned, normal),
        _collapse(tuned, normal),
        _lower("m_below_adv", "Mean m is lower for BN PARAMS than for ADV in most layers", "ADV", tuned, adv),
        _lower("m_below_normal", "Mean m is on average lower for BN PARAMS than for NORMAL", "NORMAL", tuned, normal),
        _resemblance(scores, rows),
        _unchanged_loss("bn_stats", "reset", rows),
        _unchanged_loss("bn_stats_no_reset", "no reset", rows),
    ]


def of_study(study: Study) -> list[Statement]:
    """Return the statements about the rows of the paper in a study; empty if none of them can be measured.

    The rows are those that the report compares in its first figures.
    """
    by_policy = groups(study)[0].by_policy
    rows = {policy: series.row for policy, series in by_policy.items() if series.row.paper}
    compared = {policy: row for policy, row in rows.items() if policy in COMPARED}
    records = {policy: recorded.read(row, most=2) for policy, row in compared.items()}
    scores = {policy: outcomes.read(row) for policy, row in compared.items()}
    return measured(statements(records, scores, rows))


def measured(found: list[Statement]) -> list[Statement]:
    """Return the statements; none if none of them is measured."""
    return found if any(one.verdict != "not measured" for one in found) else []


def _ends(records: Mapping[str, RowRecords], policy: str) -> Moments:
    return records[policy].ends if policy in records else {}


def _concentration(quantity: str, tuned: Moments, normal: Moments, centre: float = 0.0) -> Statement:
    """Test the concentration of `quantity` minus `centre`. BN is also written with a scale of 1 + gamma, hence 1.0."""
    name = f"{quantity} - {centre:g}" if centre else quantity
    text = f"{name} is more concentrated around zero in BN PARAMS than in NORMAL, in most layers"
    key = f"{quantity}_minus_{centre:g}_concentrated" if centre else f"{quantity}_concentrated"
    measure = f"change of mean |{name}|, median over layers, %"
    measures: dict[str, Measure] = {"mean_size": lambda x: float(np.abs(x - centre).mean()), "deviation": _deviation}
    ratios = _ratios(tuned, normal, quantity, measures)
    sizes = [line["mean_size"] for line in ratios if line["mean_size"] is not None]
    if not sizes:
        return _not_measured(key, text, measure, "BN PARAMS and NORMAL")
    deviations = [line["deviation"] for line in ratios if line["deviation"] is not None]
    median, true, narrower = float(np.median(sizes)), sum(x < 1 for x in sizes), sum(x < 1 for x in deviations)
    told = f"mean |{name}| is lower than NORMAL's in {true} of {len(sizes)} layers (median ratio {median:.2f})"
    if deviations:
        middle = float(np.median(deviations))
        told += f"; its standard deviation is lower in {narrower} of {len(deviations)} (median ratio {middle:.2f})"
    nearer, tighter = 2 * true > len(sizes), 2 * narrower > len(deviations)
    verdict: Verdict = "holds" if nearer and tighter else "holds in part" if nearer or tighter else "does not hold"
    return Statement(
        key,
        text,
        told,
        verdict,
        measure,
        100 * (median - 1),
        details=tuple(ratios),
        true=true,
        of=len(sizes),
        seeds=_seeds(tuned, normal),
    )


def _collapse(tuned: Moments, normal: Moments) -> Statement:
    key, text = "variance_collapses", "The histogram of the running variance collapses from NORMAL to BN PARAMS"
    measure = "change of the interquartile range, median over layers, %"
    measures = {"range": _range, "median": lambda x: float(np.median(x)), "deviation": _deviation}
    ratios = _ratios(tuned, normal, "variance", measures)
    widths = [line["range"] for line in ratios if line["range"] is not None]
    if not widths:
        return _not_measured(key, text, measure, "BN PARAMS and NORMAL")
    median, true, narrower = float(np.median(widths)), sum(x < COLLAPSED for x in widths), sum(x < 1 for x in widths)
    middle = _median(ratios, "median")
    told = (
        f"the interquartile range is smaller than NORMAL's in {narrower} of {len(widths)} layers, and below"
        f" {COLLAPSED:g} times NORMAL's in {true} (median ratio {median:.2f})"
        f"{'' if middle is None else f'; the median ratio of the median variance is {middle:.2f}'}"
    )
    part: Verdict = "holds in part" if 2 * narrower > len(widths) else "does not hold"
    verdict: Verdict = "holds" if 2 * true > len(widths) else part
    return Statement(
        key,
        text,
        told,
        verdict,
        measure,
        100 * (median - 1),
        details=tuple(ratios),
        true=true,
        of=len(widths),
        seeds=_seeds(tuned, normal),
    )


def _lower(key: str, text: str, other: str, tuned: Moments, theirs: Moments) -> Statement:
    measure, difference = "difference of mean m, mean over layers", mean_difference(tuned, theirs)
    if difference is None:
        return _not_measured(key, text, measure, f"BN PARAMS and {other}")
    of, (low, high) = len(difference.layers), difference.interval
    spread = (
        f" ± {difference.deviation:.3f} over {len(difference.seeds)} seeds" if difference.deviation is not None else ""
    )
    told = (
        f"BN PARAMS minus {other} is {difference.average:+.3f}{spread} on average over layers"
        f" (bootstrap over layers [{low:+.3f}, {high:+.3f}]); mean m is lower in {difference.lower} of {of} layers"
    )
    true = 2 * difference.lower > of if other == "ADV" else difference.average < 0
    decided = high < 0 if true else other == "ADV" or low > 0
    details = [
        {"layer": layer, "difference": value}
        for layer, value in zip(difference.layers, difference.differences, strict=True)
    ]
    verdict: Verdict = "not enough data" if not decided else "holds" if true else "does not hold"
    return Statement(
        key,
        text,
        told,
        verdict,
        measure,
        difference.average,
        difference.interval,
        paper=PAPER_DIFFERENCE,
        details=tuple(details),
        true=difference.lower,
        of=of,
        seeds=_seeds(tuned, theirs),
    )


def _resemblance(scores: Mapping[str, RowScores], rows: Mapping[str, Row]) -> Statement:
    key = "scores_resemble_adv"
    text = "Confidences and logits of BN PARAMS are distributed like those of ADV, on clean and adversarial images"
    measure = "Kolmogorov-Smirnov distance to ADV minus that to NORMAL, mean over histograms"
    details: list[dict[str, Any]] = []
    compared = ("bn_params", "adv", "normal")
    if set(compared) <= scores.keys() and len({rows[policy].budget for policy in compared if policy in rows}) == 1:
        tuned, adv, normal = scores["bn_params"], scores["adv"], scores["normal"]
        kinds: tuple[Kind, ...] = ("clean", "adversarial")
        for quantity, kind in ((quantity, kind) for quantity in QUANTITIES for kind in kinds):
            ours = tuned.values(quantity, kind)
            to_adv, to_normal = (distance(ours, row.values(quantity, kind)) for row in (adv, normal))
            if to_adv is not None and to_normal is not None:
                details.append({"quantity": quantity, "kind": kind, "to_adv": to_adv, "to_normal": to_normal})
    if not details:
        whose = "BN PARAMS, ADV and NORMAL, attacked within one budget"
        return _not_measured(key, text, measure, whose, "scores of images")
    true = sum(line["to_adv"] < line["to_normal"] for line in details)
    distances = ", ".join(
        f"{line['to_adv']:.2f} and {line['to_normal']:.2f} ({line['quantity']}s, {line['kind']} images)"
        for line in details
    )
    told = (
        f"Kolmogorov-Smirnov distances to ADV and to NORMAL: {distances};"
        f" BN PARAMS is closer to ADV in {true} of {len(details)} cases"
    )
    verdict: Verdict = "holds" if true == len(details) else "holds in part" if true else "does not hold"
    return Statement(
        key,
        text,
        told,
        verdict,
        measure,
        fmean(line["to_adv"] - line["to_normal"] for line in details),
        images=min(len(one.clean) for policy in compared for one in scores[policy].scores.values()),
        details=tuple(details),
        true=true,
        of=len(details),
        seeds=len(scores["bn_params"].scores),
    )


def _unchanged_loss(policy: str, how: str, rows: Mapping[str, Row]) -> Statement:
    key = f"pgd_loss_{policy}"
    text = f"The cross-entropy on PGD examples hardly changes from NORMAL to BN STATS ({how})"
    measure, whose = "change of the cross-entropy, %", f"BN STATS ({how}) and NORMAL"
    ours, before = rows.get(policy), rows.get("normal")
    if ours is None or before is None or ours.budget != before.budget:
        return _not_measured(key, text, measure, f"{whose}, attacked within one budget", "results")
    after, start = pgd_losses(ours), pgd_losses(before)
    common = after.keys() & start.keys()
    if not after or not start:
        return _not_measured(key, text, measure, whose, "cross-entropy on PGD examples")
    loss, base = (fmean(x[seed] for seed in common or x) for x in (after, start))
    change = (loss - base) / base if base else math.inf
    told = f"{base:.3f} for NORMAL, {loss:.3f} for BN STATS ({how}), a change of {100 * change:+.1f} %"
    if "adv" in rows and rows["adv"].budget == before.budget and (adv := pgd_losses(rows["adv"])):
        told += f"; {fmean(adv.values()):.3f} for ADV"
    verdict: Verdict = "holds" if abs(change) <= UNCHANGED else "does not hold"
    return Statement(
        key,
        text,
        told,
        verdict,
        measure,
        100 * change if math.isfinite(change) else None,
        margin=100 * UNCHANGED,
        images=min(ours.robust.images, before.robust.images),
        details=({"before": base, "after": loss},),
        seeds=len(common) or len(after),
    )


def pgd_losses(row: Row) -> dict[int, float]:
    """Return the mean cross-entropy on PGD examples by seed, for the results that have it."""
    kept = {stored.seed: stored.result.pgd_loss for stored in row.results}
    return {seed: loss for seed, loss in kept.items() if loss is not None and math.isfinite(loss)}


def _not_measured(key: str, text: str, measure: str, rows: str, what: str = "records of BN layers") -> Statement:
    return Statement(key, text, f"requires {what} of {rows}", "not measured", measure)


def _seeds(ours: Moments, theirs: Moments) -> int:
    return len(ours.keys() & theirs.keys()) or len(ours)


def _ratios(ours: Moments, theirs: Moments, quantity: str, measures: Mapping[str, Measure]) -> list[dict[str, Any]]:
    """Return our measure divided by theirs, for each layer that both have; None if the ratio is undefined."""
    common = sorted(ours.keys() & theirs.keys())
    sides = [[side[seed] for seed in common or side] for side in (ours, theirs)]
    if not all(sides):
        return []
    every = [moment.record.layers for side in sides for moment in side]
    lines = []
    for layer in (layer for layer in every[0] if all(layer in layers for layers in every)):
        values = [[moment.values(layer, quantity) for moment in side] for side in sides]
        line: dict[str, Any] = {"layer": layer}
        for name, measure in measures.items():
            with np.errstate(all="ignore"):
                first, second = (fmean(map(measure, side)) for side in values)
            ratio = first / second if second else math.nan
            line[name] = ratio if math.isfinite(ratio) else None
        lines.append(line)
    return lines


def _median(lines: list[dict[str, Any]], name: str) -> float | None:
    values = [line[name] for line in lines if line[name] is not None]
    return float(np.median(values)) if values else None


def _deviation(values: NDArray[np.float64]) -> float:
    return float(values.std())


def _range(values: NDArray[np.float64]) -> float:
    """Return the interquartile range."""
    low, high = np.percentile(values, [25, 75]).tolist()
    return high - low
