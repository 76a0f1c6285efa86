"""Build the parts of a run from its checked configuration (see `bnft.config.compose`)."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from torch import nn

from bnft import models
from bnft.batchnorm.freezing import Freezing
from bnft.common.errors import InputError, rejected
from bnft.config import components
from bnft.config.components import split
from bnft.config.schema import AttackKeys, DataKeys
from bnft.data import augmentation
from bnft.data.dataset import Dataset, prepare
from bnft.evaluation.settings import Evaluation
from bnft.training.monitor import Monitoring
from bnft.training.recipe import Recipe

Config = Mapping[str, Any]


def dataset(config: Config) -> Dataset:
    """Load the data set of a run, once per process, without the training images that it holds out for monitoring.

    Raises InputError if the data are invalid.
    """
    arguments, keys = split(config["data"], DataKeys)
    kept = {name: keys.get(name) for name in ("num_classes", "validation", "training_images")}  # old ones lack some
    loaded = _loaded(settings := json.dumps([arguments, kept], sort_keys=True))
    monitor = config.get("monitor")  # older configurations have none
    return loaded if monitor is None or monitor["every"] is None else _held_out(settings, monitor["images"])


@lru_cache(maxsize=4)
def _loaded(settings: str) -> Dataset:
    arguments, keys = json.loads(settings)
    return prepare(components.build("data", arguments)(), **keys)


@lru_cache(maxsize=4)
def _held_out(settings: str, count: int) -> Dataset:
    return _loaded(settings).hold_out(count)


def check_data(config: Config, data: Dataset, evaluated: bool = True) -> None:
    """Raise InputError if the configuration does not fit the data.

    The settings of the evaluation are checked only if the run is `evaluated`.
    """
    settings, test, train = config["data"], len(data.x_test), len(data.x_train)
    if settings["channels"] != data.channels:
        raise rejected("data.channels", settings["channels"], f"{data.channels}, the number of channels of the images")
    if config["schedule"]["batch_size"] > train:
        raise rejected("schedule.batch_size", config["schedule"]["batch_size"], f"at most the {train} training images")
    if evaluated and (attacked := config["evaluation"]["n_images"]) > test:
        key = "data.n_images" if attacked == settings["n_images"] else "evaluation.n_images"
        raise rejected(key, attacked, f"at most the {test} test images")
    augmentation.fits(settings["augmentation"], data)


def model(config: Config, data: Dataset) -> nn.Module:
    """Build the network of a run with its input normalisation, on the CPU, initialised with the seed of the run."""
    settings = config["data"]
    network = components.build("model", config["model"])
    return models.build(network, settings["mean"] or data.mean, settings["std"] or data.std, config["seed"])


def check_model(config: Config, data: Dataset) -> None:
    """Raise InputError if the model cannot be built, does not fit the data, or lacks layers that the policy names."""
    policy, settings = config["freeze_policy"], config["data"]
    _checked_model(
        json.dumps([config["model"], settings["num_classes"], policy], sort_keys=True), data.image_shape, data.mean
    )


@lru_cache(maxsize=64)
def _checked_model(settings: str, image_shape: tuple[int, int, int], mean: tuple[float, ...]) -> None:
    arguments, classes, policy = json.loads(settings)
    built = _built(arguments, mean, seed=0)
    models.check_output(built, image_shape, classes)
    Freezing(built, policy["parameters"], policy["statistics"])


def model_without_data(config: Config) -> nn.Module:
    """Build the network without reading data, so that its normalisation changes nothing.

    Raises InputError if it cannot be built.
    """
    return _built(config["model"], [0.0] * config["data"]["channels"], config["seed"])


def _built(arguments: dict[str, Any], mean: Sequence[float], seed: int) -> nn.Module:
    network = components.build("model", arguments)
    try:
        return models.build(network, mean, [1.0] * len(mean), seed)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise InputError(f"model: {arguments['_target_']} cannot be built ({' '.join(str(error).split())})") from error


def recipe(config: Config) -> Recipe:
    """Build the recipe of a run."""
    schedule, attack = config["schedule"], config["attack"]
    built, mode = None, "eval"
    if attack is not None:
        arguments, keys = split(attack, AttackKeys)
        built, mode = components.build("attack", arguments), keys["mode"]
    return Recipe(
        epochs=schedule["epochs"],
        batch_size=schedule["batch_size"],
        lr=schedule["lr"],
        shape=components.build("schedule.shape", schedule["shape"]),
        momentum=schedule["momentum"],
        nesterov=schedule["nesterov"],
        weight_decay=schedule["weight_decay"],
        batchnorm_weight_decay=schedule["batchnorm_weight_decay"],
        augmentation=augmentation.named(config["data"]["augmentation"], config["data"]["interpolation"]),
        attack=built,
        attack_mode=mode,
        seed=config["seed"],
        fill=config["data"]["fill"],
        monitoring=_monitoring(config["monitor"]),
    )


def _monitoring(monitor: dict[str, Any]) -> Monitoring | None:
    if monitor["every"] is None:
        return None
    return Monitoring(**{key: value for key, value in monitor.items() if key != "images"})


def evaluation(config: Config) -> Evaluation:
    """Build the settings of the evaluation of a run."""
    return Evaluation(**config["evaluation"])
