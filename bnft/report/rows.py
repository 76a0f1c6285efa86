"""Results, grouped into rows (runs equal but for their seed) and rows into studies (equal data and network)."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any, Literal

from numpy.typing import NDArray

from bnft.common.canonical import canonical
from bnft.common.errors import DamagedError, InputError, show
from bnft.common.intervals import wilson
from bnft.evaluation.summary import ErrorRate
from bnft.report.per_image import PerImage
from bnft.runs import identity, layout
from bnft.runs.evaluation_folder import EvaluationFolder
from bnft.runs.result import Result, RunRecord
from bnft.runs.run_folder import RunFolder
from bnft.runs.selection import pick
from bnft.runs.store import Store
from bnft.studies import paper

STARTS = ("initialization", "normalization")  # keys of a model in which rows of a study can differ
Quantity = Literal["constant_error", "largest_class", "clean_error_900", "robust_error_correct"]


@dataclass(frozen=True)
class StoredResult:
    """One evaluation of one run, and where it is kept."""

    folder: EvaluationFolder
    result: Result

    @property
    def run(self) -> RunRecord:
        return self.result.run

    @property
    def seed(self) -> int:
        return self.result.seed

    @property
    def run_folder(self) -> RunFolder:
        return RunFolder(self.folder.path.parents[1])

    @cached_property
    def scores(self) -> dict[str, NDArray[Any]]:
        """What became of every image (see `evaluation.Outcomes`), without the images, to be kept in memory.

        Raises DamagedError if it is not there or not whole.
        """
        return self.outcomes(images=False)

    def outcomes(self, images: bool = True) -> dict[str, NDArray[Any]]:
        """The outcomes, see `EvaluationFolder.outcomes`. Raises DamagedError, with the way out."""
        with _repairable():
            return self.folder.outcomes(images)

    @cached_property
    def per_image(self) -> PerImage:
        """The errors on every image, kept in memory. Raises DamagedError like `outcomes`."""
        outcomes = self.outcomes(images=False)
        if "fallen_at" not in outcomes:
            with _repairable():
                raise DamagedError(f"{self.folder.path / layout.OUTCOMES}: is damaged, it lacks fallen_at")
        return PerImage.of(outcomes)


@contextmanager
def _repairable() -> Iterator[None]:
    """Adds to the refusal of what an evaluation left behind how it is made again."""
    try:
        yield
    except DamagedError as error:
        raise DamagedError(f"{error}; with that file removed, the command that made it makes it again") from None


@dataclass(frozen=True)
class Rate:
    """An error in percent: the mean over seeds, its standard deviation (None for one seed), and the 95 % interval.

    The interval is Wilson's for the mean error on that many images: it says how far another sample of images could
    move the number, not how far another seed could.
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
    """Runs of one policy that differ in nothing but their seed."""

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
    def seeds(self) -> list[int]:
        return sorted(result.seed for result in self.results)

    @property
    def clean(self) -> Rate:
        return Rate.of([result.result.clean for result in self.results])

    @property
    def robust(self) -> Rate:
        return Rate.of([result.result.robust for result in self.results])

    @property
    def paper(self) -> paper.PaperRow | None:
        """The paper's row, if this is one: the policy as it is, apart from data, model, schedule and seed."""
        return None if self.overrides else paper.BY_POLICY.get(self.policy)

    @property
    def budget(self) -> tuple[str, float]:
        """The norm and the eps within which the row was attacked."""
        return self.first.evaluation.norm, self.first.evaluation.eps

    @property
    def budgets_that_differ(self) -> dict[str, Any]:
        """Norm and eps of the training attack and of the evaluation, where they differ."""
        attack = self.first.run.identity.get("attack") or {}
        found: dict[str, Any] = {}
        for key in ("norm", "eps"):
            judged = getattr(self.first.evaluation, key)
            if attack.get(key, judged) != judged:
                found |= {f"attack.{key}": attack[key], f"evaluation.{key}": judged}
        return found

    @property
    def free(self) -> dict[str, Any]:
        """What tells this row from another of its policy and overrides: schedule, evaluation, the attack's source."""
        run, evaluation = identity.without(self.first.run.identity, "seed"), self.first.evaluation.settings
        attack = {identity.SOURCE: (run.get("attack") or {}).get(identity.SOURCE)}
        told = {"model": run["model"], "schedule": run["schedule"], "data": run["data"], "attack": attack}
        return {**told, "evaluation": evaluation, "base": run.get("base")}

    def mean(self, quantity: Quantity) -> float | None:
        """What is counted from each image beside the errors, in percent: the mean over seeds; None if none has it."""
        found = [getattr(result.per_image, quantity) for result in self.results]
        known = [value for value in found if value is not None]
        return fmean(known) if known else None

    @property
    def at_floor(self) -> bool:
        """Whether the row may be no better than a constant classifier: the interval of its robust error gets there."""
        floor = self.mean("constant_error")
        return floor is not None and self.robust.interval[1] >= floor


