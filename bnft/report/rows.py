"""Results, grouped into rows (runs that differ only in their seed) and studies (rows with equal data and network)."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any, Literal

from bnft.common.canonical import canonical
from bnft.common.errors import DamagedError, InputError, show
from bnft.common.intervals import wilson
from bnft.evaluation.settings import by, quick_instead
from bnft.evaluation.summary import ErrorRate
from bnft.report.stored import StoredResult, repairable
from bnft.runs import identity
from bnft.runs.result import Result
from bnft.runs.run_folder import RunFolder
from bnft.runs.selection import pick
from bnft.runs.store import Store
from bnft.studies import paper

STARTS = ("initialization", "normalization")  # keys of a model that can differ between rows of a study
Wanted = tuple[str, str]  # the name of a run, and the id of its evaluation
Quantity = Literal["constant_error", "largest_class", "clean_error_900", "robust_error_correct"]


@dataclass(frozen=True)
class Rate:
    """An error of a row.

    Attributes:
        error: the mean error over seeds, in percent.
        deviation: its standard deviation over seeds; None for one seed.
        interval: Wilson's 95 % interval for the mean error on this number of images. It shows how much the error could
            change with another sample of images, not with another seed.
        images: the number of images.
    """

    error: float
    deviation: float | None
    interval: tuple[float, float]
    images: int

    @classmethod
    def of(cls, rates: Sequence[ErrorRate]) -> "Rate":
        errors, images = [rate.error for rate in rates], min(rate.images for rate in rates)
        deviation = stdev(errors) if len(errors) > 1 else None
        return cls(fmean(errors), deviation, wilson(fmean(errors) / 100 * images, images), images)


@dataclass(frozen=True)
class Row:
    """Runs of one policy that differ only in their seed."""

    results: tuple[StoredResult, ...]

    @property
    def first(self) -> Result:
        return self.results[0].result

    @property
    def policy(self) -> str:
        return self.first.run.policy

    @property
    def overrides(self) -> dict[str, Any]:
        return self.first.run.overrides

    @property
    def attack(self) -> str:
        return self.first.evaluation.attack

    @property
    def title(self) -> str:
        """The title of the row. It names the attack, if that is weaker than AutoAttack: `ADV (quick)`."""
        return f"{self.first.run.title}{by(self.first.evaluation.shown_attack)}"

    @property
    def seeds(self) -> list[int]:
        return sorted(result.seed for result in self.results)

    @property
    def clean(self) -> Rate:
        return Rate.of([result.result.clean for result in self.results])

    @property
    def robust(self) -> Rate:
        return Rate.of([result.result.robust for result in self.results])

    @property
    def curve(self) -> dict[float, Rate]:
        """The robust error over eps; empty if the evaluation has one budget."""
        points = zip(*(result.result.curve or () for result in self.results), strict=True)
        return {of_seeds[0].eps: Rate.of(of_seeds) for of_seeds in points}

    @property
    def strongest(self) -> Rate | None:
        """The robust error after a further attack too; None if the evaluation has none."""
        rates = [result.result.strongest for result in self.results]
        known = [rate for rate in rates if rate is not None]
        return Rate.of(known) if len(known) == len(rates) else None

    @property
    def paper(self) -> paper.PaperRow | None:
        """The row of the paper, if this is one: only data, model, schedule and seed may differ from the policy.

        A row by a weaker attack than AutoAttack is none.
        """
        return None if self.overrides or by(self.attack) else paper.BY_POLICY.get(self.policy)

    @property
    def budget(self) -> tuple[str, float]:
        """The norm and the eps within which the row was attacked."""
        return self.first.evaluation.norm, self.first.evaluation.eps

    @property
    def budgets_that_differ(self) -> dict[str, Any]:
        """Norm and eps of the training attack and of the evaluation, if they differ."""
        attack = self.first.run.identity.get("attack") or {}
        budgets: dict[str, Any] = {}
        for key in ("norm", "eps"):
            evaluated = getattr(self.first.evaluation, key)
            if attack.get(key, evaluated) != evaluated:
                budgets |= {f"attack.{key}": attack[key], f"evaluation.{key}": evaluated}
        return budgets

    @property
    def free(self) -> dict[str, Any]:
        """The values that can differ between rows of equal policy and overrides, such as schedule and evaluation."""
        run, evaluation = identity.without(self.first.run.identity, "seed"), self.first.evaluation.settings
        attack = {identity.SOURCE: (run.get("attack") or {}).get(identity.SOURCE)}
        monitor = {key: (run.get("monitor") or {}).get(key) for key in ("every", "images", "keep")}
        trained = {"model": run["model"], "schedule": run["schedule"], "data": run["data"], "attack": attack}
        return {**trained, "monitor": monitor, "evaluation": evaluation, "base": run.get("base")}

    def mean(self, quantity: Quantity) -> float | None:
        """Return the mean of a further number (see `PerImage`) over seeds, in percent; None if no seed has it."""
        values = [getattr(result.per_image, quantity) for result in self.results]
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    @property
    def at_floor(self) -> bool:
        """Whether the interval of the robust error reaches the error of a constant classifier."""
        floor = self.mean("constant_error")
        return floor is not None and self.robust.interval[1] >= floor


@dataclass(frozen=True)
class Study:
    """Rows with the same data and model: first those of the paper, in its order, then the others."""

    rows: tuple[Row, ...]

    @cached_property
    def first(self) -> Result:
        """The first result of the rows with the most frequent evaluation."""
        return self.by_evaluation()[0][0].first

    def published(self, row: Row) -> paper.PaperRow | None:
        """Return the row of the paper to compare a row with; None if its budget is not that of most rows."""
        usual = self.first.evaluation
        return row.paper if row.budget == (usual.norm, usual.eps) else None

    def by_evaluation(self) -> list[tuple[Row, ...]]:
        """Group the rows by evaluation: first the group with the most rows of the paper, then by size."""
        alike: dict[str, list[Row]] = {}
        for row in self.rows:
            alike.setdefault(canonical(row.first.evaluation.settings), []).append(row)
        order = sorted(alike.values(), key=lambda rows: (-sum(row.paper is not None for row in rows), -len(rows)))
        return [tuple(rows) for rows in order]

    def paper_row(self, policy: str) -> Row | None:
        """Return the row that corresponds to a row of the paper; None unless there is exactly one.

        If there are several, the one with the most frequent evaluation counts.
        """
        rows = [row for row in self.rows if row.paper and row.policy == policy]
        if len(rows) > 1:
            usual = self.by_evaluation()[0]
            rows = [row for row in rows if row in usual]
        return rows[0] if len(rows) == 1 else None

    def labels(self) -> list[str]:
        """Return a unique name for each row."""
        plain = [_label(row.title, {**row.budgets_that_differ, **_told(row)}) for row in self.rows]
        labels = []
        for row, label in zip(self.rows, plain, strict=True):
            alike = [other for other, same in zip(self.rows, plain, strict=True) if same == label and other is not row]
            telling: dict[str, Any] = {}
            for other in alike:
                telling.update(identity.differences(row.free, other.free))
            if "monitor.every" in telling:  # a base has the same monitoring, unless it is named
                telling.pop("base.monitor", None)
            for key in ("norm", "eps"):  # the heading names those of most rows
                telling.pop(f"evaluation.{key}", None)
                own = getattr(row.first.evaluation, key)
                if own != getattr(self.first.evaluation, key) and f"evaluation.{key}" not in label:
                    telling[f"evaluation.{key}"] = own
            labels.append(_label(label, telling))
        return labels


def _told(row: Row) -> dict[str, Any]:
    """Return the overrides of a row without those that its title tells: its attack, and what AutoAttack has not."""
    named = ("evaluation.attack", "evaluation.version") if by(row.attack) else ()
    return {key: value for key, value in row.overrides.items() if key not in named}


def _label(title: str, telling: dict[str, Any]) -> str:
    silent = ("evaluation.", "monitor.")  # not named if they are null
    telling = {key: value for key, value in telling.items() if value is not None or not key.startswith(silent)}
    if not telling:
        return title
    shown = {
        key: show(value)[: identity.HASH_LENGTH] if key.endswith(identity.SOURCE) else show(value)
        for key, value in telling.items()
    }
    return f"{title} [{', '.join(f'{key}={value}' for key, value in shown.items())}]"


@dataclass(frozen=True)
class Selection:
    """The results of a table.

    Attributes:
        results: the results.
        missing: the names of requested runs that have no result yet.
        previewed: the names of requested runs of which only the preview is done, so that it is shown.
    """

    results: tuple[StoredResult, ...]
    missing: tuple[str, ...]
    previewed: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """A note on results without checksums; empty if there are none."""
        count = sum(result.result.outcomes is None for result in self.results)
        many = f"{count} results without checksums were" if count > 1 else "1 result without a checksum was"
        return f"Note: {many} read unchecked" if count else ""

    def studies(self) -> list[Study]:
        """Group the results into rows, and the rows into studies."""
        rows: dict[str, list[StoredResult]] = {}
        for result in self.results:
            run, settings = result.run, result.result.evaluation.settings
            key = [run.policy, run.overrides, identity.without(run.identity, "seed"), settings]
            rows.setdefault(canonical(key), []).append(result)
        studies: dict[str, list[Row]] = {}
        for group in rows.values():
            named = group[0].run.identity
            network = {key: value for key, value in named["model"].items() if key not in STARTS}
            study = canonical([named["data"]["sha256"], network])
            studies.setdefault(study, []).append(Row(tuple(group)))
        return [_sorted(study_rows) for study_rows in studies.values()]


def _sorted(rows: list[Row]) -> Study:
    """Return the study of these rows, in the paper's order. Rows of one policy begin with the usual budget."""
    study = Study(tuple(sorted(rows, key=_position)))
    usual = study.by_evaluation()[0][0].budget
    return Study(tuple(sorted(study.rows, key=lambda row: (*_position(row), row.budget != usual, row.budget))))


