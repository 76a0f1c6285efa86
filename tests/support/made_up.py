"""Write stores with made-up runs for tests of reports. The tests choose every number."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bnft.common import files
from bnft.common.intervals import wilson
from bnft.report.rows import Row, Study, select
from bnft.report.statement import Statement
from bnft.report.statements import of_study
from bnft.runs import identity
from bnft.runs.result import Result, read
from bnft.runs.run_folder import RunFolder
from bnft.runs.store import Store
from support import table2

Layers = Mapping[str, Mapping[str, Sequence[Any]]]  # layer to quantity to values, of shape (epochs, channels)

EVALUATION = {"attack": "autoattack", "version": "standard", "norm": "Linf", "eps": 0.1, "n_images": 4, "batch_size": 4}
USUAL = {"gamma": 1.0, "beta": 0.0, "mean": 0.0, "variance": 1.0}


def rate(errors: int, images: int) -> dict[str, Any]:
    return {
        "errors": errors,
        "images": images,
        "error": 100 * errors / images,
        "interval": list(wilson(errors, images)),
    }


def run(
    store: Store,
    policy: str,
    *,
    seed: int = 0,
    base: RunFolder | None = None,
    layers: Layers | None = None,
    epochs: Sequence[int] | None = None,
    eps: float = 0.0,
    outcomes: Mapping[str, NDArray[Any]] | None = None,
    evaluation: Mapping[str, Any] = EVALUATION,
    statistics: str = "update",
    overrides: Mapping[str, Any] | None = None,
    line: Sequence[str] | None = None,
    **result: Any,
) -> RunFolder:
    """Write a finished run and return its folder. `result` replaces parts of its result.

    Quantities that are missing in `layers` are those of a new BN layer. By default, four of four images are broken.
    """
    named = identity.of_run(
        model={"_target_": "bnft.models.resnet.ResNet"},
        data={"sha256": "d" * 64, "augmentation": "none"},
        freeze_policy={"parameters": ["all"], "statistics": statistics},
        attack=None,
        schedule={"epochs": 3},
        precision="auto",
        seed=seed,
        base={"seed": seed} if base is not None else None,
    )
    title = table2.title(policy)
    name = f"{policy}-{identity.digest([policy, named])}"
    described: dict[str, Any] = {"name": name, "policy": policy, "title": title, "identity": named}
    described |= {"overrides": dict(overrides or {}), "base": base.name if base is not None else None}
    if line is not None:
        described["line"] = list(line)
    folder = store.run(name)
    if layers is not None:
        _record(folder, layers, epochs, eps)
    kept = dict(outcomes) if outcomes is not None else {"fallen_at": np.ones(4, np.int8)}
    fallen_at = kept["fallen_at"]
    wrong = np.arange(100) < 1
    if {"clean_logits", "labels"} <= kept.keys():
        wrong = kept["clean_logits"].argmax(1) != kept["labels"]
    values = {
        "clean": rate(int(wrong.sum()), len(wrong)),
        "robust": rate(int((fallen_at >= 0).sum()), len(fallen_at)),
        "cascade": [],
        "warnings": [],
        "seconds": 12.5,
        "run": described,
        "evaluation": {"id": "autoattack-0123456789", **evaluation},
        "data": {"target": "bnft.data.digits.load", "sha256": "d" * 64, "augmentation": "none", "images": 100},
        "training": {"run": name, "counts": {"parameters": 1, "learning": 1, "share": 100.0}, "seconds": 30.0},
        "seed": seed,
    }
    tensors = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in kept.items()}
    folder.evaluation(identity.evaluation_id(dict(evaluation))).save(
        tensors, read(Result, {**values, **result}, folder.path)
    )
    return folder


def _record(folder: RunFolder, layers: Layers, epochs: Sequence[int] | None, eps: float) -> None:
    tensors: dict[str, torch.Tensor] = {}
    logged = 1
    for layer, given in layers.items():
        shape = np.shape(next(iter(given.values())))
        logged = shape[0]
        for quantity, usual in USUAL.items():
            values = np.asarray(given.get(quantity, np.full(shape, usual)), np.float32)
            tensors[f"{layer}.{quantity}"] = torch.from_numpy(values)
    tensors["epochs"] = torch.tensor(list(epochs) if epochs is not None else list(range(logged)))
    files.write_tensors(folder.path / "batchnorm.safetensors", tensors, {"eps": dict.fromkeys(layers, eps)})


def study(store: Store) -> Study:
    (only,) = select(store, ["all"]).studies()
    return only


def rows(store: Store) -> dict[str, Row]:
    """Return the rows of the store's only study, by policy."""
    return {row.policy: row for row in study(store).rows}


def statements(store: Store) -> dict[str, Statement]:
    """Return the claims of Table 2 about distributions, by measure, row and other row."""
    table2.record(store)
    found = of_study(study(store))
    return {f"{one.claim.measure}: {one.claim.row}, {one.claim.than}": one for one in found}


def damage(folder: RunFolder, name: str) -> None:
    """Cut every file of this name in the run's folder in half."""
    damaged = list(folder.path.rglob(name))
    assert damaged
    for file in damaged:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
