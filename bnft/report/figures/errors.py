"""Figures of robust error: against clean error, over eps, and after each attack."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from bnft.common.canonical import canonical
from bnft.report.figures.base import (
    ALL_SEEDS,
    PERCENT,
    ROW,
    VERTICAL,
    Chart,
    Datasets,
    Figure,
    Panel,
    Rows,
    by_seed,
    colour,
    lined,
    seeds_of,
    shape,
)
from bnft.report.groups import Group, Series
from bnft.report.rows import Rate, Row, Study
from bnft.report.style import PART_COLOURS, looks
from bnft.runs import identity

ERRORS = ("clean", "robust")
NEAR = 0.01  # a rounded k/255, such as 0.0078, differs from it by less than this fraction of 1/255
OF_EPS = ("eps", "step_size")  # settings of an evaluation that follow eps


def scatter(group: Group) -> Figure | None:
    """Draw robust against clean error, with intervals and single seeds, and the paper's errors in a second panel."""
    sets = Datasets()
    rows: Rows = []
    seeds: Rows = []
    published: Rows = []
    for series in group.series:
        for seed, row in by_seed(series.row).items():
            place = {"row": series.label, "seed": seed}
            rows.append({**place, **_rate("clean", row.clean), **_rate("robust", row.robust)})
            if seed != ALL_SEEDS:
                seeds.append({**rows[-1], "seed": ALL_SEEDS, "of": seed})
            if series.published:
                errors = series.published
                published.append({**place, "clean": errors.clean_error, "robust": errors.robust_error})
    names = [f"{name}{end}" for name in ("clean", "robust") for end in ("", "_low", "_high")]
    tooltip = [ROW, *(alt.Tooltip(f"{name}:Q", format=".1f") for name in names)]
    most = max(row.get("clean_high", row["clean"]) for row in (*rows, *seeds, *published))
    scale = alt.Scale(domain=[0, most], padding=6)  # one for both panels
    x = alt.X("clean:Q", title="clean error (%)", scale=scale, axis=alt.Axis(tickCount=8))
    y = alt.Y("robust:Q", title="robust error (%)", scale=PERCENT, axis=VERTICAL)
    shades, shapes = colour(group.series), shape(group.series)
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
        tip = [ROW, alt.Tooltip("of:N", title="seed"), *(alt.Tooltip(f"{name}:Q", format=".1f") for name in ERRORS)]
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
        panels.append(Panel(_published_title(group), theirs))
    return Figure(
        "errors",
        "Robust against clean error",
        f"Lines are 95 % intervals: another sample of images could change the error this much. {_seeds(group)}",
        tuple(panels),
        group.series,
        symbols="point",
        controls=seeds_of(group, "mean over all seeds"),
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
    y = alt.Y("robust:Q", title="robust error (%)", scale=PERCENT, axis=VERTICAL)
    base = alt.Chart(sets.add(rows))
    band = base.mark_area(opacity=0.1).encode(
        x=x, y=alt.Y("robust_low:Q", title="robust error (%)"), y2="robust_high:Q", color=colour(series)
    )
    tips = [alt.Tooltip(f"{name}:Q", format=".1f") for name in ("robust", "robust_low", "robust_high")]
    line = lined(base.encode(x=x, y=y, tooltip=[ROW, alt.Tooltip("budget:N", title="eps"), *tips]), series)
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


def _published_title(group: Group) -> str:
    place = next(series.row.place for series in group.series if series.published)
    setting = place.study.setting if place else None
    return f"the paper, on {setting.data}" if setting else "the paper"


def _series(study: Study, rows: Sequence[Row]) -> tuple[Series, ...]:
    """Return rows with labels and looks. Rows of one policy have different ones."""
    titles = [row.plain_title for row in rows]
    labels = dict(zip(map(id, study.rows), study.labels(), strict=True))
    names = [labels[id(row)] if titles.count(title) > 1 else title for row, title in zip(rows, titles, strict=True)]
    first = [row.place.title if row.place else row.policy for row in rows]
    keys = [name if first.index(key) < at else key for at, (key, name) in enumerate(zip(first, names, strict=True))]
    look = looks(keys, study.definition)
    return tuple(Series(name, row, look[key]) for name, row, key in zip(names, rows, keys, strict=True))


def _eps(eps: float) -> str:
    """Return eps as a decimal number if it is a short one, else as k/255 if it is close to such a fraction."""
    if float(f"{eps:.2g}") == eps:
        return f"{eps:.2g}"
    return f"{255 * eps:.0f}/255" if abs(255 * eps - round(255 * eps)) < NEAR else f"{eps:.3g}"


def cascade(group: Group, steps: Callable[[Row], list[dict[str, Any]]]) -> Figure | None:
    """Draw robust error after each attack of the cascade. `steps` returns those of a row, see `outcomes.cascade`."""
    sets = Datasets()
    rows = [
        {"row": series.label, "seed": seed, "attack": step["attack"], "error": step["error"]}
        for series in group.series
        for seed, row in by_seed(series.row).items()
        for step in steps(row)
    ]
    if not rows:
        return None
    order = list(dict.fromkeys(row["attack"] for row in rows))
    base = alt.Chart(sets.add(rows)).encode(
        x=alt.X("attack:O", title=None, sort=order, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("error:Q", title="robust error (%)", scale=PERCENT, axis=VERTICAL),
        tooltip=[ROW, "attack:O", alt.Tooltip("error:Q", format=".1f")],
    )
    caption = "Robust error after each attack. Each attack runs only on the images that no earlier attack has broken."
    return Figure(
        "cascade",
        "Cascade: robust error after each attack",
        caption,
        (Panel("robust error so far", lined(base, group.series)),),
        group.series,
        controls=seeds_of(group, "mean over all seeds"),
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