@dataclass(frozen=True)
class Study:
    """Rows on the same data and the same model, in the paper's order, others after them."""

    rows: tuple[Row, ...]

    @cached_property
    def first(self) -> Result:
        """The first result of the rows that were evaluated as most are."""
        return self.by_evaluation()[0][0].first

    def published(self, row: Row) -> paper.PaperRow | None:
        """The paper's row beside which a row is set: none where it was attacked within another budget than most."""
        usual = self.first.evaluation
        return row.paper if row.budget == (usual.norm, usual.eps) else None

    def by_evaluation(self) -> list[tuple[Row, ...]]:
        """The rows that were evaluated alike, together; first those with the most rows of the paper, then by number."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(canonical(row.first.evaluation.settings), []).append(row)
        order = sorted(found.values(), key=lambda rows: (-sum(row.paper is not None for row in rows), -len(rows)))
        return [tuple(rows) for rows in order]

    def paper_row(self, policy: str) -> Row | None:
        """The one row that stands for a row of the paper, evaluated as most are; None if there is none, or several."""
        found = [row for row in self.rows if row.paper and row.policy == policy]
        if len(found) > 1:
            usual = self.by_evaluation()[0]
            found = [row for row in found if row in usual]
        return found[0] if len(found) == 1 else None

    def labels(self) -> list[str]:
        """A name for each row that tells it from every other."""
        plain = [_label(row.first.run.title, {**row.budgets_that_differ, **row.overrides}) for row in self.rows]
        labels = []
        for row, label in zip(self.rows, plain, strict=True):
            alike = [other for other, same in zip(self.rows, plain, strict=True) if same == label and other is not row]
            telling: dict[str, Any] = {}
            for other in alike:
                telling.update(identity.differences(row.free, other.free))
            for key in ("norm", "eps"):  # the heading has those of most rows; `threat.eps` can make others differ
                telling.pop(f"evaluation.{key}", None)
                own = getattr(row.first.evaluation, key)
                if own != getattr(self.first.evaluation, key) and f"evaluation.{key}" not in label:
                    telling[f"evaluation.{key}"] = own
            labels.append(_label(label, telling))
        return labels


def _label(title: str, telling: dict[str, Any]) -> str:
    telling = {key: value for key, value in telling.items() if value is not None or not key.startswith("evaluation.")}
    if not telling:
        return title
    shown = {
        key: show(value)[: identity.HASH_LENGTH] if key.endswith(identity.SOURCE) else show(value)
        for key, value in telling.items()
    }
    return f"{title} [{', '.join(f'{key}={value}' for key, value in shown.items())}]"


@dataclass(frozen=True)
class Selection:
    """What a table is about: the results found, and the runs that were asked for and are not done."""

    results: tuple[StoredResult, ...]
    missing: tuple[str, ...]

    @property
    def note(self) -> str:
        """On results that nothing tells to be whole; empty if there are none."""
        count = sum(result.result.outcomes is None for result in self.results)
        many = f"{count} results from before checksums were" if count > 1 else "1 result from before checksums was"
        return f"Note: {many} read unchecked" if count else ""

    def studies(self) -> list[Study]:
        """The results in rows, the rows in studies."""
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
        return [_sorted(found) for found in studies.values()]


def _sorted(rows: list[Row]) -> Study:
    """The study of these rows, in the paper's order; of one policy, first what was attacked as most are."""
    study = Study(tuple(sorted(rows, key=_position)))
    usual = study.by_evaluation()[0][0].budget
    return Study(tuple(sorted(study.rows, key=lambda row: (*_position(row), row.budget != usual, row.budget))))


def _position(row: Row) -> tuple[int, int]:
    return (0 if row.paper else 1, paper.ORDER.get(row.policy, len(paper.ORDER)))


def select(store: Store, names: Sequence[str] = ()) -> Selection:
    """The results of sweeps and runs by name, as `pick` takes them; of all runs, those that are done.

    Raises InputError for a name that is neither, and where the store is empty.
    """
    picked = pick(store, names)
    wanted = {(entry["run"], entry["evaluation"]): None for sweep in picked.sweeps.values() for entry in sweep["runs"]}
    for name in picked.runs:
        done = [folder.path.name for folder in store.run(name).evaluations()]
        wanted |= {(name, evaluation): None for evaluation in done or ([] if picked.everything else [""])}
    if picked.everything and not wanted:
        raise InputError(f"store={store.root}: must be a folder with runs that are done; this one has none")
    return read(store, wanted)


def read(store: Store, wanted: Iterable[tuple[str, str]]) -> Selection:
    """The results of some evaluations, each as its run and its id.

    Raises DamagedError if one is not whole, or not of its outcomes.
    """
    results, missing = [], []
    for run, evaluation in wanted:
        folder = store.run(run).evaluation(evaluation)
        with _repairable():
            result = folder.result()
        if result is None:
            missing.append(run)
        else:
            results.append(StoredResult(folder, result))
            _ = results[-1].per_image  # which also checks the outcomes
    return Selection(tuple(results), tuple(missing))
