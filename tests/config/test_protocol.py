"""The constants of docs/protocol.md, written out, beside the composed configuration and what is built from it."""

import inspect
from functools import partial

import pytest

from bnft.attacks.pgd import pgd
from bnft.config import build
from bnft.config.compose import compose
from bnft.data import augmentation
from bnft.evaluation import pgd as evaluation_pgd
from bnft.training import shapes

pytestmark = pytest.mark.usefixtures("hydra")

SGD = {"batch_size": 128, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "batchnorm_weight_decay": None}
STEP = {"_target_": "step", "milestones": [0.4, 0.6, 0.8], "factor": 0.1}
ONE_CYCLE = {"_target_": "one_cycle", "warmup": 0.25, "start": 0.05, "final": 0.0}
SCHEDULES = {
    "cifar10": {
        "scratch": {"epochs": 150, "lr": 0.05, **SGD, "shape": STEP},
        "finetune": {"epochs": 30, "lr": 0.05, **SGD, "shape": STEP},
        "statistics": {"epochs": 5, "lr": 0.05, **SGD, "shape": STEP},
    },
    "digits": {
        "scratch": {"epochs": 15, "lr": 0.3, **SGD, "shape": ONE_CYCLE},
        "finetune": {"epochs": 15, "lr": 0.2, **SGD, "shape": ONE_CYCLE},
        "statistics": {"epochs": 5, "lr": 0.05, **SGD, "shape": ONE_CYCLE},
    },
}
LOGITS_CONV1 = ["batchnorm", "logits", "first_conv"]
ROWS = {  # what learns, the BN statistics, the schedule, whether there is an attack, and the base
    "normal": (["all"], "update", "scratch", False, None),
    "normal_bn_only": (["batchnorm"], "update", "scratch", False, None),
    "normal_bn_only_logits_conv1": (LOGITS_CONV1, "update", "scratch", False, None),
    "adv": (["all"], "update", "scratch", True, None),
    "bn_only": (["batchnorm"], "update", "scratch", True, None),
    "bn_only_logits_conv1": (LOGITS_CONV1, "update", "scratch", True, None),
    "bn_stats_no_reset": (["none"], "update", "statistics", True, "normal"),
    "bn_stats": (["none"], "reset", "statistics", True, "normal"),
    "bn_only_params": (["batchnorm"], "frozen", "finetune", True, "normal"),
    "bn_params": (["batchnorm"], "update", "finetune", True, "normal"),
    "bn_params_logits_conv1": (LOGITS_CONV1, "update", "finetune", True, "normal"),
}
EPS = {"cifar10": 8 / 255, "digits": 0.15}
AUGMENTATION = {"cifar10": {False: "autoaugment", True: "crop_flip"}, "digits": {False: "none", True: "none"}}


@pytest.mark.parametrize("data", SCHEDULES)
@pytest.mark.parametrize("policy", ROWS)
def test_each_row_trains_as_the_protocol_says(policy, data):
    parameters, statistics, schedule, adversarial, base = ROWS[policy]
    config = compose([f"policy={policy}", f"data={data}"]).config
    assert config["freeze_policy"] == {"parameters": parameters, "statistics": statistics, "momentum": None}
    kind = "scratch_bn" if schedule == "scratch" and "bn_only" in policy else schedule
    assert config["schedule"] == {"kind": kind, **SCHEDULES[data][schedule]}
    assert (config["base"], config["base_overrides"], config["seed"]) == (base, [], 0)
    assert (config["data"]["augmentation"], config["data"]["fill"]) == (AUGMENTATION[data][adversarial], None)
    eps = pytest.approx(EPS[data])
    if adversarial:
        attack = {"examples": "adversarial", "mode": "eval", "_target_": "pgd", "norm": "Linf", "eps": eps}
        attack |= {"iterations": 10, "step_size": pytest.approx(EPS[data] * 0.007 / (8 / 255))}
        assert config["attack"] == {**attack, "random_start": True, "keep": "worst"}
    else:
        assert config["attack"] is None
    found = config["evaluation"]
    images = {"cifar10": (1000, 250), "digits": (200, 200)}[data]
    assert (found["attack"], found["version"], found["norm"], found["eps"]) == ("autoattack", "standard", "Linf", eps)
    assert (found["n_images"], found["batch_size"], found["seed"], found["then"]) == (*images, 0, None)


