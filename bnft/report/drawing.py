"""All figures of one group of rows, drawn from the files of its runs in the store."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from bnft.common.errors import DamagedError
from bnft.report import channels, outcomes, recorded, statements
from bnft.report.channels import TurnedOff
from bnft.report.distributions import mean_difference
from bnft.report.figures import batchnorm, errors, runs
from bnft.report.figures import outcomes as outcome_figures
from bnft.report.figures.base import Figure
from bnft.report.groups import Group, Series
from bnft.report.outcomes import RowScores
from bnft.report.recorded import RowRecords
from bnft.report.rows import Row
from bnft.report.statements import COMPARED, PAPER_DIFFERENCE, Statement
from bnft.report.stored import StoredResult

FEWEST = 3  # rows in these figures, if the group has as many
STATISTICS_POLICIES = ("bn_stats", "bn_stats_no_reset")  # these learn no parameters


@dataclass(frozen=True)
class Read:
    """The data of a group's runs. Each file is read once.

    Attributes:
        group: the rows.
        chosen: the labels of the rows that figures show at first; empty for the usual ones.
    """

    group: Group
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
    def histories(self) -> dict[str, list[list[dict[str, Any]]]]:
        """The training histories by label, one list of lines per run. A damaged history has no lines."""
        return {label: [lines for lines, _ in runs] for label, runs in self._histories.items()}

    @cached_property
    def _histories(self) -> dict[str, list[tuple[list[dict[str, Any]], str]]]:
        return {series.label: [_history(result) for result in series.row.results] for series in self.group.series}

    @property
    def compared(self) -> list[Series]:
        """The rows of Figures 1 to 3: the three of the paper, and others if some of these are missing."""
        if self.chosen:
            return [series for series in self.group.series if series.label in self.chosen]
        chosen = self.group.of(*COMPARED)
        others = [series for series in self.group.series if series not in chosen]
        return [*chosen, *others[: max(0, FEWEST - len(chosen))]]

    @property
    def notes(self) -> list[str]:
        """Notes on files that could not be read."""
        notes = [note for rows in (self.records, self.scores) for row in rows.values() for note in row.notes]
        return [*notes, *(note for runs in self._histories.values() for _, note in runs if note)]

    @cached_property
    def statements(self) -> list[Statement]:
        """The paper's statements about distributions; empty if none of them can be measured."""
        compared = self.group.by_policy
        found = statements.statements(
            {policy: self.records[series.label] for policy, series in compared.items()},
            {policy: self.scores[series.label] for policy, series in compared.items()},
            {policy: series.row for policy, series in compared.items()},
        )
        return statements.measured(found)


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
    figures = [
        errors.scatter(group),
        None if again else batchnorm.figure1(group.series, read.records, every_epoch, read.compared, layer),
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
    tuned = {series.row.policy: read.records[series.label] for series in read.compared}
    texts = []
    for policy, name in (("normal", "NORMAL"), ("adv", "ADV")):
        difference = None
        if policy in tuned and "bn_params" in tuned:
            difference = mean_difference(tuned["bn_params"].ends, tuned[policy].ends)
        if difference is not None:
            low, high = difference.interval
            spread = f" ± {difference.deviation:.3f} over seeds" if difference.deviation is not None else ""
            texts.append(f"BN PARAMS minus {name} {difference.average:+.3f}{spread} [{low:+.3f}, {high:+.3f}]")
    if texts:
        caption += (
            f" Average difference over layers, after training: {'; '.join(texts)} (brackets contain bootstrap"
            " intervals over layers)."
        )
        caption += f" The paper reports {PAPER_DIFFERENCE}, but does not say for which of the two."
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
        "gamma_concentrated": ("mean |γ|", "mean_size"),
        "gamma_minus_1_concentrated": ("mean |γ − 1|", "mean_size"),
        "beta_concentrated": ("mean |β|", "mean_size"),
        "variance_collapses": ("interquartile range of σ²", "range"),
    }
    rows = [
        {"layer": line["layer"], "quantity": names[one.key][0], "ratio": line[names[one.key][1]]}
        for one in read.statements
        if one.key in names
        for line in one.details
    ]
    caption = (
        "Spread of BN PARAMS divided by that of NORMAL, in each layer. Below one, γ, γ − 1 or β is more concentrated"
        " around zero, or the histogram of the running variance is narrower."
    )
    return batchnorm.layer_ratios([row for row in rows if row["ratio"] is not None], caption)


def _channels(read: Read) -> Figure | None:
    tuned = [series for series in read.group.series if series.row.policy not in STATISTICS_POLICIES]
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
