"""Figures of errors under attack: against clean error, over eps, and after each attack."""

from collections.abc import Iterable
from typing import Any

import altair as alt

from bnft.report.figures.base import ROW, Datasets, Figure, Panel, Rows, colour, dash, shape
from bnft.report.groups import Group, Series
from bnft.report.rows import Rate, Row, Study
from bnft.report.style import looks


def scatter(group: Group) -> Figure | None:
    """Robust against clean error, with intervals; each seed small beside its row, the paper's beside ours."""
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
    panels = [Panel("ours", alt.layer(*layers))]
    if published:
        theirs = (
            alt.Chart(sets.add(published))
            .mark_point(filled=True, opacity=1)
            .encode(x=x, y=y, color=shades, shape=shapes, tooltip=[ROW, "clean:Q", "robust:Q"])
        )
        panels.append(Panel("the paper's, on CIFAR-10", theirs))
    return Figure(
        "errors",
        "Robust against clean error",
        f"Lines are 95 % intervals: how far another sample of images could move the number. {_seeds(group)}",
        tuple(panels),
        group.series,
        height=300,
        wide=len(panels) > 1,
        datasets=sets,
    )


def over_eps(study: Study) -> Figure | None:
    """Robust error over the budget, where rows were evaluated within several."""
    sets = Datasets()
    rows: Rows = []
    drawn = {}
    for group in _by_policy(study):
        found = {row.budget: row for row in group if not _other_overrides(row)}
        norms = {norm for norm, _ in found}
        if len(found) < 2 or len(norms) > 1:
            continue
        first = group[0]
        label = first.first.run.title
        drawn[label] = first
        rows += [{"row": label, "eps": eps, **_rate("robust", row.robust)} for (_, eps), row in sorted(found.items())]
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
    caption = "The same models, evaluated within several budgets. Lines are 95 % intervals."
    return Figure(
        "eps", "Robust error over eps", caption, (Panel("robust error", alt.layer(line, rule)),), series, datasets=sets
    )


def cascade(group: Group, steps: dict[str, list[dict[str, Any]]]) -> Figure | None:
    """Robust error after each attack of the cascade; `steps` has each label's, from `outcomes.cascade`."""
    sets = Datasets()
    rows = [{"row": label, **step} for label, found in steps.items() for step in found]
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
    caption = "Robust error after each attack: each is run only on the images that withstood those before it."
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
        return "One seed a row."
    return f"Large points are means over {'/'.join(map(str, counts))} seeds, small ones the seeds themselves."


def _by_policy(study: Study) -> Iterable[list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in study.rows:
        found.setdefault(row.policy, []).append(row)
    return found.values()


def _other_overrides(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row.overrides.items() if key != "evaluation.eps"}
