"""Seconds, hardware, and the commands that reproduce each number."""

import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import made_up

from bnft.common import files
from bnft.config.compose import quoted
from bnft.evaluation.settings import quick_instead
from bnft.report.costs import _plain, costs, evaluation_seconds, reproductions, sweeps, training_seconds
from bnft.runs import identity
from bnft.runs.store import Store

HARDWARE = {"device": "cuda:0", "precision": "amp", "threads": 4, "name": "a GPU, amp"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "multirun")


def training(seconds: float, **more: Any) -> dict[str, Any]:
    return {"counts": {"parameters": 1, "learning": 1, "share": 100.0}, "seconds": seconds, **more}


def test_seconds_of_every_run(store: Store) -> None:
    cascade = [{"attack": "apgd-ce", **made_up.rate(4, 4), "seconds": 1.5}]
    base = made_up.run(store, "normal", training=training(100.0, hardware=HARDWARE), seconds=5.0, cascade=cascade)
    for seed in (1, 0):
        made_up.run(store, "bn_params", seed=seed, base=base, training=training(10.0 + seed), seconds=2.0)
    found = costs(made_up.study(store))
    assert [(cost.label, cost.seed, cost.training, cost.evaluation, cost.total) for cost in found] == [
        ("BN PARAMS", 0, 10.0, 2.0, 12.0),
        ("BN PARAMS", 1, 11.0, 2.0, 13.0),
        ("NORMAL", 0, 100.0, 5.0, 105.0),
    ]
    assert found[2].run == base.name and found[2].hardware == "a GPU, amp" and found[2].attacks == {"apgd-ce": 1.5}
    assert found[2].epochs == 3 and found[1].hardware is None
    assert training_seconds(found) == 121.0 and evaluation_seconds(found) == 9.0
    json.dumps([asdict(cost) for cost in found])


def test_a_run_that_was_evaluated_twice_was_trained_once(store: Store) -> None:
    for eps in (0.1, 0.2):
        made_up.run(store, "adv", evaluation={**made_up.EVALUATION, "eps": eps}, training=training(30.0), seconds=4.0)
    found = costs(made_up.study(store))
    assert len(found) == 2 and training_seconds(found) == 30.0 and evaluation_seconds(found) == 8.0


def test_previews_cost_too_and_the_autoattack_before_a_further_attack_costs_once(store: Store) -> None:
    autoattack = {**made_up.EVALUATION, "seed": 0}
    strongest = {**autoattack, "then": "quick", "restarts": 5}
    rate, cascade = made_up.rate(4, 4), [{"attack": "square", **made_up.rate(4, 4), "seconds": 20.0}]
    quick = quick_instead(autoattack)
    made_up.run(store, "adv", evaluation=quick, seconds=1.0)
    further = {"attack": "quick", **rate, "seconds": 3.0}
    fallen = {"fallen_at": np.ones(4, np.int8), "beyond": np.zeros(4, bool)}
    both: dict[str, Any] = {"evaluation": strongest, "outcomes": fallen}
    made_up.run(store, "adv", **both, seconds=23.0, cascade=cascade, strongest=further)
    (alone,) = costs(made_up.study(store))
    assert alone.evaluation == 24.0
    assert alone.attacks == {"square": 20.0, "quick (further)": 3.0, "quick (preview)": 1.0}
    made_up.run(store, "adv", evaluation=autoattack, seconds=20.0, cascade=cascade)
    found = {len(cost.attacks): cost for cost in costs(made_up.study(store))}
    assert evaluation_seconds(found.values()) == 24.0 and found[1].attacks == {"quick (further)": 3.0}
    cascade[0]["seconds"] = 21.0  # another AutoAttack than the one before the further attack
    made_up.run(store, "adv", evaluation=autoattack, seconds=21.0, cascade=cascade)
    assert evaluation_seconds(costs(made_up.study(store))) == 45.0


def test_bases_that_were_not_evaluated_cost_too(store: Store) -> None:
    base = store.run("normal-0123456789")
    files.write_tensors(base.path / "model.safetensors", {"w": torch.ones(1)}, training(70.0, hardware=HARDWARE))
    for seed in (0, 1):
        made_up.run(store, "bn_params", seed=seed, base=base)
    found = costs(made_up.study(store))
    assert [(cost.run, cost.training) for cost in found[2:]] == [(base.name, 70.0)]
    assert (found[2].label, found[2].evaluation, found[2].hardware) == (None, None, "a GPU, amp")
    made_up.damage(base, "model.safetensors")
    assert len(costs(made_up.study(store))) == 2


