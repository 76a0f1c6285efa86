"""Which channels a fine-tuned run turned off, in comparison with the model that it started from.

A BN layer passes a channel on as m z + b, so |m| is how loud the channel is, and its sign says which side of the
convolution's response is passed on. All thresholds are relative to the base model, as m has a scale of its own in
every layer.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnft.report.recorded import Moment, RowRecords, channel_values

NEAR_ZERO = 0.1
"""Of the base's median |m| in the layer: below it, a channel is near zero. Such a channel carries a hundredth of the
power of a typical one; and in a normally trained layer few channels are so quiet to begin with, which
`already` says for each layer."""
HALF = 0.5  # of a channel's own |m| in the base: below it, the channel is weakened

STATES = ("near_zero", "below_zero", "weakened", "above_zero")
"""What can have become of a channel; each is at most one of these.

near_zero: |m| is below NEAR_ZERO of the base's median. below_zero: m was above zero in the base, and not near it, and
is below zero. weakened: m kept its sign and lost more than half of its size. above_zero: the opposite of below_zero,
for comparison: if there were as many, changes of sign would be drift, and no turning off.
"""


@dataclass(frozen=True)
class TurnedOff:
    """Channels of one row that were turned off.

    `layers` has one dict for each seed, logged epoch and layer, `epochs` one for each seed and epoch, with all layers
    together: `seed`, `epoch`, `channels`, the STATES as numbers of channels, `turned_off` (near zero or below zero,
    and not near zero in the base), `already` (near zero in the base), and `share`, of turned-off channels in percent of
    all. `which` has the turned-off channels after training: seed to layer to channel numbers from 0.
    """

    layers: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    which: dict[int, dict[str, list[int]]]

    @property
    def last(self) -> list[dict[str, Any]]:
        """After training: those of `layers` that are of the last epoch of each seed."""
        ends = {line["seed"]: line["epoch"] for line in self.layers}
        return [line for line in self.layers if line["epoch"] == ends[line["seed"]]]


def turned_off(row: RowRecords) -> TurnedOff | None:
    """What became of the channels of a row's runs over their epochs; None for a row that started from no base."""
    layers: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    which: dict[int, dict[str, list[int]]] = {}
    for seed, base in row.bases.items():
        record, found = row.records[seed], []
        which[seed] = {}
        for layer in record.layers:
            states = _states(base, layer, channel_values(record, layer, "m"))
            counts = {name: state.sum(axis=1).tolist() for name, state in states.items()}
            channels = states["already"].shape[1]
            for position, epoch in enumerate(record.epochs):
                place = {"seed": seed, "epoch": epoch, "layer": layer, "channels": channels}
                found.append(_with_share({**place, **{name: count[position] for name, count in counts.items()}}))
            which[seed][layer] = np.flatnonzero(states["turned_off"][-1]).tolist()
        layers += found
        epochs += [_together([line for line in found if line["epoch"] == epoch]) for epoch in record.epochs if found]
    return TurnedOff(layers, epochs, which) if layers else None


def _states(base: Moment, layer: str, m: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    """For m of shape (epochs, channels), which channels are in which state."""
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
    """One line for all layers of an epoch."""
    summed = {name: sum(line[name] for line in lines) for name in ("channels", *STATES, "turned_off", "already")}
    return _with_share({"seed": lines[0]["seed"], "epoch": lines[0]["epoch"], **summed})


def _with_share(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "share": 100 * line["turned_off"] / line["channels"]}
