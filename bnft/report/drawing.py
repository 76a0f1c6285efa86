"""All figures of one group of rows, from what its runs left in the store."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bnft.common.errors import DamagedError
from bnft.report import channels, outcomes, recorded, statements
from bnft.report.channels import TurnedOff
from bnft.report.distributions import layer_means, mean_difference
from bnft.report.figures import batchnorm, errors, runs
from bnft.report.figures import outcomes as outcome_figures
from bnft.report.figures.base import Figure
from bnft.report.groups import Group, Series
from bnft.report.outcomes import RowScores, score_histograms
from bnft.report.recorded import RowRecords
from bnft.report.rows import StoredResult
from bnft.report.statements import PAPER_DIFFERENCE, Statement

COMPARED = ("normal", "adv", "bn_params")  # that the paper's figures compare
FEWEST = 3  # rows in those figures, where there are as many
STATISTICS_POLICIES = ("bn_stats", "bn_stats_no_reset")  # whose change is none of learning


@dataclass(frozen=True)
class Read:
    """What is read of a group's runs, each once."""

    group: Group

    @cached_property
    def records(self) -> dict[str, RowRecords]:
        """By label."""
        return {series.label: recorded.read(series.row) for series in self.group.series}

    @cached_property
    def scores(self) -> dict[str, RowScores]:
        """By label."""
        return {series.label: outcomes.read(series.row) for series in self.group.series}

    @cached_property
    def histories(self) -> dict[str, list[list[dict[str, Any]]]]:
        """By label, one list of lines per run; none of a run whose history is damaged."""
        return {label: [lines for lines, _ in found] for label, found in self._histories.items()}

    @cached_property
    def _histories(self) -> dict[str, list[tuple[list[dict[str, Any]], str]]]:
        return {series.label: [_history(result) for result in series.row.results] for series in self.group.series}

    @property
    def compared(self) -> list[Series]:
        """The rows of Figures 1 to 3: the paper's three, with others in the place of those that are not there."""
        found = self.group.of(*COMPARED)
        others = [series for series in self.group.series if series not in found]
        return [*found, *others[: max(0, FEWEST - len(found))]]

    @property
    def notes(self) -> list[str]:
        """On what could not be read."""
        found = [note for rows in (self.records, self.scores) for row in rows.values() for note in row.notes]
        return [*found, *(note for runs in self._histories.values() for _, note in runs if note)]

    @cached_property
    def statements(self) -> list[Statement]:
        """What the paper says of distributions; nothing where it is about none of the rows."""
        compared = self.group.by_policy
        found = statements.statements(
            {policy: self.records[series.label] for policy, series in compared.items()},
            {policy: self.scores[series.label] for policy, series in compared.items()},
            {policy: series.row for policy, series in compared.items()},
        )
        return found if any(one.verdict != "not measured" for one in found) else []


def _history(result: StoredResult) -> tuple[list[dict[str, Any]], str]:
    """The lines of a run's history, and a note if they cannot be read."""
    try:
        return result.run_folder.history(), ""
    except DamagedError as error:
        return [], f"{result.run_folder.name}: no training curve: {error}"


def drawn(read: Read, every_epoch: bool = True, again: bool = False) -> list[Figure]:
    """The group's figures, without those that there is nothing to draw of.

    `again` leaves out those of models and their training, which are drawn in another group; every other is of how the
    models were evaluated.
    """
    group = read.group
    found = [
        errors.scatter(group),
        None if again else batchnorm.figure1(read.compared, read.records, every_epoch),
        None if again else batchnorm.figure2(*_means(read)),
        outcome_figures.figure3(read.compared, *_scores(read)),
        None if again else _spread(read),
        None if again else _channels(read),
        None if again else runs.training(group, read.histories),
        errors.cascade(group, {series.label: outcomes.cascade(series.row) for series in group.series}),
        runs.costs(group, _seconds(group)),
    ]
    return [figure for figure in found if figure is not None]


def _means(read: Read) -> tuple[Any, Any, str]:
    found = {series.label: layer_means(read.records[series.label].ends) for series in read.compared}
    caption = "The mean of m over a layer's channels, after training."
    if any(len(read.records[series.label].records) > 1 for series in read.compared):
        caption += " Lines show one standard deviation over seeds."
    tuned = {series.row.policy: read.records[series.label] for series in read.compared}
    said = []
    for policy, name in (("normal", "NORMAL"), ("adv", "ADV")):
        difference = None
        if policy in tuned and "bn_params" in tuned:
            difference = mean_difference(tuned["bn_params"].ends, tuned[policy].ends)
        if difference is not None:
            low, high = difference.interval
            spread = f" ± {difference.deviation:.3f} over seeds" if difference.deviation is not None else ""
            said.append(f"BN PARAMS minus {name} {difference.average:+.3f}{spread} [{low:+.3f}, {high:+.3f}]")
    if said:
        caption += f" Average difference over layers: {'; '.join(said)} (in brackets: bootstrap over layers)."
        caption += f" The paper has {PAPER_DIFFERENCE} and leaves open which of the two it is."
    return read.compared, {label: means for label, means in found.items() if means is not None}, caption


def _scores(read: Read) -> tuple[Any, str]:
    scores = {series.label: read.scores[series.label] for series in read.compared}
    counts = sorted({len(one.clean) for row in scores.values() for one in row.scores.values()})
    images = f"Of the {'/'.join(map(str, counts))} images that were attacked, before and after." if counts else ""
    return score_histograms(scores), images


def _spread(read: Read) -> Figure | None:
    names = {
        "gamma_concentrated": ("mean |γ|", "mean_size"),
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
        "BN PARAMS relative to NORMAL in each layer; below one, the distribution is narrower around zero, or, of the"
        " running variance, narrower."
    )
    return batchnorm.layer_ratios([row for row in rows if row["ratio"] is not None], caption)


def _channels(read: Read) -> Figure | None:
    tuned = [series for series in read.group.series if series.row.policy not in STATISTICS_POLICIES]
    turned = {series.label: channels.turned_off(read.records[series.label]) for series in tuned}
    found = {label: one for label, one in turned.items() if one is not None}
    caption = (
        f"Channels that fine-tuning turned off: |m| fell below {100 * channels.NEAR_ZERO:.0f} % of the base's median in"
        " that layer, or m was pushed from above zero to below it. Channels that were as quiet before do not count."
        f" After training: {'; '.join(_turned(label, one) for label, one in found.items())}. If as many channels go up"
        " through zero as down, that is drift rather than turning off."
    )
    return batchnorm.channels(tuned, found, caption)


def _turned(label: str, one: TurnedOff) -> str:
    """What became of a row's channels, in all layers and over its seeds."""
    keys = ("turned_off", "channels", "near_zero", "below_zero", "above_zero")
    off, every, near, below, above = (f"{sum(line[key] for line in one.last):,}" for key in keys)
    return f"{label} {off} of {every} ({near} near zero, {below} pushed below it; {above} pushed above it)"


def _seconds(group: Group) -> list[dict[str, Any]]:
    lines = []
    for series in group.series:
        runs = [stored.result for stored in series.row.results]
        lines.append(
            {
                "row": series.label,
                "training": sum(result.training.seconds or 0.0 for result in runs) / len(runs),
                "evaluation": sum(result.seconds for result in runs) / len(runs),
            }
        )
    return lines
