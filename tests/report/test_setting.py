"""What rows that stand beside the paper's do otherwise, and what the paper's setting is."""

from pathlib import Path
from typing import Any

import pytest
from support import table2
from support.written import CIFAR10, DIGITS, EVALUATION, parsed, rows, study, sweep, write

from bnft.config.compose import compose
from bnft.models.initialization import DEFAULT
from bnft.report import setting
from bnft.report.rows import select
from bnft.report.table import FORMATS, render
from bnft.runs import identity
from bnft.runs.store import Store

PAPER_ROWS = table2.by_policy()
EPS = 8 / 255
PARAMETERS = 4_327_754


def reference(policy: str) -> dict[str, Any]:
    """The paper's training of a row."""
    found = PAPER_ROWS[policy].reference
    assert found is not None
    return found


PAPER: dict[str, Any] = {
    "data": CIFAR10,
    "parameters": PARAMETERS,
    "evaluation": {**EVALUATION, "eps": EPS},
    "model": reference("adv")["model"],
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "multirun")


def as_in_the_paper(store: Store, policy: str, seed: int = 0, **changed: Any) -> dict[str, str]:
    """A run with the paper's setting, apart from what is `changed`."""
    named = reference(policy)
    augmentation = named["data"]["augmentation"]
    told = {**PAPER, "data": {**CIFAR10, "augmentation": augmentation}, "schedule": named["schedule"]}
    told |= {"base": trained(named["base"]) if "base" in named else None, "attack": named.get("attack")}
    return write(store, policy, seed=seed, **{**told, **changed})


def trained(setting: dict[str, Any]) -> dict[str, Any]:
    """The identity of a base with this setting. It has the hash of its data instead of their name."""
    data = {key: value for key, value in setting["data"].items() if key != "name"}
    return {**setting, "data": {**data, "sha256": CIFAR10["sha256"]}}


def schedule(policy: str, **changed: Any) -> dict[str, Any]:
    return {**reference(policy)["schedule"], **changed}


ON_CLEAN_IMAGES = ("normal", "normal_bn_only", "normal_bn_only_logits_conv1")
FROM_NORMAL = {
    "bn_stats_no_reset": 5,
    "bn_stats": 5,
    "bn_only_params": 30,
    "bn_params": 30,
    "bn_params_logits_conv1": 30,
}  # and their epochs
MODEL = {
    "_target_": "resnet",
    "channels": 3,
    "num_classes": 10,
    "width": 64,
    "blocks": [3, 3, 3],
    "initialization": {
        "convolutions": "kaiming_fan_out",
        "head": "kaiming_fan_in",
        "gamma": "ones",
        "last_gamma": "ones",
    },
    "normalization": "batch",
}
SCHEDULE = {
    "batch_size": 128,
    "lr": 0.05,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
    "shape": {"_target_": "step", "milestones": [0.4, 0.6, 0.8], "factor": 0.1},
}
PGD = {
    "_target_": "pgd",
    "mode": "eval",
    "norm": "Linf",
    "eps": EPS,
    "iterations": 10,
    "step_size": 0.007,
    "random_start": True,
    "keep": "worst",
}


@pytest.mark.parametrize("policy", PAPER_ROWS)
def test_the_papers_setting(policy: str) -> None:
    """These values change only if docs/protocol.md changes, which gives the source of each choice."""
    found = reference(policy)
    clean = policy in ON_CLEAN_IMAGES
    assert identity.differences(found["model"], MODEL) == {}
    assert found["schedule"] == {"epochs": FROM_NORMAL.get(policy, 150), **SCHEDULE}
    assert (found["data"]["name"], found["data"]["augmentation"]) == (
        "cifar10",
        "autoaugment" if clean else "crop_flip",
    )
    assert found["precision"] == "fp32"
    assert found["evaluation"] == {"attack": "autoattack", "version": "standard", "norm": "Linf", "eps": 8 / 255}
    attack = found.get("attack")
    assert (attack is None) == clean
    if attack is not None:
        assert {**attack, "eps": pytest.approx(EPS), "step_size": pytest.approx(0.007)} == attack
        assert identity.differences(attack, PGD).keys() <= {"eps", "step_size"}
    base = found.get("base")
    assert (base is not None) == (policy in FROM_NORMAL)
    if base is not None:
        normal = {key: value for key, value in reference("normal").items() if key != "evaluation"}
        assert base == {**normal, "policy": "normal"}


