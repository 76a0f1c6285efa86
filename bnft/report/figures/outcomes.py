"""Figure 3 of the paper: confidences and logits, on clean and adversarial images."""

from collections.abc import Mapping, Sequence
from math import log10

import altair as alt

from bnft.report.figures.base import (
    ALL_SEEDS,
    LANE_AXIS,
    ROW,
    Chart,
    Datasets,
    Figure,
    Panel,
    Rows,
    colour,
    seed_control,
)
from bnft.report.groups import Series
from bnft.report.outcomes import RowScores, ScoreHistograms, score_histograms

KIND_TITLES = {"clean": "clean images", "adversarial": "PGD examples"}
BINS = 24
TITLES = {"odds": "confidence", "logit": "logit"}
SHARES = {"odds": "images (%)", "logit": "logits (%)"}
CONFIDENCES = {  # the ticks of confidences, by their odds
    **{round(log10(one / (1 - one)), 4): str(one) for one in (0.1, 0.2, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)},
    **{float(power): f"1 − 1e-{power}" for power in range(6, 9)},
}


def figure3(
    series: Sequence[Series],
    scores: Mapping[str, RowScores],
    images: str,
    shown: Sequence[Series] | None = None,
) -> Figure | None:
    """Draw histograms of confidences and logits, as shares of all values.

    Args:
        series: the rows.
        scores: the scores of the rows, by label.
        images: the part of the caption that describes the images.
        shown: the rows that are shown at first, which determine the bins of logits; None for all.

    Returns:
        The figure; None if there are no scores.
    """
    sets = Datasets()
    drawn = [one for one in series if one.label in scores and scores[one.label].scores]
    if not drawn:
        return None
    first = [one.label for one in drawn if shown is None or one in shown] or [one.label for one in drawn]
    seeds = seed_control(seed for one in drawn for seed in scores[one.label].scores)
    values = {
        (one.label, seed): of_seed
        for one in drawn
        for seed, of_seed in {ALL_SEEDS: scores[one.label], **(scores[one.label].alone() if seeds else {})}.items()
    }
    leading = [of_seed for (label, _), of_seed in values.items() if label in first]
    panels = []
    for histograms in score_histograms(values, BINS, leading):
        for kind, title in KIND_TITLES.items():
            rows = _rows(histograms, kind)
            if rows:  # older results have no PGD examples
                chart = _histogram(sets, drawn, rows, histograms)
                name = f"{TITLES[histograms.quantity]}, {title}"
                panels.append(Panel(name, chart, lanes=SHARES[histograms.quantity]))
    caption = (
        "Confidence is the probability of the predicted class. Its axis shows how far it is from 1, on a logarithmic"
        " scale of odds: from 0.9 to 0.99, this distance becomes ten times smaller, and again from 0.99 to 0.999."
        f" Logits are those of all classes. The outermost bins also count values beyond them. {images}"
    )
    return Figure(
        "figure3",
        "Figure 3: confidence and logits",
        caption,
        tuple(panels),
        tuple(drawn),
        tuple(first),
        "area",
        seeds,
        height=44,
        wide=True,
        datasets=sets,
    )


def _rows(histograms: ScoreHistograms[tuple[str, str]], kind: str) -> Rows:
    """Return one dict per row and value of the control of seeds, with the share of each bin."""
    return [
        {
            "row": drawn.row[0],
            "seed": drawn.row[1],
            "share": [round(100 * count / drawn.values, 2) for count in drawn.counts],
        }
        for drawn in histograms.histograms
        if drawn.kind == kind and drawn.values
    ]


def _histogram(
    sets: Datasets, drawn: Sequence[Series], rows: Rows, histograms: ScoreHistograms[tuple[str, str]]
) -> Chart:
    quantity, low, high = histograms.quantity, histograms.edges[0], histograms.edges[-1]
    edge = f"{low} + {(high - low) / BINS} * (datum.i + {{0}})"
    axis = alt.Axis(tickCount=6, labelOverlap=True)
    if quantity == "odds":
        places, names = [*CONFIDENCES], [*CONFIDENCES.values()]
        axis = alt.Axis(values=places, labelOverlap="greedy", labelExpr=f"{names}[indexof({places}, datum.value)]")
    return (
        alt.Chart(sets.add(rows))
        .transform_calculate(i=f"sequence({BINS})")
        .transform_flatten(["share", "i"])
        .transform_calculate(x=edge.format(0), x2=edge.format(1))
        .mark_rect()
        .encode(
            x=alt.X("x:Q", title=TITLES[quantity], scale=alt.Scale(zero=False, nice=False), axis=axis),
            x2="x2:Q",
            y=alt.Y("share:Q", title=None, axis=LANE_AXIS),
            y2=alt.Y2Datum(0),
            color=colour(drawn),
            tooltip=[
                ROW,
                alt.Tooltip("x:Q", title="from", format=".2f"),
                alt.Tooltip("x2:Q", title="to", format=".2f"),
                alt.Tooltip("share:Q", title="%", format=".1f"),
            ],
        )
    )
