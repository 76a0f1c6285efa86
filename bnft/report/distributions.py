"""The numbers of Figures 1 and 2: histograms of gamma, beta, mean, variance, m and b in each BN layer, and mean m.

The functions take records (Figure 1) or moments, which are the BN layers at one epoch, by seed. `RowRecords.ends` has
those of trained models, and `RowRecords.bases` those that they started from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnft.batchnorm.record import BatchNormRecord
from bnft.report.recorded import Moment, channel_values, read
from bnft.report.rows import Row

BINS = 40
CLIPPED = 0.5  # percent of the values at either end that may lie beyond the edges; the outermost bins count them
RESAMPLES = 4000  # of the bootstrap


@dataclass(frozen=True)
class Histograms:
    """Histograms of one quantity of one layer, for several records and epochs.

    Attributes:
        layer: the layer.
        quantity: the quantity.
        edges: the bins + 1 common edges of the bins.
        log10: whether the bins have equal width on a logarithmic scale.
        epochs: the epochs of each record. A record without the layer has none.
        counts: `counts[record][epoch][bin]` is a number of channels. The outermost bins also count values beyond them.
        beyond: the number of values beyond the outermost edges.
        not_finite: the number of values that are not finite, which no bin counts.
    """

    layer: str
    quantity: str
    edges: tuple[float, ...]
    log10: bool
    epochs: tuple[tuple[int, ...], ...]
    counts: tuple[tuple[tuple[int, ...], ...], ...]
    beyond: int
    not_finite: int


def histograms(
    records: Sequence[BatchNormRecord],
    layer: str,
    quantity: str,
    *,
    bins: int = BINS,
    log10: bool = False,
    within: Sequence[BatchNormRecord] | None = None,
) -> Histograms | None:
    """Compute the histograms of Figure 1.

    Args:
        records: the records to compare.
        layer: the layer.
        quantity: one of `record.QUANTITIES`.
        bins: the number of bins.
        log10: use bins of equal width on a logarithmic scale, for positive quantities such as the variance. Values
            that are not positive count in the first bin.
        within: the records whose values determine the edges; None for all records.

    Returns:
        The histograms; None if no record has the layer.
    """
    of_records = [channel_values(record, layer, quantity) if layer in record.layers else None for record in records]
    pooled = [values.ravel() for values in of_records if values is not None]
    if not pooled:
        return None
    leading = pooled
    if within is not None:
        leading = [channel_values(record, layer, quantity).ravel() for record in within if layer in record.layers]
    edges = common_edges(np.concatenate(leading or pooled), bins, log10)
    counts, epochs = [], []
    for record, values in zip(records, of_records, strict=True):
        counts.append(counted(values, edges) if values is not None else ())
        epochs.append(tuple(record.epochs) if values is not None else ())
    every = np.concatenate(pooled)
    finite = every[np.isfinite(every)]
    beyond = int(((finite < edges[0]) | (finite > edges[-1])).sum())
    shown = tuple(edges.tolist())
    return Histograms(layer, quantity, shown, log10, tuple(epochs), tuple(counts), beyond, len(every) - len(finite))


def common_edges(values: NDArray[Any], bins: int = BINS, log10: bool = False) -> NDArray[np.float64]:
    """Return the edges of bins of equal width over the range of `values`, without CLIPPED percent at either end."""
    finite = values[np.isfinite(values)]
    if log10:
        finite = np.log10(finite[finite > 0])
    low, high = np.percentile(finite, [CLIPPED, 100 - CLIPPED]).tolist() if len(finite) else (0.0, 0.0)
    if high - low < 1e-6 * max(1.0, abs(low)):  # all values are equal: they are in the middle bin
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    return 10**edges if log10 else edges


def counted(values: NDArray[Any], edges: NDArray[np.float64]) -> tuple[tuple[int, ...], ...]:
    """Count the values of each line (lines, n) in each bin. The outermost bins also count values beyond them."""
    bins = len(edges) - 1
    lines, which = np.arange(len(values))[:, None], np.searchsorted(edges, values, side="right") - 1
    flat = (lines * bins + np.clip(which, 0, bins - 1))[np.isfinite(values)]
    counts = np.bincount(flat, minlength=len(values) * bins).reshape(len(values), bins)
    return tuple(tuple(line) for line in counts.tolist())


@dataclass(frozen=True)
class LayerMeans:
    """The numbers of Figure 2 for one row.

    Attributes:
        layers: the layers.
        means: the mean of a quantity over the channels of each layer and over seeds; None if it is not finite.
        deviations: the standard deviation over seeds; None for one seed.
        seeds: the seeds.
    """

    layers: tuple[str, ...]
    means: tuple[float | None, ...]
    deviations: tuple[float | None, ...]
    seeds: tuple[int, ...]


def layer_means(moments: Mapping[int, Moment], quantity: str = "m") -> LayerMeans | None:
    """Return the mean of a quantity in each layer; None if there are no records or no BN layers."""
    layers = _layers(moments)
    if not layers:
        return None
    with np.errstate(all="ignore"):
        table = np.array([[moment.values(layer, quantity).mean() for layer in layers] for moment in moments.values()])
        deviations = table.std(axis=0, ddof=1) if len(table) > 1 else np.full(len(layers), np.nan)
    return LayerMeans(tuple(layers), _plain(table.mean(axis=0)), _plain(deviations), tuple(moments))


@dataclass(frozen=True)
class MeanDifference:
    """The mean m of one row minus that of another.

    Attributes:
        layers: the layers that both rows have. Layers with a mean that is not finite are left out.
        differences: the difference in each layer.
        average: the average over layers.
        deviation: its standard deviation over `seeds`; None for fewer than two.
        lower: the number of layers in which the first row has the lower mean.
        seeds: the seeds that both rows have.
    """

    layers: tuple[str, ...]
    differences: tuple[float, ...]
    average: float
    deviation: float | None
    lower: int
    seeds: tuple[int, ...]

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % percentile bootstrap interval of the average over layers.

        It treats layers as independent, which they are not, and does not account for other seeds.
        """
        return bootstrap(np.array(self.differences))


