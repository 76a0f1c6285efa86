"""Results, grouped into rows (runs that differ only in their seed) and studies (rows that are compared)."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
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
from bnft.runs.selection import pick, readable
from bnft.runs.store import Store
from bnft.studies.study import Published, StudyRow
from bnft.studies.study import Study as Definition

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
class Place:
    """The row of a study that runs were requested for.

    Attributes:
        study: the study.
        title: the title of the row.
        changed: the values in which the runs differ from this row, because of overrides on the command line.
    """

    study: Definition
    title: str
    changed: Mapping[str, Any]

    @property
    def row(self) -> StudyRow:
        return self.study.by_title[self.title]


@dataclass(frozen=True)
class Row:
    """Runs of one policy that differ only in their seed. `place` is their row in a study; None without a study."""

    results: tuple[StoredResult, ...]
    place: Place | None = None

    @property
    def first(self) -> Result:
        return self.results[0].result

    @property
    def policy(self) -> str:
        return self.first.run.policy

    @property
    def overrides(self) -> Mapping[str, Any]:
        """The values that differ from the row of the study, or without a study from the policy."""
        return self.first.run.overrides if self.place is None else self.place.changed

    @property
    def attack(self) -> str:
        return self.first.evaluation.attack

    @property
    def plain_title(self) -> str:
        """The title of the row in the study, or without a study the title of the policy."""
        return self.first.run.title if self.place is None else self.place.title

    @property
    def title(self) -> str:
        """The title of the row. It names the attack, if that is weaker than AutoAttack: `ADV (quick)`."""
        return f"{self.plain_title}{by(self.first.evaluation.shown_attack)}"

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
    def published(self) -> Published | None:
        """The errors that were published for the row of the study: only data, model, schedule and seed may differ.

        None if there are none, or if the row was attacked by a weaker attack than AutoAttack.
        """
        if self.place is None or self.overrides or by(self.attack):
            return None
        return self.place.row.published

    @property
    def sets_budget(self) -> bool:
        """Whether the study says for this row within which budget it is attacked."""
        typed = any(key in self.overrides for key in ("evaluation.norm", "evaluation.eps"))
        return self.place is not None and self.place.row.sets_budget and not typed

    @property
    def learns(self) -> bool:
        """Whether parameters learn, and not only BN statistics."""
        return self.first.training.counts.learning != 0

    @property
    def budget(self) -> tuple[str, float]:
        """The norm and the eps within which the row was attacked."""
        return self.first.evaluation.norm, self.first.evaluation.eps

    @property
    def budgets_that_differ(self) -> dict[str, Any]:
        """Norm and eps of the training attack and of the evaluation, if they differ and no title says so."""
        if self.sets_budget:
            return {}
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
    """Rows with the same data and model, in the order of their study. `definition` is this study; None without one."""

    rows: tuple[Row, ...]
    definition: Definition | None = None

    @cached_property
    def first(self) -> Result:
        """The first result of the rows with the most frequent evaluation."""
        return self.by_evaluation()[0][0].first

    def published(self, row: Row) -> Published | None:
        """Return the published errors to compare a row with; None if its budget is not that of most rows."""
        usual = self.first.evaluation
        return row.published if row.sets_budget or row.budget == (usual.norm, usual.eps) else None

    @property
    def has_published(self) -> bool:
        """Whether published errors can be shown beside some row."""
        return any(self.published(row) for row in self.rows)

    def by_evaluation(self) -> list[tuple[Row, ...]]:
        """Group the rows by evaluation: first the group with the most rows of the study as it is, then by size.

        In a study of several budgets, these do not count.
        """
        about_budgets = any(row.sets_budget for row in self.rows)
        left_out = ("norm", "eps", "step_size", "budgets") if about_budgets else ()
        alike: dict[str, list[Row]] = {}
        for row in self.rows:
            settings = {key: value for key, value in row.first.evaluation.settings.items() if key not in left_out}
            alike.setdefault(canonical(settings), []).append(row)
        order = sorted(alike.values(), key=lambda rows: (-sum(not row.overrides for row in rows), -len(rows)))
        return [tuple(rows) for rows in order]

    def titled(self, title: str) -> Row | None:
        """Return the row of the study with this title; None unless there is exactly one.

        If there are several, those without other values count, and then the one with the most frequent evaluation.
        """
        rows = [row for row in self.rows if row.place is not None and row.place.title == title]
        if len(rows) > 1:
            rows = [row for row in rows if not row.overrides]
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
                usual = getattr(self.first.evaluation, key)
                if own != usual and not row.sets_budget and f"evaluation.{key}" not in label:
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
        placed: each result with its row in a study, or None without one. A result can be part of several studies.
            Empty if no result is part of a study.
    """

    results: tuple[StoredResult, ...]
    missing: tuple[str, ...]
    previewed: tuple[str, ...] = ()
    placed: tuple[tuple[StoredResult, Place | None], ...] = ()

    @property
    def note(self) -> str:
        """A note on results without checksums; empty if there are none."""
        count = sum(result.result.outcomes is None for result in self.results)
        many = f"{count} results without checksums were" if count > 1 else "1 result without a checksum was"
        return f"Note: {many} read unchecked" if count else ""

    def studies(self) -> list[Study]:
        """Group the results into rows, and the rows into studies.

        Rows of one study with different data or networks are separate, unless the study is about this difference.
        """
        rows: dict[str, tuple[Place | None, list[StoredResult]]] = {}
        for result, place in self.placed or [(result, None) for result in self.results]:
            run, settings = result.run, result.result.evaluation.settings
            own = [place.study.name, place.title, place.changed] if place else []  # one version of each study
            key = [own, run.policy, run.overrides, identity.without(run.identity, "seed"), settings]
            rows.setdefault(canonical(key), (place, []))[1].append(result)
        studies: dict[str, list[Row]] = {}
        for place, results in rows.values():
            definition = place.study if place else None
            together = definition is not None and definition.compares_networks
            apart = [] if together else _data_and_network(results[0])
            whole = canonical([definition.name if definition else None, apart])
            studies.setdefault(whole, []).append(Row(tuple(results), place))
        return [_sorted(study_rows) for study_rows in studies.values()]