def test_the_papers_networks_and_images() -> None:
    paper = table2.study().setting
    assert paper is not None
    assert (paper.data, paper.parameters, paper.training_images) == ("CIFAR-10", PARAMETERS, 50_000)
    assert (paper.clean_images, paper.robust_images, paper.constant_error) == (900, 1000, 90.0)
    assert {policy: row.title for policy, row in PAPER_ROWS.items()} == {
        "normal": "NORMAL",
        "normal_bn_only": "NORMAL +BN ONLY",
        "normal_bn_only_logits_conv1": "NORMAL +BN ONLY + log + conv1",
        "adv": "ADV",
        "bn_only": "ADV +BN ONLY",
        "bn_only_logits_conv1": "ADV +BN ONLY + log + conv1",
        "bn_stats_no_reset": "BN STATS (no reset)",
        "bn_stats": "BN STATS (reset)",
        "bn_only_params": "BN ONLY PARAMS",
        "bn_params": "BN PARAMS",
        "bn_params_logits_conv1": "BN PARAMS + log + conv1",
    }


@pytest.mark.usefixtures("hydra")
@pytest.mark.parametrize("policy", PAPER_ROWS)
def test_the_papers_setting_is_what_conf_has_for_cifar10(policy: str) -> None:
    """`data=cifar10` alone runs the paper's setting."""
    config = compose([f"policy={policy}", "data=cifar10"]).config
    expected = reference(policy)
    assert config["model"] == expected["model"]
    assert identity.differences(config["schedule"], expected["schedule"]).keys() <= {"kind"}
    assert config["data"]["augmentation"] == expected["data"]["augmentation"]
    attack = {key: value for key, value in (config["attack"] or {}).items() if key != "examples"}
    assert attack == (expected.get("attack") or {})
    assert config["base"] == ("normal" if "base" in expected else None)


@pytest.mark.parametrize("policy", PAPER_ROWS)
def test_a_row_of_the_papers_setting_differs_in_nothing(store: Store, policy: str) -> None:
    sweep(store, as_in_the_paper(store, policy))
    (row,) = rows(store)
    assert row["differences"] == {}
    assert "ifferences from the paper" not in render(select(store), "md") + render(select(store), "terminal")