def mean_difference(
    first: Mapping[int, Moment], second: Mapping[int, Moment], quantity: str = "m"
) -> MeanDifference | None:
    """Return `first` minus `second`, between runs of equal seed if there are any; None if no layer can be compared."""
    common = [seed for seed in first if seed in second]
    pairs = [({seed: first[seed]}, {seed: second[seed]}) for seed in common] or [(dict(first), dict(second))]
    tables = [_differences(ours, theirs, quantity) for ours, theirs in pairs]
    layers = [layer for layer in tables[0] if all(layer in table for table in tables)]
    if not layers:
        return None
    values = np.array([[table[layer] for layer in layers] for table in tables])
    by_seed, by_layer = values.mean(axis=1).tolist(), values.mean(axis=0)
    return MeanDifference(
        tuple(layers),
        tuple(by_layer.tolist()),
        fmean(by_seed),
        stdev(by_seed) if len(by_seed) > 1 else None,
        int((by_layer < 0).sum()),
        tuple(common),
    )


def shift_of_m(row: Row) -> float | None:
    """Return how far mean m of a row's BN layers has moved from the base, on average over layers and seeds.

    Return None if the row has no base, or if a record cannot be read.
    """
    records = read(row, most=2)
    moved = mean_difference(records.ends, records.bases)
    return moved.average if moved is not None else None


def bootstrap(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean of `values` (n,), with a fixed seed."""
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5]).tolist()
    return low, high


def _differences(ours: Mapping[int, Moment], theirs: Mapping[int, Moment], quantity: str) -> dict[str, float]:
    means, others = layer_means(ours, quantity), layer_means(theirs, quantity)
    if means is None or others is None:
        return {}
    known = dict(zip(others.layers, others.means, strict=True))
    differences = {}
    for layer, mean in zip(means.layers, means.means, strict=True):
        other = known.get(layer)
        if mean is not None and other is not None:
            differences[layer] = mean - other
    return differences


def _layers(moments: Mapping[int, Moment]) -> list[str]:
    """Return the layers that all moments have, in the model's order."""
    every = [moment.record.layers for moment in moments.values()]
    return [layer for layer in every[0] if all(layer in layers for layers in every)] if every else []


def _plain(values: NDArray[np.float64]) -> tuple[float | None, ...]:
    return tuple(value if np.isfinite(value) else None for value in values.tolist())
