"""Figures of robust error: against clean error, over eps, and after each attack."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from bnft.common.canonical import canonical
from bnft.report.figures.base import ROW, Chart, Datasets, Figure, Panel, Rows, colour, dash, shape
from bnft.report.groups import Group, Series
from bnft.report.rows import Rate, Row, Study
from bnft.report.style import PART_COLOURS, looks
from bnft.runs import identity

OF_EPS = ("eps", "step_size")  # settings of an evaluation that follow eps


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
    """Draw robust error over eps, for rows that were evaluated within several budgets; None if there are none.

    A row has several budgets if its evaluation has, or if the same models were evaluated several times.
    """
    lines = [line for line in _lines(study) if len(line.rates) > 1]
    if not lines:
        return None
    sets, series = Datasets(), _series(study, [line.row for line in lines])
    panels = []
    for norm in dict.fromkeys(line.row.budget[0] for line in lines):
        drawn = [(line, one) for line, one in zip(lines, series, strict=True) if line.row.budget[0] == norm]
        panels.append(Panel(f"robust error, {norm}", _over_eps(sets, drawn)))
    caption = "The same models, attacked within several budgets. Bands are 95 % intervals."
    if any(line.row.curve for line in lines):
        caption += " At eps 0, it is the error on the attacked images without an attack."
    if any(line.row.mean("constant_error") is not None for line in lines):
        caption += " The grey line is the error of a constant classifier."
    wide = len(panels) > 1
    return Figure("eps", "Robust error over eps", caption, tuple(panels), series, height=300, wide=wide, datasets=sets)


def _over_eps(sets: Datasets, lines: Sequence[tuple["_Line", Series]]) -> Chart:
    """Draw lines of one norm, and the error of the constant classifier."""
    series = [one for _, one in lines]
    rows: Rows = [
        {"row": one.label, "eps": eps, "budget": _eps(eps), **_rate("robust", rate)}
        for line, one in lines
        for eps, rate in sorted(line.rates.items())
    ]
    floors = {floor for line, _ in lines if (floor := line.row.mean("constant_error")) is not None}
    budgets = sorted({row["eps"] for row in rows})
    names = f"{[_eps(eps) for eps in budgets]}[indexof({budgets}, datum.value)]"
    ticks = alt.Axis(values=budgets, labelExpr=names, labelOverlap=True)
    x = alt.X(
        "eps:Q", title="eps (pixel units)", axis=ticks, scale=alt.Scale(domain=[budgets[0], budgets[-1]], padding=12)
    )
    y = alt.Y("robust:Q", title="robust error (%)", scale=alt.Scale(domain=[0, 100]))
    base = alt.Chart(sets.add(rows))
    band = base.mark_area(opacity=0.1).encode(
        x=x, y=alt.Y("robust_low:Q", title="robust error (%)"), y2="robust_high:Q", color=colour(series)
    )
    tips = [alt.Tooltip(f"{name}:Q", format=".1f") for name in ("robust", "robust_low", "robust_high")]
    line = base.mark_line(point=alt.OverlayMarkDef(size=16)).encode(
        x=x,
        y=y,
        color=colour(series),
        strokeDash=dash(series),
        tooltip=[ROW, alt.Tooltip("budget:N", title="eps"), *tips],
    )
    floor = (
        alt.Chart(sets.add({"floor": floor} for floor in sorted(floors)))
        .mark_rule(color=PART_COLOURS[0], strokeWidth=1)
        .encode(y="floor:Q", tooltip=[alt.Tooltip("floor:Q", title="constant classifier", format=".1f")])
    )
    return alt.layer(band, *([floor] if floors else []), line)


@dataclass(frozen=True)
class _Line:
    """A row, and its robust error by eps."""

    row: Row
    rates: dict[float, Rate]


def _lines(study: Study) -> list[_Line]:
    """Return one line per row with several budgets, and one for rows of the same models that differ only in eps."""
    lines: dict[str, _Line] = {}
    for row in study.rows:
        first = row.first
        settings = {key: value for key, value in first.evaluation.settings.items() if key not in OF_EPS}
        key = [row.policy, identity.without(first.run.identity, "seed"), settings]
        line = lines.setdefault(canonical(key), _Line(row, {}))
        line.rates.update(row.curve or {row.budget[1]: row.robust})
    return [*lines.values()]


def _series(study: Study, rows: Sequence[Row]) -> tuple[Series, ...]:
    """Return rows with labels and looks. Rows of one policy have different ones."""
    titles = [row.first.run.title for row in rows]
    labels = dict(zip(map(id, study.rows), study.labels(), strict=True))
    names = [labels[id(row)] if titles.count(title) > 1 else title for row, title in zip(rows, titles, strict=True)]
    policies = [row.policy for row in rows]
    keys = [
        name if policies.index(row.policy) < at else row.policy
        for at, (row, name) in enumerate(zip(rows, names, strict=True))
    ]
    look = looks(keys)
    return tuple(Series(name, row, look[key]) for name, row, key in zip(names, rows, keys, strict=True))


def _eps(eps: float) -> str:
    """Return eps as a decimal number if it is a short one, else as k/255 if it is such a fraction."""
    if float(short := f"{eps:.4g}") == eps:
        return short
    return f"{255 * eps:.0f}/255" if round(255 * eps) / 255 == eps else f"{eps:.3g}"


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