def _position(row: Row) -> tuple[int, int]:
    return (0 if row.paper else 1, paper.ORDER.get(row.policy, len(paper.ORDER)))


def select(store: Store, names: Sequence[str] = ()) -> Selection:
    """Read the results of some sweeps and runs.

    Args:
        store: the store.
        names: the names of sweeps or runs, as for `pick`. If all runs are requested, only those that are done count.

    Raises:
        InputError: if a name is neither a sweep nor a run, or if the store is empty.
    """
    picked = pick(store, names)
    wanted: dict[Wanted, str | None] = {}
    for sweep in picked.sweeps.values():
        for entry in sweep["runs"]:
            key = entry["run"], entry["evaluation"]
            wanted[key] = entry.get("preview") or wanted.get(key)
    for name in picked.runs:
        for evaluation in _evaluations(store.run(name)) or ([] if picked.everything else [""]):
            wanted.setdefault((name, evaluation))
    if picked.everything and not wanted:
        raise InputError(f"store={store.root}: must be a folder with runs that are done; this folder has none")
    return read(store, wanted, {key: preview for key, preview in wanted.items() if preview})


def _evaluations(folder: RunFolder) -> list[str]:
    """Return the ids of the evaluations of a run that are done, without previews of others."""
    done = folder.evaluations()
    names = [evaluation.path.name for evaluation in done]
    if not any(name.startswith("quick-") for name in names):
        return names
    previews = set()
    for evaluation in done:
        with repairable():
            result = evaluation.result()
        if result is not None and result.evaluation.attack == "autoattack":
            previews.add(identity.evaluation_id(quick_instead(result.evaluation.settings)))
    return [name for name in names if name not in previews]


