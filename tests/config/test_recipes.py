"""Recipes: each preset says what its source says, a base gets its run's recipe, and single values can be changed."""

import pytest

from bnft.common.errors import InputError
from bnft.config.compose import compose
from bnft.runs.plan import plan

SAID = {
    "standard": {
        "initialization": ("kaiming_fan_out", "kaiming_fan_in", "ones", "ones"),
        "normalization": "batch",
        "fill": None,
        "interpolation": None,
        "scratch": (150, 0.05, True, 5e-4, [0.4, 0.6, 0.8]),
    },
    "sister": {
        "initialization": ("kaiming_fan_out", "kaiming_fan_in", "ones", "ones"),
        "normalization": "reparametrized",
        "fill": "mean",
        "interpolation": "bicubic",
        "scratch": (150, 0.05, True, 5e-4, [0.4, 0.6, 0.8]),
    },
    "frankle": {
        "initialization": ("kaiming_fan_in", "kaiming_fan_in", "uniform", "uniform"),
        "normalization": "batch",
        "fill": None,
        "interpolation": None,
        "scratch": (160, 0.1, False, 1e-4, [0.5, 0.75]),
    },
}


@pytest.mark.parametrize("recipe", SAID)
def test_a_recipe_is_what_its_source_says(hydra, recipe):
    config = compose(["policy=normal", "data=cifar10", f"recipe={recipe}"]).config
    schedule, model = config["schedule"], config["model"]
    found = {
        "initialization": tuple(
            model["initialization"][part] for part in ("convolutions", "head", "gamma", "last_gamma")
        ),
        "normalization": model["normalization"],
        "fill": config["data"]["fill"],
        "interpolation": config["data"]["interpolation"],
        "scratch": (
            *(schedule[key] for key in ("epochs", "lr", "nesterov", "weight_decay")),
            schedule["shape"]["milestones"],
        ),
    }
    assert found == SAID[recipe]
    assert compose(["policy=normal", f"recipe={recipe}"]).config["schedule"]["epochs"] == 15, "the scale of the digits"


def test_a_base_gets_the_recipe_and_the_row_stays_one_of_the_paper(hydra):
    (run,) = plan([["policy=bn_params", "recipe=sister", "recipe.head=pytorch"]]).runs
    assert run.overrides == {}
    for one in (run, run.base):
        model = one.config["model"]
        assert (model["normalization"], model["initialization"]["head"]) == ("reparametrized", "pytorch")


def test_other_models_keep_their_own_initial_values(hydra):
    model = compose(["model=torchvision", "model.name=resnet18", "recipe=frankle"]).config["model"]
    assert "initialization" not in model and "normalization" not in model


def test_without_an_interpolation_a_run_keeps_the_name_of_before_the_key(hydra):
    run, bicubic = (plan([["policy=normal", f"recipe.interpolation={value}"]]).runs[0] for value in ("null", "bicubic"))
    assert run.name == plan([["policy=normal"]]).runs[0].name != bicubic.name
    assert "interpolation" not in run.identity["data"] and bicubic.identity["data"]["interpolation"] == "bicubic"
    with pytest.raises(InputError, match="interpolation=cubic"):
        compose(["policy=normal", "recipe.interpolation=cubic"])