@pytest.mark.parametrize(
    ("policy", "changed", "key", "told"),
    [
        ("bn_params", {"schedule": schedule("bn_params", epochs=0)}, "schedule.epochs", "0 (paper: 30)"),
        ("adv", {"schedule": schedule("adv", epochs=20)}, "schedule.epochs", "20 (paper: 150)"),
        (
            "adv",
            {"schedule": schedule("adv", shape={"_target_": "one_cycle", "warmup": 0.25})},
            "schedule.shape",
            "one_cycle (paper: step)",
        ),
        (
            "adv",
            {"schedule": schedule("adv", shape={**schedule("adv")["shape"], "factor": 0.2})},
            "schedule.shape.factor",
            "0.2 (paper: 0.1)",
        ),
        ("adv", {"data": {**CIFAR10, "augmentation": "none"}}, "data.augmentation", "none (paper: crop_flip)"),
        ("adv", {"data": {**CIFAR10, "images": 25_000}}, "data.images", "25,000 (paper: 50,000)"),
        ("adv", {"data": {**CIFAR10, "mean": [0.5, 0.5, 0.5]}}, "data.mean", "[0.5,0.5,0.5] (paper: null)"),
        ("adv", {"precision": "bf16"}, "precision", "bf16 (paper: fp32)"),
        ("adv", {"monitor": {"every": 5, "images": 200, "keep": "best"}}, "monitor.keep", "best (paper: last)"),
        ("adv", {"model": {**PAPER["model"], "head": "zero"}}, "model.head", "zero (paper: null)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_differs_is_named_in_every_format(
    store: Store, policy: str, changed: dict[str, Any], key: str, told: str
) -> None:
    sweep(store, as_in_the_paper(store, policy, **changed))
    (row,) = rows(store)
    assert list(row["differences"]) == [key] and row["paper"] is not None
    for form in FORMATS:
        shown = " ".join(render(select(store), form).split())
        assert (f"{key}={told}" if form != "json" else key) in shown, form


def test_what_the_base_does_otherwise_is_named(store: Store) -> None:
    base = {**trained(reference("normal")), "data": {"augmentation": "none"}, "seed": 0}
    normal = as_in_the_paper(store, "normal", data={**CIFAR10, "augmentation": "none"})
    tuned = as_in_the_paper(store, "bn_params", base=base, base_name=normal["run"])
    sweep(store, tuned)
    assert rows(store)[0]["differences"] == {"base.data.augmentation": {"ours": "none", "paper": "autoaugment"}}
    assert "in all rows: base.data.augmentation=none (paper: autoaugment)" in render(select(store), "md")
    sweep(store, normal, tuned)
    shown = render(select(store), "md")
    assert "in NORMAL: data.augmentation=none (paper: autoaugment)." in shown, "and with NORMAL there, not twice"


def test_what_all_rows_share_is_named_once_and_rows_that_are_alike_together(store: Store) -> None:
    for policy in ("normal", "adv", "bn_only"):
        epochs = 20 if policy == "normal" else 5
        as_in_the_paper(store, policy, schedule=schedule(policy, epochs=epochs, lr=0.2))
    found = setting.note([(label, row) for row, label in zip(study(store).rows, study(store).labels(), strict=True)])
    assert found == (
        "Differences from the paper's setting in all rows: schedule.lr=0.2 (paper: 0.05);"
        " in NORMAL: schedule.epochs=20 (paper: 150); in ADV, ADV +BN ONLY: schedule.epochs=5 (paper: 150)."
    )


def test_monitoring_alone_is_no_difference_in_the_model_that_counts(store: Store) -> None:
    sweep(store, as_in_the_paper(store, "adv", monitor={"every": 5, "images": 200, "keep": "last"}))
    assert rows(store)[0]["differences"] == {}


def test_where_nothing_learns_the_learning_rate_is_no_difference(store: Store) -> None:
    changed = schedule("bn_stats", lr=0.3, shape={"_target_": "one_cycle"})
    sweep(store, as_in_the_paper(store, "bn_stats", schedule=changed, learning=0))
    assert rows(store)[0]["differences"] == {}


def test_a_smaller_network_is_told_by_its_parameters(store: Store) -> None:
    small = {**PAPER["model"], "width": 16}
    sweep(store, as_in_the_paper(store, "adv", model=small, parameters=272_474))
    assert rows(store)[0]["differences"] == {"model.parameters": {"ours": 272_474, "paper": 4_327_754}}


def test_networks_of_version_0_1_started_otherwise(store: Store) -> None:
    sweep(store, as_in_the_paper(store, "adv", model={key: PAPER["model"][key] for key in ("_target_", "width")}))
    assert setting.UNSAID == DEFAULT
    found = rows(store)[0]["differences"]
    assert {key: one["ours"] for key, one in found.items()} == {
        "model.initialization.head": "pytorch",
        "model.initialization.last_gamma": "zeros",
    }


def test_the_digits_differ_in_data_network_and_budget(store: Store) -> None:
    sweep(store, write(store, "adv", data=DIGITS, overrides={"attack.eps": 0.3}))
    (row,) = parsed(store)["rows"]
    assert {"data", "model.parameters", "evaluation.eps"} <= row["differences"].keys() and row["paper"] is None
    assert "ifferences from the paper" not in render(select(store), "md"), "nothing published is shown beside it"


def test_a_run_without_a_study_differs_from_no_paper(store: Store) -> None:
    sweep(store, write(store, "mine", title="MINE", data=DIGITS))
    (row,) = parsed(store)["rows"]
    assert row["differences"] == {} and row["paper"] is None and row["study"] is None