def read(store: Store, wanted: Iterable[Wanted], previews: Mapping[Wanted, str] | None = None) -> Selection:
    """Read the results of some evaluations.

    Args:
        store: the store.
        wanted: the evaluations, each given as the name of its run and its id.
        previews: the ids of the previews of some of them, which are shown in their place until they are done.

    Raises:
        DamagedError: if a result is damaged, or does not belong to its outcomes.
    """
    asked, previews = list(dict.fromkeys(wanted)), previews or {}
    done = {key: result for key in asked if (result := _stored(store, *key)) is not None}
    shown: dict[Wanted, StoredResult] = {}
    for key, preview in previews.items():
        if key not in done and (key[0], preview) not in asked and (result := _preview(store, key[0], preview)):
            shown[key] = result
    results = done | shown | _instead(store, done, shown, previews)
    by_folder = {results[key].folder.path: results[key] for key in asked if key in results}  # previews can be shared
    return Selection(
        tuple(by_folder.values()),
        tuple(dict.fromkeys(run for run, evaluation in asked if (run, evaluation) not in results)),
        tuple(dict.fromkeys(run for run, _ in shown)),
    )


def _instead(
    store: Store,
    done: Mapping[Wanted, StoredResult],
    shown: Mapping[Wanted, StoredResult],
    previews: Mapping[Wanted, str],
) -> dict[Wanted, StoredResult]:
    """Return the previews that replace results that are done, so that all seeds of a row have the same attack.

    If only some seeds of a row are done, the previews of all of them are shown. If a seed that is done has no preview,
    nothing is replaced. The seeds that are done are then a row of their own.
    """
    alike: dict[str, list[Wanted]] = {}
    for key in previews:
        if (result := done.get(key) or shown.get(key)) is not None:
            own = {name: value for name, value in result.run.overrides.items() if not name.startswith("evaluation.")}
            row = canonical([result.run.policy, own, identity.without(result.run.identity, "seed"), key[1]])
            alike.setdefault(row, []).append(key)
    instead: dict[Wanted, StoredResult] = {}
    for keys in alike.values():
        if any(key in shown for key in keys):
            found = {key: _preview(store, key[0], previews[key]) for key in keys if key in done}
            known = {key: result for key, result in found.items() if result is not None}
            instead |= known if len(known) == len(found) else {}
    return instead


def _preview(store: Store, run: str, preview: str) -> StoredResult | None:
    """Return the preview of a run; None if it is not done, or damaged, because it is only shown for a while."""
    with suppress(DamagedError):
        return _stored(store, run, preview)
    return None


def _stored(store: Store, run: str, evaluation: str) -> StoredResult | None:
    """Return an evaluation that is done; None if it is not. Raise DamagedError as `read` does."""
    folder = store.run(run).evaluation(evaluation)
    with repairable():
        result = folder.result()
    if result is None:
        return None
    stored = StoredResult(folder, result)
    _ = stored.per_image  # which also checks the outcomes
    return stored
