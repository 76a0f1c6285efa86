"""Results as flat records, one per evaluation of a run, for a data frame."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from bnft.common.errors import show
from bnft.config.names import short
from bnft.evaluation.summary import ErrorRate
from bnft.report.rows import Selection
from bnft.report.stored import StoredResult


class Records(list[dict[str, Any]]):
    """A list of dicts with equal keys. A notebook shows it as a table."""

    def _repr_html_(self) -> str:
        return html(self)


def records(selection: Selection) -> Records:
    """Return one record per result, in the order of the table."""
    return Records(
        _record(result, label)
        for study in selection.studies()
        for row, label in zip(study.rows, study.labels(), strict=True)
        for result in row.results
    )


def _record(stored: StoredResult, label: str) -> dict[str, Any]:
    result, run, evaluation, training = stored.result, stored.run, stored.result.evaluation, stored.result.training
    return {
        "run": stored.run_folder.name,
        "policy": run.policy,
        "title": run.title,
        "label": label,
        "seed": result.seed,
        "data": short(result.data.target),
        **_rate("clean", result.clean),
        "clean_error_900": stored.per_image.clean_error_900,
        **_rate("robust", result.robust),
        "strongest_error": result.strongest.error if result.strongest is not None else None,
        "robust_error_correct": stored.per_image.robust_error_correct,
        "constant_error": stored.per_image.constant_error,
        "largest_class": stored.per_image.largest_class,
        "attack": evaluation.attack,
        "version": evaluation.version,
        "norm": evaluation.norm,
        "eps": evaluation.eps,
        "learning_percent": training.counts.share,
        "parameters": training.counts.parameters,
        "training_seconds": training.seconds,
        "evaluation_seconds": result.seconds,
        "seconds": (training.seconds or 0.0) + result.seconds,
        "base": run.base,
        "overrides": " ".join(f"{key}={show(value)}" for key, value in run.overrides.items()),
        "evaluation": stored.folder.path.name,
    }


def _rate(name: str, rate: ErrorRate) -> dict[str, Any]:
    low, high = rate.interval
    return {
        f"{name}_error": rate.error,
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_images": rate.images,
    }


def html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows with equal keys as a table in HTML."""
    if not rows:
        return "<p>no results</p>"
    head = _cells("th", rows[0])
    body = "".join(f"<tr>{_cells('td', map(_shown, row.values()))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
