"""Write runs by hand, with only the files that a table needs."""

import json
from collections.abc import Sequence
from typing import Any

import torch

from bnft.common import files
from bnft.common.intervals import wilson
from bnft.report.rows import Study, select
from bnft.report.table import render
from bnft.runs import identity
from bnft.runs.result import Result, read
from bnft.runs.store import Store
from support import table2

IMAGES = 200  # attacked, of 500 test images
DIGITS = {"target": "bnft.data.digits.load", "sha256": "d" * 64, "augmentation": "none", "images": 1297}
CIFAR10 = {"target": "bnft.data.cifar10.load", "sha256": "c" * 64, "augmentation": "crop_flip", "images": 50_000}
SCHEDULE = {"epochs": 20, "lr": 0.1}
EVALUATION = {
    "attack": "autoattack",
    "version": "standard",
    "norm": "Linf",
    "eps": 0.15,
    "n_images": IMAGES,
    "batch_size": 100,
}
Entry = dict[str, str]


def rate(errors: int, images: int) -> dict[str, Any]:
    return {"errors": errors, "images": images, "error": 100 * errors / images, "interval": wilson(errors, images)}


def outcomes(errors: int, images: int = IMAGES, shift: int = 0) -> list[bool]:
    """Return outcomes in which `errors` images are broken, in one block that begins at image `shift`."""
    return [shift <= index < shift + errors for index in range(images)]


def write(
    store: Store,
    policy: str,
    fallen: Sequence[bool] | int = 100,
    *,
    clean: int = 25,
    seed: int = 0,
    title: str = "",
    overrides: dict[str, Any] | None = None,
    data: dict[str, Any] = DIGITS,
    model: dict[str, Any] | None = None,
    schedule: dict[str, Any] = SCHEDULE,
    evaluation: dict[str, Any] = EVALUATION,
    parameters: int = 77_754,
    warnings: Sequence[str] = (),
    precision: str = "fp32",
    base: dict[str, Any] | None = None,
    base_name: str | None = None,
    attack: dict[str, Any] | None = None,
    monitor: dict[str, Any] | None = None,
    learning: int = 672,
    predictions: tuple[Sequence[int], Sequence[int]] | None = None,
    done: bool = True,
) -> Entry:
    """Write the files of one run, with made-up numbers. Return its entry in a sweep.

    `predictions` has the classes that the model predicts for the test images, and the true ones. Without it, the
    outcomes are like those of the oldest results, which have none. `base`, `attack` and `monitor` are parts of the
    identity.
    """
    fallen = outcomes(fallen) if isinstance(fallen, int) else list(fallen)
    overrides = overrides or {}
    named = identity.of_run(
        model=model or {"_target_": "bnft.models.resnet.ResNet", "width": 16},
        data={key: data.get(key) for key in ("sha256", "augmentation", "mean")},
        freeze_policy={"parameters": overrides.get("freeze_policy.parameters", ["all"]), "statistics": "update"},
        attack={"eps": overrides["attack.eps"]} if "attack.eps" in overrides else attack,
        schedule=schedule,
        precision="auto",
        seed=seed,
        base=base or ({"seed": seed} if policy.startswith("bn_params") else None),
        monitor=monitor,
    )
    title = title or table2.title(policy)
    name = f"{policy}-{identity.digest([policy, named])}"
    run = {"name": name, "policy": policy, "title": title, "base": base_name, "overrides": overrides, "identity": named}
    folder = store.run(name)
    files.write_yaml(folder.path / "config.yaml", {"run": run})
    evaluation_id = identity.evaluation_id(evaluation)
    if done:
        counts = {"parameters": parameters, "learning": learning, "share": 0.864, "statistics": 672}
        hardware = {"device": "cpu", "precision": precision, "threads": 1, "name": f"cpu, {precision}, 1 thread"}
        tensors = {"fallen_at": torch.where(torch.tensor(fallen), 1, -1).to(torch.int8)}
        tests = 500
        if predictions is not None:
            predicted, labels = map(torch.tensor, predictions)
            tensors |= {"clean_logits": torch.nn.functional.one_hot(predicted, 10).float(), "labels": labels}
            clean, tests = int((predicted != labels).sum()), len(labels)
        result = {
            "clean": rate(clean, tests),
            "robust": rate(sum(fallen), len(fallen)),
            "cascade": [],
            "warnings": list(warnings),
            "seconds": 12.5,
            "run": run,
            "evaluation": {"id": evaluation_id, **evaluation},
            "data": data,
            "training": {"run": name, "counts": counts, "hardware": hardware, "seconds": 30.0},
            "seed": seed,
        }
        folder.evaluation(evaluation_id).save(tensors, read(Result, result, folder.path))
    return {"run": name, "evaluation": evaluation_id}


def sweep(store: Store, *entries: Entry) -> str:
    """Record a sweep of Table 2 with these runs."""
    return table2.sweep(store, [_placed(store, entry) for entry in entries])


def _placed(store: Store, entry: Entry) -> dict[str, Any]:
    config = files.read_yaml(store.run(entry["run"]).path / "config.yaml")
    return table2.placed(dict(entry), config["run"]["overrides"])


def rows(store: Store, *names: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parsed(store, *names)["rows"]
    return found


def parsed(store: Store, *names: str) -> dict[str, list[dict[str, Any]]]:
    """What `bnft table --format json` prints: rows and claims. Runs that are in no sweep yet are recorded first."""
    if names:
        table2.record(store)
    found: dict[str, list[dict[str, Any]]] = json.loads(render(select(store, names), "json"))
    return found


def study(store: Store) -> Study:
    table2.record(store)
    (only,) = select(store, ["all"]).studies()
    return only
