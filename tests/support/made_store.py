"""Write stores of finished runs quickly: the same files as those of real runs, with consistent numbers."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch

from bnft.batchnorm.log import BatchNormLog
from bnft.batchnorm.record import RECORDED
from bnft.runs import identity
from bnft.runs.result import Result, RunRecord, TrainingRecord, read
from bnft.runs.run_folder import RunFolder
from bnft.runs.store import Store
from bnft.training.state import TrainingState
from support import table2
from support.made_up import rate

CLASSES, SIDE, TESTS, ATTACKED = 10, 8, 500, 200
USUAL_EPS = 0.15  # a run that is evaluated with it is a row of the paper; with another eps it has an override
ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")
DATA = {"target": "bnft.data.digits.load", "validation": None, "sha256": "d" * 64, "augmentation": "none"}


def needed(*names: str) -> str:
    """Return the first of these programs that is installed. If none is, skip the test, or fail with CI_TOOLS=1."""
    for name in names:
        if program := shutil.which(name):
            return program
    if os.environ.get("CI_TOOLS") == "1":
        pytest.fail(f"needs {' or '.join(names)}")
    pytest.skip(f"needs {' or '.join(names)}")


def _blocks(stages: int, blocks: int, width: int) -> dict[str, int]:
    """Return the BN layers of a ResNet, with their channels."""
    layers = {"network.bn": width}
    for stage in range(stages):
        for block in range(blocks):
            names = ("bn1", "bn2", *(("shortcut.1",) if stage and not block else ()))
            layers |= {f"network.stages.{stage}.{block}.{name}": width << stage for name in names}
    return layers


@dataclass(frozen=True)
class Model:
    """The configuration of a model, and its BN layers."""

    config: Mapping[str, Any]
    layers: Mapping[str, int]
    parameters: int


SMALL = Model({"_target_": "bnft.models.resnet.ResNet", "width": 16, "blocks": [1, 1, 1]}, _blocks(3, 1, 16), 77_754)
DEEP = Model({"_target_": "bnft.models.resnet.ResNet", "width": 16, "blocks": [3, 3, 3]}, _blocks(3, 3, 16), 272_474)


@dataclass(frozen=True)
class Kind:
    """A policy: what learns, its BN statistics, whether it starts from NORMAL, and whether it trains adversarially."""

    parameters: tuple[str, ...] = ("all",)
    statistics: str = "update"
    tuned: bool = False
    adversarial: bool = True


BN, MORE = ("batchnorm",), ("batchnorm", "first_conv", "logits")
KINDS = {
    "normal": Kind(adversarial=False),
    "normal_bn_only": Kind(BN, adversarial=False),
    "normal_bn_only_logits_conv1": Kind(MORE, adversarial=False),
    "adv": Kind(),
    "bn_only": Kind(BN),
    "bn_only_logits_conv1": Kind(MORE),
    "bn_stats_no_reset": Kind(("none",), tuned=True),
    "bn_stats": Kind(("none",), "reset", tuned=True),
    "bn_only_params": Kind(BN, "frozen", tuned=True),
    "bn_params": Kind(BN, tuned=True),
    "bn_params_logits_conv1": Kind(MORE, tuned=True),
}


@dataclass
class MadeStore:
    """A store to which sweeps of made-up runs are written."""

    store: Store
    epochs: int = 5
    entries: list[dict[str, Any]] = field(default_factory=list)
    results: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)  # by run and evaluation

    def add(
        self,
        policies: Sequence[str] = tuple(KINDS),
        seeds: Sequence[int] = (0,),
        eps: Sequence[float] = (USUAL_EPS,),
        model: Model = SMALL,
        titles: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
        done: bool = True,
    ) -> "MadeStore":
        """Add runs of all policies and seeds, evaluated with every eps. If not `done`, they are not begun."""
        for seed in seeds:
            for policy in policies:
                title = (titles or {}).get(policy) or _title(policy)
                self._run(policy, title, seed, eps, model, dict(overrides or {}), done)
        return self

    def sweep(self, command: str = "/home/somebody/bnft/launch.py -m +sweep=table2") -> str:
        """Record everything that was added since the last sweep as a sweep. Return its name."""
        entries, self.entries = self.entries, []
        return table2.sweep(self.store, entries, command, commit="0" * 40)

    def _run(
        self,
        policy: str,
        title: str,
        seed: int,
        eps: Sequence[float],
        model: Model,
        overrides: dict[str, Any],
        done: bool,
    ) -> None:
        named, base = _identity(policy, seed, model), None
        if _kind(policy).tuned:
            base = f"normal-{identity.digest(_identity('normal', seed, model))}"
        name = f"{policy}-{identity.digest({**named, **overrides})}"
        described: dict[str, Any] = {"name": name, "policy": policy, "title": title, "base": base}
        described |= {"line": [f"policy={policy}", f"seed={seed}"], "identity": {**named, **overrides}}
        described |= {"overrides": overrides}
        folder = self.store.run(name)
        training = {"run": name, **_training(policy, model)}
        if done:
            folder.open(read(RunRecord, described, folder.path), {"title": title, "seed": seed})
            self._train(folder, policy, seed, model, base, read(TrainingRecord, training, folder.path))
        for number in eps:
            evaluation = {"attack": "autoattack", "version": "standard", "norm": "Linf", "eps": number}
            evaluation |= {"n_images": ATTACKED, "batch_size": ATTACKED, "seed": 0}
            key = f"autoattack-{identity.digest(identity.of_evaluation(evaluation))}"
            changed = {**overrides, **({"evaluation.eps": number} if number != USUAL_EPS else {})}
            entry = {"run": name, "evaluation": key, **({"base": base} if base else {})}
            self.entries.append(table2.placed(entry, changed))
            if done:
                outcomes = _outcomes(policy, seed, number)
                result = {
                    **_summary(outcomes),
                    "run": {**described, "overrides": changed},
                    "evaluation": {"id": key, **evaluation},
                    "data": {**DATA, "images": 1297},
                    "training": training,
                    "seed": seed,
                }
                folder.evaluation(key).save(outcomes, read(Result, result, folder.path))
                self.results[name, key] = result

    def _train(
        self, folder: RunFolder, policy: str, seed: int, model: Model, base: str | None, training: TrainingRecord
    ) -> None:
        kind, random = _kind(policy), _random(policy, seed, *model.layers)
        start = None
        if base and (self.store.run(base).path / "batchnorm.safetensors").exists():
            start = self.store.run(base).batchnorm()
        tensors: dict[str, list[torch.Tensor]] = {}
        for layer, channels in model.layers.items():
            for quantity in RECORDED:
                first = start.values(layer, quantity)[-1] if start else _fresh(quantity, channels, random)
                moved = first + np.cumsum(random.normal(0, 0.08, (self.epochs, channels)), axis=0)
                moves = quantity in ("gamma", "beta") if kind.statistics == "frozen" else kind.parameters != ("none",)
                moves = moves or (kind.statistics != "frozen" and quantity in ("mean", "variance"))
                values = [first, *(moved if moves else [first] * self.epochs)]
                if quantity == "variance":
                    values = [np.abs(line) + 1e-3 for line in values]
                tensors[f"{layer}.{quantity}"] = [
                    torch.tensor(np.asarray(line), dtype=torch.float32) for line in values
                ]
        rate, floor = _random(policy).uniform((0.2, 2), (1.5, 60)) + random.normal(0, (0.02, 0.5))
        history: list[dict[str, float]] = [
            {"epoch": epoch, "loss": 2.3 * np.exp(-rate * epoch) + random.random() / 9, "error": floor + 60 / epoch}
            | {"clean_error": floor / 2 + 50 / epoch, "lr": 0.2 / epoch, "images": 1280, "seconds": 0.5}
            for epoch in range(1, self.epochs + 1)
        ]
        log = BatchNormLog(list(range(self.epochs + 1)), tensors)
        folder.save_logs(TrainingState(history=history, batchnorm=log), dict.fromkeys(model.layers, 1e-5))
        folder.save_model({"network.logits.bias": torch.zeros(CLASSES)}, training)
        folder.write_status(state="done", stage="evaluated", hardware="cpu, fp32, 1 thread")


def _title(policy: str) -> str:
    return table2.title(policy) if policy in table2.by_policy() else policy.upper().replace("_", " ")


def _kind(policy: str) -> Kind:
    return KINDS.get(policy, Kind(BN, tuned=True))


def _identity(policy: str, seed: int, model: Model) -> dict[str, Any]:
    kind = _kind(policy)
    return identity.of_run(
        model=model.config,
        data={"sha256": DATA["sha256"], "augmentation": "none"},
        freeze_policy={"parameters": kind.parameters, "statistics": kind.statistics},
        attack={"mode": "eval", "eps": USUAL_EPS, "iterations": 10} if kind.adversarial else None,
        schedule={"epochs": 5, "lr": 0.2 if kind.tuned else 0.3},
        precision="auto",
        seed=seed,
        base=_identity("normal", seed, model) if kind.tuned else None,
    )


def _training(policy: str, model: Model) -> dict[str, Any]:
    statistics = 2 * sum(model.layers.values())
    shares = {("all",): model.parameters, ("none",): 0, BN: statistics, MORE: statistics + 794}
    learning = shares[_kind(policy).parameters]
    counts: dict[str, float] = {"parameters": model.parameters, "learning": learning}
    counts |= {"batchnorm": statistics, "statistics": statistics}
    counts |= {"share": 100 * learning / model.parameters, "statistics_share": 100 * statistics / model.parameters}
    hardware = {"device": "cpu", "precision": "fp32", "threads": 1, "name": "cpu, fp32, 1 thread"}
    versions = {"python": "3.12.0", "torch": "2.11.0"}
    return {"hardware": hardware, "counts": counts, "versions": versions, "seconds": 14.0 + crc32(policy.encode()) % 9}


def _random(*what: Any) -> np.random.Generator:
    return np.random.default_rng(crc32(repr(what).encode()))


def _fresh(quantity: str, channels: int, random: np.random.Generator) -> np.ndarray:
    around = {"gamma": 0.6, "beta": -0.1, "mean": 0.0, "variance": 0.5}[quantity]
    return around + random.normal(0, 0.25, channels)


def _outcomes(policy: str, seed: int, eps: float) -> dict[str, torch.Tensor]:
    """Return outcomes with errors near the paper's. They increase with eps, and differ between seeds."""
    random = _random(policy, seed)  # not eps: the same model misclassifies the same images
    row = table2.by_policy()[policy].published if policy in table2.by_policy() else None
    clean, robust = (row.clean_error, row.robust_error) if row else random.uniform((2, 60), (20, 95))
    clean = min(99.0, max(0.5, clean + random.normal(0, 1.5)))
    robust = min(100.0, max(clean, (robust + random.normal(0, 2)) * min(1.1, (eps / USUAL_EPS) ** 0.3)))
    labels = np.arange(TESTS) % CLASSES
    wrong = np.zeros(TESTS, bool)
    wrong[random.permutation(TESTS)[: round(TESTS * clean / 100)]] = True
    logits = random.normal(0, 1, (TESTS, CLASSES))
    logits[np.arange(TESTS), (labels + wrong) % CLASSES] += 8
    fallen_at = np.where(wrong[:ATTACKED], 0, -1).astype(np.int8)
    standing = random.permutation(np.flatnonzero(fallen_at < 0))
    fall = standing[: max(0, round(ATTACKED * robust / 100) - int((fallen_at == 0).sum()))]
    fallen_at[fall] = 1 + (random.random(len(fall)) * random.random(len(fall)) * len(ATTACKS)).astype(np.int8)
    attacked = logits[:ATTACKED].copy()
    attacked[fall, (labels[fall] + 3) % CLASSES] += 12
    images = np.random.default_rng(0).random((ATTACKED, 1, SIDE, SIDE))  # the same test images for every run
    adversarial = images.copy()
    change = eps * np.sign(random.normal(0, 1, (len(fall), 1, SIDE, SIDE)))
    adversarial[fall] = np.clip(adversarial[fall] + change, 0, 1)
    arrays = {
        "clean_logits": logits.astype(np.float32),
        "labels": labels,
        "fallen_at": fallen_at,
        "adversarial": adversarial.astype(np.float32),
        "adversarial_logits": attacked.astype(np.float32),
        "pgd_logits": attacked.astype(np.float32),
        "originals": images[:16].astype(np.float32),
    }
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def _summary(outcomes: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the numbers of a result, computed from its outcomes."""
    fallen_at = outcomes["fallen_at"].numpy()
    steps = [
        {
            "attack": name,
            **rate(int(((fallen_at >= 0) & (fallen_at <= number)).sum()), ATTACKED),
            "seconds": 2.5 * number,
        }
        for number, name in enumerate(ATTACKS, start=1)
    ]
    wrong = (outcomes["clean_logits"].argmax(1) != outcomes["labels"]).sum()
    robust = rate(int((fallen_at >= 0).sum()), ATTACKED)
    spent = sum(step["seconds"] for step in steps)
    return {"clean": rate(int(wrong), TESTS), "robust": robust, "cascade": steps} | {
        "warnings": [],
        "seconds": spent,
        "pgd_loss": 1.5 + float(robust["error"]) / 30,
    }
