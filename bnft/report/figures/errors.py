"""Figures of robust error: against clean error, over eps, and after each attack."""

from collections.abc import Iterable
from typing import Any

import altair as alt

from bnft.report.figures.base import ROW, Datasets, Figure, Panel, Rows, colour, dash, shape
from bnft.report.groups import Group, Series
from bnft.report.rows import Rate, Row, Study
from bnft.report.style import looks


def scatter(group: Group) -> Figure | None:
    """Draw robust against clean error, with intervals and single seeds, and the paper's errors in a second panel."""
    sets = Datasets()
    rows: Rows = []
    seeds: Rows = []
    published: Rows = []
    for series in group.series:
        clean, robust = series.row.clean, series.row.robust
        rows.append({"row": series.label, **_rate("clean", clean), **_rate("robust", robust)})
        if len(series.row.results) > 1:
            seeds += [
                {
                    "row": series.label,
                    "seed": stored.seed,
                    "clean": stored.result.clean.error,
                    "robust": stored.result.robust.error,
                }
                for stored in series.row.results
            ]
        if series.published:
            row = series.published
            published.append({"row": series.label, "clean": row.clean_error, "robust": row.robust_error})
    tooltip = [
        ROW,
        *(alt.Tooltip(f"{name}:Q", format=".1f") for name in ("clean", "clean_low", "clean_high")),
        *(alt.Tooltip(f"{name}:Q", format=".1f") for name in ("robust", "robust_low", "robust_high")),
    ]
    most = max(row.get("clean_high", row["clean"]) for row in (*rows, *seeds, *published))
    scale = alt.Scale(domain=[0, most], nice=True)  # one for both panels
    x = alt.X("clean:Q", title="clean error (%)", scale=scale, axis=alt.Axis(tickCount=8))
    y = alt.Y("robust:Q", title="robust error (%)", scale=alt.Scale(domain=[0, 100]))
    shades, shapes = colour(group.series, lines=False), shape(group.series)
    base = alt.Chart(sets.add(rows))
    layers: list[alt.Chart] = [
        base.mark_rule(opacity=0.5).encode(
            x=alt.X("clean_low:Q", title="clean error (%)", scale=scale), x2="clean_high:Q", y=y, color=shades
        ),
        base.mark_rule(opacity=0.5).encode(
            x=x, y=alt.Y("robust_low:Q", title="robust error (%)"), y2="robust_high:Q", color=shades
        ),
        base.mark_point(filled=True, opacity=1).encode(x=x, y=y, color=shades, shape=shapes, tooltip=tooltip),
    ]
    if seeds:
        tip = [ROW, "seed:N", alt.Tooltip("clean:Q", format=".1f"), alt.Tooltip("robust:Q", format=".1f")]
        layers.append(
            alt.Chart(sets.add(seeds))
            .mark_point(filled=True, size=14, opacity=0.6)
            .encode(x=x, y=y, color=shades, tooltip=tip)
        )
    panels = [Panel("our runs", alt.layer(*layers))]
    if published:
        theirs = (
            alt.Chart(sets.add(published))
            .mark_point(filled=True, opacity=1)
            .encode(x=x, y=y, color=shades, shape=shapes, tooltip=[ROW, "clean:Q", "robust:Q"])
        )
        panels.append(Panel("the paper, on CIFAR-10", theirs))
    return Figure(
        "errors",
        "Robust against clean error",
        f"Lines are 95 % intervals: another sample of images could change the error this much. {_seeds(group)}",
        tuple(panels),
        group.series,
        height=300,
        wide=len(panels) > 1,
        datasets=sets,
    )


def over_eps(study: Study) -> Figure | None:
    """Draw robust error over eps, for rows that were evaluated within several budgets; None if there are none."""
    sets = Datasets()
    rows: Rows = []
    drawn = {}
    for group in _by_policy(study):
        by_budget = {row.budget: row for row in group if not _other_overrides(row)}
        norms = {norm for norm, _ in by_budget}
        if len(by_budget) < 2 or len(norms) > 1:
            continue
        first = group[0]
        label = first.first.run.title
        drawn[label] = first
        rows += [
            {"row": label, "eps": eps, **_rate("robust", row.robust)} for (_, eps), row in sorted(by_budget.items())
        ]
    if not rows:
        return None
    look = looks(row.policy for row in drawn.values())
    series = tuple(Series(label, row, look[row.policy]) for label, row in drawn.items())
    budgets = sorted({row["eps"] for row in rows})
    ticks = alt.Axis(values=budgets, format=".3~g", labelOverlap=True)
    x = alt.X("eps:Q", title="eps (pixel units)", axis=ticks, scale=alt.Scale(padding=12))
    y = alt.Y("robust:Q", title="robust error (%)", scale=alt.Scale(domain=[0, 100]))
    base = alt.Chart(sets.add(rows))
    line = base.mark_line(point=True).encode(
        x=x,
        y=y,
        color=colour(series),
        strokeDash=dash(series),
        tooltip=[ROW, "eps:Q", alt.Tooltip("robust:Q", format=".1f")],
    )
    rule = base.mark_rule(opacity=0.5).encode(x=x, y="robust_low:Q", y2="robust_high:Q", color=colour(series))
    caption = "The same models, evaluated within several budgets. Vertical lines are 95 % intervals."
    return Figure(
        "eps", "Robust error over eps", caption, (Panel("robust error", alt.layer(line, rule)),), series, datasets=sets
    )


def cascade(group: Group, steps: dict[str, list[dict[str, Any]]]) -> Figure | None:
    """Draw robust error after each attack of the cascade. `steps` is by label, from `outcomes.cascade`."""
    sets = Datasets()
    rows = [{"row": label, **step} for label, of_row in steps.items() for step in of_row]
    if not rows:
        return None
    order = list(dict.fromkeys(row["attack"] for row in rows))
    chart = (
        alt.Chart(sets.add(rows))
        .mark_line(point=alt.OverlayMarkDef(size=30))
        .encode(
            x=alt.X("attack:O", title=None, sort=order, axis=alt.Axis(labelAngle=0)),
            y=alt.Y("error:Q", title="robust error (%)", scale=alt.Scale(domain=[0, 100])),
            color=colour(group.series),
            strokeDash=dash(group.series),
            tooltip=[ROW, "attack:O", alt.Tooltip("error:Q", format=".1f")],
        )
    )
    caption = "Robust error after each attack. Each attack runs only on the images that no earlier attack has broken."
    return Figure(
        "cascade",
        "Cascade: robust error after each attack",
        caption,
        (Panel("robust error so far", chart),),
        group.series,
        wide=True,
        datasets=sets,
    )


def _rate(name: str, rate: Rate) -> dict[str, float]:
    low, high = rate.interval
    return {name: rate.error, f"{name}_low": low, f"{name}_high": high}


def _seeds(group: Group) -> str:
    counts = sorted({len(series.row.seeds) for series in group.series})
    if counts == [1]:
        return "Each row has one seed."
    return f"Large points are means over {'/'.join(map(str, counts))} seeds, and small points are single seeds."


def _by_policy(study: Study) -> Iterable[list[Row]]:
    by_policy: dict[str, list[Row]] = {}
    for row in study.rows:
        by_policy.setdefault(row.policy, []).append(row)
    return by_policy.values()


def _other_overrides(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row.overrides.items() if key != "evaluation.eps"}
