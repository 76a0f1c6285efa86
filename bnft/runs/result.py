"""What a store says of runs, as typed records, each with the version of its format.

`Result` is result.json; `RunRecord` stands in it and in config.yaml; `TrainingRecord` stands in it and beside the
weights of a checkpoint or a model. They are written and read here and nowhere else. Without PyTorch.
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

FORMAT = 2  # raised when a change makes older programs read something wrong; records from before it say nothing: 1


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What names and describes a run.

    Args:
        policy: the name of its policy.
        title: the name of its row.
        identity: what the hash in its name is of, see `bnft.runs.identity`.
        name: the run's name; older records have none.
        base: the name of the run that it starts from.
        overrides: values in which it differs from its policy, apart from data, model, schedule and seed.
        line: the command line, as overrides, that computes the same numbers.
        sources: files of a person's own that it computes with, and their SHA-256.
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
    """What a run was trained on; `name` has it in words."""

    device: str
    precision: str
    threads: int
    name: str


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """What is recorded of a training beside its model: the run, hardware, counts, versions of packages, seconds."""

    run: str | None = None
    counts: Counts
    hardware: HardwareRecord | None = None
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None
    format: int = 1


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """The data of a run: the component that loads them, their SHA-256, and how many training images there are.

    `validation` is how many training images were held out and tested on in place of the test images.
    """

    target: str
    sha256: str
    augmentation: str
    images: int
    validation: int | None = None
    fill: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None


@dataclass(kw_only=True)
class EvaluationRecord(Evaluation):
    """How robust error was measured, and the `id` of the evaluation, which is the name of its folder."""

    id: str

    @property
    def settings(self) -> dict[str, Any]:
        """How it was measured, without the id that is the hash of it."""
        return {name: value for name, value in vars(self).items() if name != "id"}


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """One evaluation of one run: its numbers, what was evaluated, and how.

    `outcomes` is the checksum of the outcomes that the numbers were counted from; results from before checksums have
    none.
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
    """A record from the plain data in `file`.

    Raises InputError for a format newer than FORMAT, DamagedError for data that are no such record.
    """
    form = values.get("format", 1) if isinstance(values, Mapping) else 1
    if isinstance(form, int) and form > FORMAT:
        raise InputError(f"{file}: has format {form}, and this bnft reads formats up to {FORMAT}; install a newer bnft")
    try:
        return _adapter(kind).validate_python(values)
    except ValidationError as error:
        raise DamagedError(f"{file}: is damaged, {_in_words(error)}") from None


def plain(record: RunRecord | TrainingRecord | Result) -> dict[str, Any]:
    """A record as plain data, as JSON and YAML know them; the opposite of `read`."""
    return dict(_adapter(type(record)).dump_python(record, mode="json"))


def _adapter(kind: type) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _in_words(error: ValidationError) -> str:
    missing = [".".join(map(str, part["loc"])) for part in error.errors() if part["type"] == "missing"]
    if missing:
        return f"it lacks {', '.join(sorted(missing))}"
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or "the whole"
    return f"{place} is not as it was written ({first['msg']})"
