"""What a name is the hash of, and how two identities differ."""

from typing import Any

import pytest

from bnft.runs import identity


def run(**changes: Any) -> dict[str, Any]:
    """The identity of a run, as it would be composed, with changes."""
    parts = {
        "model": {"_target_": "bnft.models.resnet.ResNet", "channels": 1, "width": 16, "blocks": [1, 1, 1]},
        "data": {"sha256": "3fe9", "augmentation": "none", "mean": None, "std": None},
        "freeze_policy": {"parameters": ["batchnorm", "logits"], "statistics": "update"},
        "attack": {"_target_": "bnft.attacks.pgd.pgd", "eps": 0.15, "iterations": 10},
        "schedule": {"epochs": 20, "lr": 0.05, "shape": {"_target_": "bnft.schedules.one_cycle"}},
        "precision": "auto",
        "seed": 0,
        "base": None,
    }
    return identity.of_run(**{**parts, **changes})


def test_these_names_never_change():
    """A change of the canonical form would lose every run that anybody has kept."""
    assert identity.digest({}) == "44136fa355"
    assert identity.digest(run()) == "2dcb22614f"
    assert identity.digest(run(attack=None, base=run(seed=3))) == "1816ecdad3"


@pytest.mark.parametrize(
    "changes",
    [
        {"freeze_policy": {"statistics": "update", "parameters": ["logits", "batchnorm"]}},
        {"freeze_policy": {"parameters": ["logits", "batchnorm", "logits"], "statistics": "update"}},
        {"data": {"sha256": "3fe9", "augmentation": "none"}},
        {"data": {"sha256": "3fe9", "augmentation": "none", "later": None, "options": {}}},
        {"base": {}},
    ],
)
def test_what_says_the_same_has_the_same_name(changes):
    assert identity.digest(run(**changes)) == identity.digest(run())


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"precision": "fp32"},
        {"attack": None},
        {"base": {"sha256": "00"}},
        {"freeze_policy": {"parameters": ["batchnorm"], "statistics": "update"}},
        {"model": {"_target_": "bnft.models.resnet.ResNet", "channels": 1, "width": 16, "blocks": [1, 1]}},
        {"data": {"sha256": "3fe8", "augmentation": "none"}},
    ],
)
def test_what_says_something_else_has_another_name(changes):
    assert identity.digest(run(**changes)) != identity.digest(run())


def test_the_protocol_is_part_of_every_name(monkeypatch):
    names = identity.digest(run()), identity.digest(identity.of_evaluation({"attack": "pgd"}))
    monkeypatch.setattr(identity, "PROTOCOL", identity.PROTOCOL + 1)
    assert identity.digest(run()) != names[0]
    assert identity.digest(identity.of_evaluation({"attack": "pgd"})) != names[1]


def test_no_attack_leaves_no_field():
    assert "attack" not in run(attack=None) and "base" not in run()


def test_of_run_leaves_its_arguments_alone():
    policy = {"parameters": ["logits", "batchnorm"], "statistics": "update"}
    run(freeze_policy=policy)
    assert policy == {"parameters": ["logits", "batchnorm"], "statistics": "update"}


def test_an_evaluation_option_that_is_null_changes_no_name():
    plain = identity.of_evaluation({"attack": "pgd", "eps": 0.15})
    assert identity.of_evaluation({"eps": 0.15, "attack": "pgd", "restarts": None}) == plain
    assert identity.of_evaluation({"attack": "pgd", "eps": 0.1}) != plain


def test_without_reaches_into_the_bases():
    nested = run(base=run(base=run(seed=1), seed=1), seed=1)
    reduced = identity.without(nested, "seed", "schedule")
    for level in (reduced, reduced["base"], reduced["base"]["base"]):
        assert "seed" not in level and "schedule" not in level and "model" in level
    assert nested["base"]["seed"] == 1, "the original must stay as it is"
    assert "base" not in identity.without(nested, "base")


def test_a_bases_seed_stays_where_it_is_not_the_runs_own():
    """Else runs from one base and runs from another would be taken for seeds of one experiment."""
    same, other = run(seed=1, base=run(seed=1)), run(seed=1, base=run(seed=0))
    assert identity.without(same, "seed") == identity.without(run(seed=2, base=run(seed=2)), "seed")
    assert identity.without(same, "seed") != identity.without(other, "seed")


def test_differences():
    ours = run(seed=1, attack=None, base=run(seed=1))
    theirs = run(base=run(seed=2, precision="fp32"))
    assert identity.differences(ours, ours) == {}
    assert identity.differences(ours, theirs) == {
        "attack": None,
        "base.precision": "auto",
        "base.seed": 1,
        "seed": 1,
    }
    assert identity.differences({}, {"a": {"b": 1}}) == {"a": None}
    assert identity.differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, "root.") == {"root.a.c": 2}
