"""Figure 3 of the paper: confidences and logits, on clean and adversarial images."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from bnft.report.figures.base import Datasets, Figure, Panel, colour, dash
from bnft.report.groups import Series
from bnft.report.outcomes import ScoreHistograms

KIND_TITLES = {"clean": "clean images", "adversarial": "PGD examples"}


def figure3(series: Sequence[Series], quantities: Sequence[ScoreHistograms], images: str) -> Figure | None:
    """Draw histograms of confidences and logits, as shares of all values.

    Args:
        series: the rows.
        quantities: the histograms of confidences and of logits.
        images: the part of the caption that describes the images.

    Returns:
        The figure; None if there are no histograms.
    """
    sets = Datasets()
    if not quantities:
        return None
    shown = [one for one in series if any(drawn.row == one.label for drawn in quantities[0].histograms)]
    panels = []
    for histograms in quantities:
        for kind, title in KIND_TITLES.items():
            rows: list[dict[str, Any]] = []
            for drawn in histograms.histograms:
                if drawn.kind == kind and drawn.values:
                    shares = [100 * count / drawn.values for count in drawn.counts]
                    rows += [
                        {"row": drawn.row, "x": edge, "share": round(share, 3)}
                        for edge, share in zip(histograms.edges, [*shares, shares[-1]], strict=True)
                    ]
            if not rows:  # older results have no PGD examples
                continue
            chart = (
                alt.Chart(sets.add(rows))
                .mark_line(interpolate="step-after")
                .encode(
                    x=alt.X("x:Q", title=histograms.quantity, scale=alt.Scale(zero=False, nice=False)),
                    y=alt.Y("share:Q", title=_SHARES[histograms.quantity]),
                    color=colour(shown),
                    strokeDash=dash(shown),
                    tooltip=[
                        alt.Tooltip("row:N", title="row"),
                        alt.Tooltip("x:Q", title="from", format=".2f"),
                        alt.Tooltip("share:Q", title="%", format=".1f"),
                    ],
                )
            )
            panels.append(Panel(f"{histograms.quantity}, {title}", chart))
    caption = f"Confidence is the probability of the predicted class. Logits are those of all classes. {images}"
    return Figure(
        "figure3", "Figure 3: confidence and logits", caption, tuple(panels), tuple(shown), wide=True, datasets=sets
    )


_SHARES = {"confidence": "images (%)", "logit": "logits (%)"}
