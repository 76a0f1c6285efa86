"""A plan as tasks: what waits for what, what is done already, what comes first."""

import pytest
import torch

from bnft.runs.plan import plan
from bnft.runs.result import Result, plain, read
from bnft.sweeps.tasks import is_done, tasks, undone, waves


@pytest.fixture
def planned(hydra, tmp_path):
    """The plan of some command lines, with a store that is empty yet."""
    return lambda *lines: plan([[f"store={tmp_path}", "device=cpu", *line] for line in lines])


def named(found):
    """Policy, whether it is evaluated, and the policy that it needs."""
    return [(task.run.policy, task.evaluated, task.needs and task.needs.partition("-")[0]) for task in found]


def train(planned, task):
    """Make it look trained."""
    folder = planned.store.run(task.run.name).path
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()


def test_runs_wait_for_the_training_of_their_base_only(planned):
    found = named(tasks(planned(["policy=bn_stats"], ["policy=normal"])))
    assert found[0] == ("normal", False, None)
    assert set(found[1:]) == {("normal", True, "normal"), ("bn_stats", True, "normal")}


def test_a_base_that_nobody_asked_for_is_not_evaluated(planned):
    assert named(tasks(planned(["policy=bn_stats"]))) == [("normal", False, None), ("bn_stats", True, "normal")]


def test_a_run_without_children_is_one_task_and_the_longest_comes_first(planned):
    found = named(tasks(planned(["policy=normal"], ["policy=adv"], ["policy=normal", "schedule.epochs=99999"])))
    assert found == [("normal", True, None), ("adv", True, None), ("normal", True, None)]


def test_in_the_given_order_a_base_comes_just_before_the_first_row_that_needs_it(planned):
    lines = [["policy=adv"], ["policy=bn_params"], ["policy=normal"], ["policy=bn_params", "seed=1"], ["policy=normal"]]
    found = named(tasks(planned(*lines), "given"))
    first = [("adv", True, None), ("normal", False, None), ("bn_params", True, "normal"), ("normal", True, "normal")]
    assert found == [*first, ("normal", False, None), ("bn_params", True, "normal")]
    found = named(tasks(planned(["policy=adv_bn_clean"], ["policy=bn_params", "base=bn_stats"]), "given"))
    assert [policy for policy, _, _ in found] == ["adv", "adv_bn_clean", "normal", "bn_stats", "bn_params"]


def test_a_run_with_two_evaluations_is_trained_once(planned):
    found = named(tasks(planned(["policy=adv"], ["policy=adv", "evaluation=pgd"])))
    assert found == [("adv", False, None), ("adv", True, "adv"), ("adv", True, "adv")]


def test_what_is_trained_already_is_not_waited_for(planned):
    asked = planned(["policy=bn_stats"], ["policy=normal"])
    everything = tasks(asked)
    assert undone(everything, asked.store) == everything
    train(asked, everything[0])
    assert is_done(everything[0], asked.store) and not is_done(everything[1], asked.store)
    assert set(named(undone(everything, asked.store))) == {("normal", True, None), ("bn_stats", True, None)}


def test_a_run_that_is_trained_does_not_wait_for_its_base(planned):
    """Its base can have been exported without its model, and must not be trained again for nothing."""
    asked = planned(["policy=normal"], ["policy=bn_stats"], ["policy=bn_params"])
    normal = next(task for task in tasks(asked) if task.evaluated and task.run.policy == "normal")
    evaluate(asked, normal)
    for task in tasks(asked):
        if task.run.policy in ("bn_stats", "bn_params"):
            train(asked, task)
    assert set(named(undone(tasks(asked), asked.store))) == {("bn_stats", True, None), ("bn_params", True, None)}


def evaluate(planned, task):
    """Make it look evaluated; whether it looks trained is left as it is."""
    folder = planned.store.run(task.run.name)
    rate = {"errors": 0, "images": 1, "error": 0.0, "interval": (0.0, 100.0)}
    values = {"clean": rate, "robust": rate, "cascade": [], "warnings": [], "seconds": 0.0, "seed": 0}
    values |= {"run": plain(task.run.record()), "training": {"counts": {"parameters": 1, "learning": 1}}}
    values |= {"evaluation": {"id": task.run.evaluation_id, **task.run.config["evaluation"]}}
    values |= {"data": {"target": "npz", "sha256": "d" * 64, "augmentation": "none", "images": 1}}
    result = read(Result, values, folder.path)
    folder.evaluation(task.run.evaluation_id).save({"labels": torch.zeros(1)}, result)


def test_a_result_without_its_model_is_done_and_needs_no_base(planned):
    asked = planned(["policy=bn_stats"], ["policy=bn_params"], ["policy=normal"])
    everything = tasks(asked)
    for task in everything:
        if task.evaluated and task.run.policy != "bn_params":
            evaluate(asked, task)
    left = {("normal", False, None), ("bn_params", True, "normal")}
    assert set(named(undone(everything, asked.store))) == left, "the base is trained again for the one that needs it"
    evaluate(asked, next(task for task in everything if task.run.policy == "bn_params"))
    assert undone(everything, asked.store) == []


def test_a_result_that_is_damaged_is_not_done(planned):
    asked = planned(["policy=normal"])
    (task,) = tasks(asked)
    train(asked, task)
    folder = asked.store.run(task.run.name).evaluation(task.run.evaluation_id).path
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{")
    assert not is_done(task, asked.store)


def test_each_wave_waits_for_the_one_before(planned):
    found = waves(tasks(planned(["policy=bn_stats"], ["policy=adv"], ["policy=bn_params", "base=bn_stats"])))
    assert [sorted(task.run.policy for task in wave) for wave in found] == [
        ["adv", "normal"],
        ["bn_stats"],
        ["bn_params", "bn_stats"],
    ]
    assert [task.evaluated for task in found[1]] == [False]
    assert waves([]) == []
