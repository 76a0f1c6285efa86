"""All figures of one group of rows, drawn from the files of its runs in the store."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from bnft.common.errors import DamagedError
from bnft.report import channels, outcomes, recorded, statements
from bnft.report.channels import TurnedOff
from bnft.report.figures import batchnorm, errors, runs
from bnft.report.figures import outcomes as outcome_figures
from bnft.report.figures.base import Figure
from bnft.report.groups import Group, Series
from bnft.report.outcomes import RowScores
from bnft.report.recorded import RowRecords
from bnft.report.rows import Row, Study
from bnft.report.statement import Statement
from bnft.report.stored import StoredResult


@dataclass(frozen=True)
class Read:
    """The data of a group's runs. Each file is read once.

    Attributes:
        group: the rows.
        study: the study that they are part of. Its claims are about its first group.
        chosen: the labels of the rows that figures show at first; empty for the usual ones.
    """

    group: Group
    study: Study
    chosen: tuple[str, ...] = ()

    @cached_property
    def records(self) -> dict[str, RowRecords]:
        """The BN records by label."""
        return {series.label: recorded.read(series.row) for series in self.group.series}

    @cached_property
    def scores(self) -> dict[str, RowScores]:
        """The scores by label."""
        return {series.label: outcomes.read(series.row) for series in self.group.series}

    @cached_property
    def histories(self) -> dict[str, runs.Histories]:
        """The training histories by label. A damaged history has no lines."""
        return {label: {seed: lines for seed, (lines, _) in found.items()} for label, found in self._histories.items()}

    @cached_property
    def _histories(self) -> dict[str, dict[int, tuple[list[dict[str, Any]], str]]]:
        return {one.label: {result.seed: _history(result) for result in one.row.results} for one in self.group.series}

    @property
    def compared(self) -> list[Series]:
        """The rows that detailed figures show at first."""
        if self.chosen:
            return [series for series in self.group.series if series.label in self.chosen]
        return self.group.highlighted(self.study)

    @property
    def notes(self) -> list[str]:
        """Notes on files that could not be read."""
        notes = [note for rows in (self.records, self.scores) for row in rows.values() for note in row.notes]
        return [*notes, *(note for found in self._histories.values() for _, note in found.values() if note)]

    @cached_property
    def statements(self) -> list[Statement]:
        """The claims about distributions; empty if none of them can be measured."""
        labels = {id(series.row): series.label for series in self.group.series}

        def records(row: Row) -> RowRecords:
            return self.records[labels[id(row)]] if id(row) in labels else recorded.read(row, most=2)

        def scores(row: Row) -> RowScores:
            return self.scores[labels[id(row)]] if id(row) in labels else outcomes.read(row)

        return statements.of_study(self.study, records, scores)


def _history(result: StoredResult) -> tuple[list[dict[str, Any]], str]:
    """Return the lines of a run's history, and a note if they cannot be read."""
    try:
        return result.run_folder.history(), ""
    except DamagedError as error:
        return [], f"{result.run_folder.name}: no training curve: {error}"


def drawn(read: Read, every_epoch: bool = True, again: bool = False, layer: str | None = None) -> list[Figure]:
    """Return the group's figures, without those that have no data.

    Args:
        read: the data of the group.
        every_epoch: whether Figure 1 has every logged epoch, rather than the last one only.
        again: leave out the figures of models and their training, because another group shows them. The remaining
            figures show how the models were evaluated.
        layer: the BN layer that Figure 1 shows at first; None for the paper's.
    """
    group = read.group
    first = read.study.definition.layer if read.study.definition else 1
    figures = [
        errors.scatter(group),
        None if again else batchnorm.figure1(group.series, read.records, every_epoch, read.compared, layer or first),
        None if again else batchnorm.figure2(group.series, read.records, _means(read), read.compared),
        outcome_figures.figure3(group.series, read.scores, _images(read), read.compared),
        None if again else _spread(read),
        None if again else _channels(read),
        None if again else runs.training(group, read.histories),
        errors.cascade(group, outcomes.cascade),
        runs.costs(group, _seconds),
    ]
    return [shown for figure in figures if figure is not None and (shown := showing(figure, read.chosen)) is not None]


def showing(figure: Figure, chosen: Sequence[str]) -> Figure | None:
    """Return a figure that shows the chosen rows at first; None if it is about rows, but about none of these."""
    if not chosen or not figure.series:
        return figure
    shown = tuple(one.label for one in figure.series if one.label in chosen)
    return replace(figure, shown=shown) if shown else None


