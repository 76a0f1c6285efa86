"""Claims about the distributions of BN quantities over channels, in each layer of two rows."""

import math
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnft.report.distributions import mean_difference
from bnft.report.recorded import Moments
from bnft.report.statement import COLLAPSED, Statement, Verdict, not_measured
from bnft.studies.study import Claim

Measure = Callable[[NDArray[np.float64]], float]

CONCENTRATIONS = {  # measure: the BN quantity, and the centre around which it is concentrated
    "mean_abs_gamma": ("gamma", 0.0),
    "mean_abs_gamma_minus_1": ("gamma", 1.0),  # BN is also written with a scale of 1 + gamma
    "mean_abs_beta": ("beta", 0.0),
}
_MOST = " in most layers"


def compared(claim: Claim, ours: Moments, theirs: Moments) -> Statement:
    """Compare the BN layers of two rows by the measure of a claim."""
    compare = {"variance_range": collapse, "mean_m": mean_m}.get(claim.measure, concentration)
    return compare(claim, ours, theirs)


def concentration(claim: Claim, ours: Moments, theirs: Moments) -> Statement:
    """Compare mean |x| and the standard deviation of x in each layer, where x is a BN quantity minus its centre."""
    quantity, centre = CONCENTRATIONS[claim.measure]
    name = f"{quantity} - {centre:g}" if centre else quantity
    measure = f"change of mean |{name}|, median over layers, %"
    measures: dict[str, Measure] = {"mean_size": lambda x: float(np.abs(x - centre).mean()), "deviation": _deviation}
    ratios = _ratios(ours, theirs, quantity, measures)
    sizes = [line["mean_size"] for line in ratios if line["mean_size"] is not None]
    if not sizes:
        return not_measured(claim, measure, f"{claim.row} and {claim.than}")
    deviations = [line["deviation"] for line in ratios if line["deviation"] is not None]
    relation = claim.relation.removesuffix(_MOST)
    sign = 1 if relation == "lower" else -1
    median = float(np.median(sizes))
    true, narrower = (sum(sign * x < sign for x in ratio) for ratio in (sizes, deviations))
    told = (
        f"mean |{name}| is {relation} than {claim.than}'s in {true} of {len(sizes)} layers (median ratio {median:.2f})"
    )
    if deviations:
        middle = float(np.median(deviations))
        told += f"; its standard deviation is {relation} in {narrower} of {len(deviations)} (median ratio {middle:.2f})"
    nearer, tighter = 2 * true > len(sizes), 2 * narrower > len(deviations)
    verdict: Verdict = "holds" if nearer and tighter else "holds in part" if nearer or tighter else "does not hold"
    return _of_ratios(claim, told, verdict, measure, median, ratios, true, len(sizes), seeds(ours, theirs))


def collapse(claim: Claim, ours: Moments, theirs: Moments) -> Statement:
    """Compare the interquartile range of the running variance in each layer."""
    measure = "change of the interquartile range, median over layers, %"
    measures = {"range": _range, "median": lambda x: float(np.median(x)), "deviation": _deviation}
    ratios = _ratios(ours, theirs, "variance", measures)
    widths = [line["range"] for line in ratios if line["range"] is not None]
    if not widths:
        return not_measured(claim, measure, f"{claim.row} and {claim.than}")
    median, true, narrower = float(np.median(widths)), sum(x < COLLAPSED for x in widths), sum(x < 1 for x in widths)
    middle = _median(ratios, "median")
    told = (
        f"the interquartile range is smaller than {claim.than}'s in {narrower} of {len(widths)} layers, and below"
        f" {COLLAPSED:g} times {claim.than}'s in {true} (median ratio {median:.2f})"
        f"{'' if middle is None else f'; the median ratio of the median variance is {middle:.2f}'}"
    )
    part: Verdict = "holds in part" if 2 * narrower > len(widths) else "does not hold"
    verdict: Verdict = "holds" if 2 * true > len(widths) else part
    return _of_ratios(claim, told, verdict, measure, median, ratios, true, len(widths), seeds(ours, theirs))


def _of_ratios(
    claim: Claim,
    told: str,
    verdict: Verdict,
    measure: str,
    median: float,
    ratios: list[dict[str, Any]],
    true: int,
    of: int,
    count: int,
) -> Statement:
    change = 100 * (median - 1)
    return Statement(claim, told, verdict, measure, change, details=tuple(ratios), true=true, of=of, seeds=count)


def mean_m(claim: Claim, ours: Moments, theirs: Moments) -> Statement:
    """Compare mean m (Equation 1), averaged over layers or in most layers."""
    measure, difference = "difference of mean m, mean over layers", mean_difference(ours, theirs)
    if difference is None:
        return not_measured(claim, measure, f"{claim.row} and {claim.than}")
    of, (low, high) = len(difference.layers), difference.interval
    relation = claim.relation.removesuffix(_MOST)
    spread = (
        f" ± {difference.deviation:.3f} over {len(difference.seeds)} seeds" if difference.deviation is not None else ""
    )
    sign = 1 if relation == "lower" else -1
    count = difference.lower if sign > 0 else sum(value > 0 for value in difference.differences)
    told = (
        f"{claim.row} minus {claim.than} is {difference.average:+.3f}{spread} on average over layers"
        f" (bootstrap over layers [{low:+.3f}, {high:+.3f}]); mean m is {relation} in {count} of {of} layers"
    )
    most = claim.relation.endswith(_MOST)
    true = 2 * count > of if most else sign * difference.average < 0
    below, above = (high < 0, low > 0) if sign > 0 else (low > 0, high < 0)
    decided = below if true else most or above
    details = [
        {"layer": layer, "difference": value}
        for layer, value in zip(difference.layers, difference.differences, strict=True)
    ]
    return Statement(
        claim,
        told,
        "not enough data" if not decided else "holds" if true else "does not hold",
        measure,
        difference.average,
        difference.interval,
        details=tuple(details),
        true=count,
        of=of,
        seeds=seeds(ours, theirs),
    )


def seeds(ours: Moments, theirs: Moments) -> int:
    """Return the number of seeds that two rows have in common, or that our row has if there are none."""
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
