"""The BN records of a row's runs for figures: only some epochs, and notes instead of errors for damaged files."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bnft.batchnorm.record import RECORDED, BatchNormRecord
from bnft.common.errors import DamagedError
from bnft.report.rows import Row
from bnft.report.stored import StoredResult
from bnft.runs.run_folder import RunFolder

EPOCHS = 16  # epochs to keep of a long training, so that hundreds of runs fit into memory and a page


def channel_values(record: BatchNormRecord, layer: str, quantity: str) -> NDArray[np.float64]:
    """Return one of `record.QUANTITIES` of a layer, of shape (logged epochs, channels), without warnings."""
    with np.errstate(all="ignore"):
        return record.values(layer, quantity).astype(np.float64)


@dataclass(frozen=True)
class Moment:
    """The BN layers of one run at one logged epoch. `position` is its position in the record (-1 for the last)."""

    record: BatchNormRecord
    position: int

    def values(self, layer: str, quantity: str) -> NDArray[np.float64]:
        """Return one of `record.QUANTITIES`, of shape (channels,)."""
        return channel_values(self.record, layer, quantity)[self.position]


Moments = dict[int, Moment]  # by seed


@dataclass(frozen=True)
class RowRecords:
    """The BN records of a row.

    Attributes:
        records: the records by seed.
        bases: the BN layers that each run started from, by seed. They are the run's own epoch 0, so the base itself can
            be missing. If the statistics were reset before epoch 0, they are the last epoch of the base, if that can be
            read.
        notes: notes on records that cannot be read.
    """

    records: dict[int, BatchNormRecord]
    bases: Moments
    notes: tuple[str, ...]

    @cached_property
    def ends(self) -> Moments:
        """The last logged epoch of every run."""
        return {seed: Moment(record, -1) for seed, record in self.records.items()}

    @property
    def first(self) -> BatchNormRecord | None:
        """The record of the lowest seed that has one; None if there is none."""
        return next(iter(self.records.values()), None)

    @property
    def layers(self) -> list[str]:
        """The BN layers in the model's order; empty if there is no record or no BN layer."""
        return self.first.layers if self.first is not None else []


def picked(epochs: Sequence[int], most: int = EPOCHS, kept: int | None = None) -> list[int]:
    """Return at most `most` (>= 2) positions in `epochs`, evenly spaced, including the first and the last.

    The last one is `kept`, the epoch whose model is that of the run, unless that is None.
    """
    whole = sum(kept is None or epoch <= kept for epoch in epochs)
    return sorted({round(place) for place in np.linspace(0, whole - 1, min(most, whole)).tolist()})


def read(row: Row, most: int = EPOCHS) -> RowRecords:
    """Read the records of a row's runs, with at most `most` epochs each. Damaged files give notes, not errors."""
    records: dict[int, BatchNormRecord] = {}
    bases: Moments = {}
    notes: list[str] = []
    for result in sorted(row.results, key=lambda result: result.seed):
        seed = result.seed
        try:
            records[seed] = _read(result.run_folder, most)
            base = _base(result, records[seed])
        except DamagedError as error:
            notes.append(f"{result.run_folder.name}: no record of BN layers: {error}")
            continue
        if base is not None:
            bases[seed] = base
    return RowRecords(records, bases, tuple(notes))


def _base(result: StoredResult, record: BatchNormRecord) -> Moment | None:
    named = result.run.identity
    if named.get("base") is None or not record.epochs or record.epochs[0] != 0:
        return None
    if named.get("freeze_policy", {}).get("statistics") != "reset":
        return Moment(record, 0)
    if not result.run.base:  # a file of weights
        return None
    try:
        base = _read(RunFolder(result.run_folder.path.parent / result.run.base), 2)
    except DamagedError:
        return None
    if base.layers != record.layers:
        return None
    same = all(base.arrays[name].shape[1:] == values.shape[1:] for name, values in record.arrays.items())
    return Moment(base, -1) if same else None


def _read(folder: RunFolder, most: int) -> BatchNormRecord:
    """Read some epochs of a run's record. Raise DamagedError if quantities of layers or epochs are missing.

    The last one is the epoch whose model is that of the run.
    """
    record = folder.batchnorm()
    arrays = record.arrays
    shape = arrays["epochs"].shape if "epochs" in arrays else ()
    names = {f"{layer}.{quantity}" for layer in record.layers for quantity in RECORDED}
    whole = len(shape) == 1 and shape[0] > 0 and names == arrays.keys() - {"epochs"}
    for layer in record.layers if whole else ():
        shapes = {arrays[f"{layer}.{quantity}"].shape for quantity in RECORDED}
        whole = whole and len(shapes) == 1 and all(len(one) == 2 and one[0] == shape[0] and one[1] for one in shapes)
    if not whole:
        raise DamagedError(f"{folder.path / 'batchnorm.safetensors'}: is damaged, epochs or quantities are missing")
    kept = picked(record.epochs, most, record.kept)
    return BatchNormRecord({name: values[kept] for name, values in arrays.items()}, record.eps)
