"""The channels that a fine-tuned run turned off, compared with the model that it started from.

A BN layer maps a channel z to m z + b. So |m| is the strength of the channel, and the sign of m decides which side of
the convolution's response is passed on. All thresholds are relative to the base model, because each layer has its own
scale of m.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnft.report.recorded import Moment, RowRecords, channel_values

NEAR_ZERO = 0.1
"""A channel is near zero if its |m| is below this fraction of the base's median |m| in the layer. Such a channel has
less than a hundredth of the power of a typical one. In a normally trained layer, few channels are near zero before
fine-tuning. `already` counts them."""
HALF = 0.5  # a channel is weakened if its |m| is below this fraction of its own |m| in the base

STATES = ("near_zero", "below_zero", "weakened", "above_zero")
"""The possible states of a channel after fine-tuning. A channel is in at most one of them.

near_zero: |m| is below NEAR_ZERO of the base's median. below_zero: m is negative, but was positive and not near zero in
the base. weakened: m kept its sign and lost more than half of its size. above_zero: the opposite of below_zero, for
comparison. If both are equally frequent, changes of sign are drift rather than turning off.
"""


@dataclass(frozen=True)
class TurnedOff:
    """The channels of one row that were turned off.

    Attributes:
        layers: a dict per seed, logged epoch and layer. It has `seed`, `epoch`, `layer`, `channels`, and the number of
            channels in each of STATES. `turned_off` counts the channels that are near zero or below zero and were not
            near zero in the base, `already` those that were near zero in the base. `share` is `turned_off` in percent
            of `channels`.
        epochs: the same, for all layers together.
        which: the turned-off channels after training: seed to layer to channel numbers, counted from 0.
    """

    layers: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    which: dict[int, dict[str, list[int]]]

    @property
    def last(self) -> list[dict[str, Any]]:
        """Those of `layers` that belong to the last epoch of each seed."""
        ends = {line["seed"]: line["epoch"] for line in self.layers}
        return [line for line in self.layers if line["epoch"] == ends[line["seed"]]]


def turned_off(row: RowRecords) -> TurnedOff | None:
    """Compare the channels of a row's runs with their bases, at each epoch; None if the runs have no base."""
    layers: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    which: dict[int, dict[str, list[int]]] = {}
    for seed, base in row.bases.items():
        record, lines = row.records[seed], []
        which[seed] = {}
        for layer in record.layers:
            states = _states(base, layer, channel_values(record, layer, "m"))
            counts = {name: state.sum(axis=1).tolist() for name, state in states.items()}
            channels = states["already"].shape[1]
            for position, epoch in enumerate(record.epochs):
                place = {"seed": seed, "epoch": epoch, "layer": layer, "channels": channels}
                lines.append(_with_share({**place, **{name: count[position] for name, count in counts.items()}}))
            which[seed][layer] = np.flatnonzero(states["turned_off"][-1]).tolist()
        layers += lines
        epochs += [_together([line for line in lines if line["epoch"] == epoch]) for epoch in record.epochs if lines]
    return TurnedOff(layers, epochs, which) if layers else None


def _states(base: Moment, layer: str, m: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    """Return a mask (epochs, channels) for each state, given m (epochs, channels)."""
    start = base.values(layer, "m")[None]
    quiet = NEAR_ZERO * np.median(np.abs(start))
    already = np.broadcast_to(np.abs(start) < quiet, m.shape)
    near = np.abs(m) < quiet
    crossed = ~near & ~already & (start * m < 0)
    below, above = crossed & (m < 0), crossed & (m > 0)
    weakened = ~near & (start * m > 0) & (np.abs(m) < HALF * np.abs(start))
    states = dict(zip(STATES, (near, below, weakened, above), strict=True))
    return {**states, "turned_off": (near & ~already) | below, "already": already}


def _together(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the sums over all layers of an epoch."""
    summed = {name: sum(line[name] for line in lines) for name in ("channels", *STATES, "turned_off", "already")}
    return _with_share({"seed": lines[0]["seed"], "epoch": lines[0]["epoch"], **summed})


def _with_share(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "share": 100 * line["turned_off"] / line["channels"]}