def test_the_command_is_the_runs_own_quoted_for_a_shell(store: Store) -> None:
    line = ["policy=bn_params", "base_overrides=['schedule.epochs=1','schedule.batch_size=256']", "seed=3", "a=x y"]
    made_up.run(store, "bn_params", seed=3, line=line)
    (found,) = reproductions(made_up.study(store))
    assert found.exact and found.seed == 3 and found.label == "BN PARAMS" and found.data == "d" * 64
    typed = shlex.split(found.command)
    assert [quoted(part) for part in typed] == ["bnft", "run", *line]
    assert "base_overrides=[schedule.epochs=1,schedule.batch_size=256]" in typed


def test_the_command_of_an_old_result_is_put_together(store: Store) -> None:
    made_up.run(
        store, "normal", seed=2, overrides={"freeze_policy.parameters": ["batchnorm", "conv1"], "attack.eps": 0.1}
    )
    (found,) = reproductions(made_up.study(store))
    assert not found.exact
    assert shlex.split(found.command) == [
        "bnft",
        "run",
        "policy=normal",
        "seed=2",
        "freeze_policy.parameters=[batchnorm,conv1]",
        "attack.eps=0.1",
    ]


def test_sweeps_that_asked_for_a_study(store: Store) -> None:
    runs = [made_up.run(store, policy).name for policy in ("normal", "adv")]
    entries = [{"run": run, "evaluation": "autoattack-0123456789"} for run in runs]
    older = store.save_sweep(entries, [], "/somewhere/else/launch.py -m +sweep=table2", "c0ffee-dirty")
    newer = store.save_sweep(entries[:1], [], "launch.py", None)
    store.save_sweep([{"run": "other-0123456789", "evaluation": "x"}], [], "launch.py -m", None)
    found, notes = sweeps(made_up.study(store))
    assert notes == []
    assert [(sweep.name, sweep.command, sweep.commit, sweep.asked) for sweep in found] == [
        (newer, "python launch.py", None, 1),
        (older, "python launch.py -m +sweep=table2", "c0ffee-dirty", 2),
    ]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"runs": 3}'])
def test_a_sweep_that_cannot_be_read_leaves_a_note(store: Store, content: str) -> None:
    made_up.run(store, "normal")
    file = store.root / "sweeps" / "2020-01-01T00-00-00.000.json"
    file.parent.mkdir()
    file.write_text(content)
    found, (note,) = sweeps(made_up.study(store))
    assert found == [] and note.startswith("sweep 2020-01-01T00-00-00.000: cannot be read")


def test_results_with_nothing_but_what_they_must_have(store: Store) -> None:
    made_up.run(store, "adv", training={"counts": {"parameters": 1, "learning": 1}})
    (found,) = costs(made_up.study(store))
    assert found.training is None and found.total == 12.5 and found.hardware is None
    (how,) = reproductions(made_up.study(store))
    assert how.versions == {} and re.fullmatch(r"bnft run policy=adv seed=0", how.command)
    assert sweeps(made_up.study(store)) == ([], [])


@pytest.mark.parametrize(
    "typed",
    [
        "base_overrides=[schedule.epochs=2,schedule/shape=one_cycle]",
        "base_overrides=['freeze_policy.parameters=[batchnorm,logits]',seed=1]",
        "base_overrides=['data.path=a b.npz']",
    ],
)
def test_overrides_of_a_base_are_shown_as_they_can_be_typed(typed: str) -> None:
    kept = quoted(typed)
    shown = _plain(kept)
    assert quoted(shown) == kept, "which means the same to the program"
    assert shown.count("'") <= typed.count("'")


def test_the_command_of_an_older_protocol_has_its_initial_values(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "PROTOCOL", 2)
    made_up.run(store, "normal", line=["policy=normal", "data.eps=0.1"])
    (found,) = reproductions(made_up.study(store))
    assert found.command == "bnft run policy=normal threat.eps=0.1 recipe.head=pytorch recipe.last_gamma=zeros"