def _means(read: Read) -> str:
    caption = "The mean of m over the channels of each layer."
    if any(len(read.records[series.label].records) > 1 for series in read.compared):
        caption += " Vertical lines show one standard deviation over seeds."
    texts = []
    for one in read.statements:
        if one.claim.measure == "mean_m" and one.difference is not None and one.interval is not None:
            low, high = one.interval
            published = f"; the paper reports {one.published:+.3f}" if one.published is not None else ""
            difference = f"{one.difference:+.3f} [{low:+.3f}, {high:+.3f}]{published}"
            texts.append(f"{one.claim.row} minus {one.claim.than} {difference}")
    if texts:
        caption += (
            f" Average difference over layers, after training: {'; '.join(texts)} (brackets contain bootstrap"
            " intervals over layers)."
        )
    return caption


def _images(read: Read) -> str:
    scores = {series.label: read.scores[series.label] for series in read.compared}
    counts = sorted({len(one.clean) for row in scores.values() for one in row.scores.values()})
    images = f"The histograms show the {'/'.join(map(str, counts))} attacked images without an attack"
    if any(len(one.pgd) for row in scores.values() for one in row.scores.values()):
        images += " and as PGD examples. PGD examples count whether they fool the model or not."
    else:
        images += ". These older results have no PGD examples."
    return images


def _spread(read: Read) -> Figure | None:
    names = {
        "mean_abs_gamma": ("mean |γ|", "mean_size"),
        "mean_abs_gamma_minus_1": ("mean |γ − 1|", "mean_size"),
        "mean_abs_beta": ("mean |β|", "mean_size"),
        "variance_range": ("interquartile range of σ²", "range"),
    }
    shown = [one for one in read.statements if one.claim.measure in names and one.details]
    pairs = list(dict.fromkeys((one.claim.row, one.claim.than) for one in shown))
    rows = []
    for one in shown:
        quantity, key = names[one.claim.measure]
        whose = f" ({one.claim.row} / {one.claim.than})" if len(pairs) > 1 else ""
        rows += [{"layer": line["layer"], "quantity": quantity + whose, "ratio": line[key]} for line in one.details]
    first, second = pairs[0] if len(pairs) == 1 else ("one row", "another")
    caption = (
        f"Spread of {first} divided by that of {second}, in each layer. Below one, γ, γ − 1 or β is more concentrated"
        " around zero, or the histogram of the running variance is narrower."
    )
    measured = [row for row in rows if row["ratio"] is not None]
    return batchnorm.layer_ratios(measured, f"{first} relative to {second}", caption)


def _channels(read: Read) -> Figure | None:
    tuned = [series for series in read.group.series if series.row.learns]
    turned = {series.label: channels.turned_off(read.records[series.label]) for series in tuned}
    shown = {label: one for label, one in turned.items() if one is not None}
    caption = (
        f"Fine-tuning turns a channel off if |m| becomes smaller than {100 * channels.NEAR_ZERO:.0f} % of the base's"
        " median in that layer, or if m changes from positive to negative. Channels with such a small |m| in the base"
        f" do not count. After training: {'; '.join(_turned(label, one) for label, one in shown.items())}. If as many"
        " channels change from negative to positive as from positive to negative, this is drift rather than turning"
        " off."
    )
    return batchnorm.channels(tuned, read.records, shown, caption)


def _turned(label: str, one: TurnedOff) -> str:
    """Return the counts of a row's channels, over all layers and seeds."""
    keys = ("turned_off", "channels", "near_zero", "below_zero", "above_zero")
    off, every, near, below, above = (f"{sum(line[key] for line in one.last):,}" for key in keys)
    return f"{label} {off} of {every} ({near} near zero, {below} from positive to negative; {above} the other way)"


def _seconds(row: Row) -> dict[str, float | None]:
    """Return the mean seconds of training and evaluation per run of a row, with previews."""
    runs = [stored.result for stored in row.results]
    previews = [stored.preview.result.seconds for stored in row.results if stored.preview is not None]
    return {
        "training": sum(result.training.seconds or 0.0 for result in runs) / len(runs),
        "evaluation": (sum(result.seconds for result in runs) + sum(previews)) / len(runs),
    }