@pytest.mark.parametrize(("data", "width", "blocks"), [("cifar10", 64, [3, 3, 3]), ("digits", 16, [1, 1, 1])])
def test_the_network(data, width, blocks):
    found = compose([f"data={data}"]).config["model"]
    assert (found["_target_"], found["width"], found["blocks"], found["num_classes"]) == ("resnet", width, blocks, 10)


def test_the_schedule_of_frankle():
    found = compose(["policy=normal", "data=cifar10", "recipe=frankle"]).config["schedule"]
    shape = {"_target_": "step", "milestones": [0.5, 0.75], "factor": 0.1}
    sgd = {**SGD, "nesterov": False, "weight_decay": 1e-4}
    assert found == {"kind": "scratch", "epochs": 160, "lr": 0.1, **sgd, "shape": shape}


def test_pgd_in_evaluation():
    found = compose(["policy=adv", "evaluation=pgd"]).config["evaluation"]
    assert (found["iterations"], found["step_size"], found["restarts"]) == (40, pytest.approx(0.15 / 4), 1)
    assert evaluation_pgd.LOSS_ITERATIONS == 10, "the loss on PGD examples"


def test_the_budgets_of_a_curve():
    """They are multiples of eps, as exact as if they had been written by hand."""
    usual = compose(["policy=adv", "evaluation=curve"]).config["evaluation"]
    assert (usual["attack"], usual["eps"]) == ("quick", 0.15)
    assert usual["budgets"] == [0.0375, 0.075, 0.1125, 0.15, 0.225, 0.3]
    papers = compose(["policy=adv", "evaluation=curve", "threat=linf_8_255"]).config["evaluation"]
    assert papers["budgets"] == [number / 255 for number in (2, 4, 6, 8, 12, 16)]
    chosen = compose(["policy=adv", "evaluation=curve", "evaluation.budgets=[1/255,0.15]"]).config["evaluation"]
    assert chosen["budgets"] == [1 / 255, 0.15]
    assert compose(["policy=adv", "evaluation=quick"]).config["evaluation"]["budgets"] is None


def test_the_defaults_of_pgd_as_a_function():
    parameters = inspect.signature(pgd).parameters
    defaults = {name: one.default for name, one in parameters.items() if one.default is not one.empty}
    assert defaults == {"iterations": 10, "norm": "Linf", "random_start": True, "keep": "worst"}


def test_the_recipe_that_is_built_has_the_values_of_the_configuration():
    """Each value differs from its default, so that one that is not passed on is seen."""
    changed = ["schedule.epochs=7", "schedule.batch_size=33", "schedule.lr=0.7", "schedule.momentum=0.3"]
    changed += ["schedule.nesterov=false", "schedule.weight_decay=0.07", "schedule.batchnorm_weight_decay=0.007"]
    changed += ["schedule/shape=cosine", "schedule.shape.final=0.2", "attack.mode=train", "attack.iterations=3"]
    changed += ["attack.eps=0.11", "attack.step_size=0.02", "attack.random_start=false", "attack.keep=last"]
    changed += ["attack.norm=L2", "data.augmentation=crop", "recipe.fill=mean", "seed=5"]
    built = build.recipe(compose(["policy=adv", *changed]).config)
    assert (built.epochs, built.batch_size, built.lr, built.momentum, built.nesterov) == (7, 33, 0.7, 0.3, False)
    assert (built.weight_decay, built.batchnorm_weight_decay, built.seed, built.fill) == (0.07, 0.007, 5, "mean")
    sister = build.recipe(compose(["policy=normal", "data=cifar10", "recipe=sister"]).config).augmentation
    assert isinstance(sister, partial) and sister.func is augmentation.autoaugment
    assert sister.keywords == {"interpolation": "bicubic"}
    assert built.augmentation is augmentation.crop and built.attack_mode == "train"
    assert built.shape(1.0) == pytest.approx(0.2) and built.shape(0.0) == shapes.cosine(0.0)
    attack = {"eps": 0.11, "step_size": 0.02, "iterations": 3, "norm": "L2", "random_start": False, "keep": "last"}
    assert built.attack.keywords == attack