def _data_and_network(result: StoredResult) -> list[Any]:
    named = result.run.identity
    return [named["data"]["sha256"], {key: value for key, value in named["model"].items() if key not in STARTS}]


def _sorted(rows: list[Row]) -> Study:
    """Return the study of these rows, in its order. Rows of one title begin with the usual budget.

    Without a study, rows have the order in which their policies were requested.
    """
    definition = rows[0].place.study if rows[0].place else None
    order = definition.order if definition else {row.policy: place for place, row in reversed([*enumerate(rows)])}
    study = Study(tuple(rows), definition)
    usual = study.by_evaluation()[0][0].budget

    def position(row: Row) -> tuple[Any, ...]:
        first = order[row.place.title if row.place else row.policy]
        return first, bool(row.overrides), row.budget != usual, row.budget

    return Study(tuple(sorted(rows, key=position)), definition)


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
    sweeps = [*picked.sweeps.values()] if picked.sweeps else [sweep for _, sweep in readable(store)]
    for name in picked.runs:
        for evaluation in _evaluations(store.run(name)) or ([] if picked.everything else [""]):
            wanted.setdefault((name, evaluation))
    if picked.everything and not wanted:
        raise InputError(f"store={store.root}: must be a folder with runs that are done; this folder has none")
    return read(store, wanted, {key: preview for key, preview in wanted.items() if preview}, places(sweeps))


Places = dict[Wanted, list[Place]]


def places(sweeps: Iterable[Mapping[str, Any]]) -> Places:
    """Return the rows of studies for which evaluations were requested.

    If sweeps have different versions of a study, the newest version counts, and its rows are found by title.

    Args:
        sweeps: the records of sweeps, the oldest first.
    """
    records = sorted((sweep for sweep in sweeps if sweep.get("study")), key=lambda sweep: sweep.get("number", 0))
    studies = {sweep["study"].get("name"): sweep["study"] for sweep in records}
    newest = {name: Definition.decoded(study) for name, study in studies.items()}
    found: dict[Wanted, dict[str, Place]] = {}
    for sweep in records:
        study = newest[sweep["study"].get("name")]
        for entry in sweep["runs"]:
            title = entry.get("row")
            if title in study.by_title:
                place = Place(study, title, entry.get("changed", {}))
                found.setdefault((entry["run"], entry["evaluation"]), {})[study.name] = place
                if entry.get("preview"):  # selected by itself if the evaluation is not done
                    found.setdefault((entry["run"], entry["preview"]), {}).setdefault(study.name, _of_preview(place))
    return {key: list(by_study.values()) for key, by_study in found.items()}


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


def read(
    store: Store,
    wanted: Iterable[Wanted],
    previews: Mapping[Wanted, str] | None = None,
    rows: Mapping[Wanted, list[Place]] | None = None,
) -> Selection:
    """Read the results of some evaluations.

    Args:
        store: the store.
        wanted: the evaluations, each given as the name of its run and its id.
        previews: the ids of the previews of some of them, which are shown in their place until they are done.
        rows: the rows of studies that some of them belong to.

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
        _placed({key: results[key] for key in asked if key in results}, rows) if rows else (),
    )


def _of_preview(place: Place) -> Place:
    """Return the place of a preview, which has none of the changes of the evaluation."""
    return replace(place, changed=identity.without_evaluation(place.changed))


def _placed(
    results: Mapping[Wanted, StoredResult], rows: Mapping[Wanted, list[Place]]
) -> tuple[tuple[StoredResult, Place | None], ...]:
    """Return each result with each of its places, once, although previews can be shared."""
    placed: dict[str, tuple[StoredResult, Place | None]] = {}
    for key, result in results.items():
        here: list[Place | None] = [*rows.get(key, ())]
        for place in here or [None]:
            if place is not None and result.folder.path.name != key[1]:
                place = _of_preview(place)
            where = [str(result.folder.path), [place.study.name, place.title] if place else None]
            placed.setdefault(canonical(where), (result, place))
    return tuple(placed.values())


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
            own = identity.without_evaluation(result.run.overrides)
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
