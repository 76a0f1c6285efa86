"""Typed records of runs, as they are stored. Each has the version of its format.

`Result` is result.json. `RunRecord` is part of it and of config.yaml. `TrainingRecord` is part of it, and is stored
with the weights of a checkpoint or a model. They are only written and read here, without PyTorch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bnft.batchnorm.counts import Counts
from bnft.common.errors import DamagedError, InputError
from bnft.evaluation.settings import Evaluation
from bnft.evaluation.summary import Summary

FORMAT = 2  # increased when older programs would misread new records; records without a version have format 1


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The name and description of a run.

    Args:
        policy: the name of its policy.
        title: the name of its row.
        identity: the part of the configuration whose hash is in the name; see `bnft.runs.identity`.
        name: the run's name; older records have none.
        base: the name of the run that it starts from.
        overrides: the values that differ from its policy, apart from data, model, schedule and seed.
        line: the command line, as overrides, that computes the same numbers.
        sources: the source files of a user's own components, and their SHA-256.
    """

    policy: str
    title: str
    identity: dict[str, Any]
    name: str | None = None
    base: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    line: list[str] | None = None
    sources: dict[str, str] = field(default_factory=dict)
    format: int = 1


@dataclass(frozen=True, kw_only=True)
class HardwareRecord:
    """The hardware that a run was trained on. `name` describes it in words."""

    device: str
    precision: str
    threads: int
    name: str


@dataclass(frozen=True, kw_only=True)
class MonitoredErrors:
    """The errors of the model at the end of an epoch, in percent, by the quick attack on held-out training images."""

    epoch: int
    clean_error: float
    robust_error: float

    def __str__(self) -> str:
        return f"epoch {self.epoch}: clean error {self.clean_error:.2f} %, robust error {self.robust_error:.1f} %"


@dataclass(frozen=True, kw_only=True)
class MonitorRecord:
    """The record of monitoring.

    Args:
        images: the number of held-out training images.
        epoch: the epoch whose model was kept.
        best: the epoch with the lowest robust error.
        last: the last epoch.
    """

    images: int
    epoch: int
    best: MonitoredErrors
    last: MonitoredErrors

    def __str__(self) -> str:
        kept, (name, other) = self.last, ("best", self.best)
        if self.epoch == self.best.epoch:
            kept, (name, other) = self.best, ("last", self.last)
        beside = f"; {name}, {other}" if other != kept else ""
        return f"kept {kept}{beside} (quick attack on {self.images} held-out training images)"


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """The record of a training, which is stored with the model."""

    run: str | None = None
    counts: Counts
    hardware: HardwareRecord | None = None
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None
    monitor: MonitorRecord | None = None
    format: int = 1


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """The data of a run.

    Args:
        target: the component that loads the data.
        sha256: the hash of their content.
        augmentation: the augmentation of training images.
        images: the number of training images.
        validation: the number of training images that were held out, and used instead of the test images.
        fill: the configured `data.fill`.
        interpolation: the configured `data.interpolation`.
        mean: the mean of each channel.
        std: the standard deviation of each channel.
    """

    target: str
    sha256: str
    augmentation: str
    images: int
    validation: int | None = None
    fill: str | None = None
    interpolation: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None


@dataclass(kw_only=True)
class EvaluationRecord(Evaluation):
    """The settings of an evaluation, and its `id`, which is the name of its folder.

    `search` is a setting of AutoAttack that only older results have.
    """

    id: str
    search: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings without the id."""
        return {name: value for name, value in vars(self).items() if name != "id"}


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """The result of one evaluation of one run.

    `outcomes` is the checksum of the outcomes from which the numbers were computed. Older results have none.
    """

    run: RunRecord
    evaluation: EvaluationRecord
    data: DataRecord
    training: TrainingRecord
    seed: int
    outcomes: str | None = None
    format: int = 1


Record = TypeVar("Record", RunRecord, TrainingRecord, Result)
_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def read(kind: type[Record], values: Any, file: Path) -> Record:
    """Return a record from plain data.

    Args:
        kind: the type of the record.
        values: the plain data.
        file: the file that the data are from, for messages.

    Raises:
        InputError: if the format is newer than FORMAT.
        DamagedError: if the data are not such a record.
    """
    form = values.get("format", 1) if isinstance(values, Mapping) else 1
    if isinstance(form, int) and form > FORMAT:
        raise InputError(f"{file}: has format {form}, and this bnft reads formats up to {FORMAT}; install a newer bnft")
    try:
        return _adapter(kind).validate_python(values)
    except ValidationError as error:
        raise DamagedError(f"{file}: is damaged, {_in_words(error)}") from None


def plain(record: RunRecord | TrainingRecord | Result) -> dict[str, Any]:
    """Return a record as plain data for JSON or YAML; the opposite of `read`."""
    return dict(_adapter(type(record)).dump_python(record, mode="json"))


def _adapter(kind: type) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _in_words(error: ValidationError) -> str:
    missing = [".".join(map(str, part["loc"])) for part in error.errors() if part["type"] == "missing"]
    if missing:
        return f"{', '.join(sorted(missing))} is missing"
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or "the record"
    return f"{place} is invalid ({first['msg']})"
