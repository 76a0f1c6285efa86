"""Check a composed configuration: every key, every value, and the rules for several keys together."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bnft.common.constraints import in_words
from bnft.common.errors import InputError, rejected, show
from bnft.config import components
from bnft.config.messages import annotations_of, pydantic_message, unknown_key
from bnft.config.schema import AttackKeys, Config, DataKeys
from bnft.evaluation.settings import ATTACKS, Evaluation

USUAL_ATTACK = "bnft.attacks.pgd.pgd"  # attack=none has its keys
ATTACK_SUPPLIES = ("model", "inputs", "labels", "generator")
SHAPE_SUPPLIES = ("progress",)

NEEDED = {"autoattack": ("version",), "quick": ("restarts",), "pgd": ("iterations", "step_size", "restarts")}
"""The settings of an evaluation without a default that each attack needs."""

MOST_ATTACKS = 127  # of a cascade, whose outcomes are one byte per image
MOST_RESTARTS = MOST_ATTACKS - len(ATTACKS)  # they can follow AutoAttack

SCHEMA = annotations_of(Config)
_ROOT = TypeAdapter(Config)


def check(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Check every key and value of a resolved configuration.

    Returns:
        The configuration with every value in its final type. `attack` is None if training uses clean images.

    Raises:
        InputError: if a key or value is invalid.
    """
    unknown = [key for key in raw if key not in SCHEMA]
    if unknown:
        raise InputError(unknown_key(unknown[0], raw[unknown[0]], [*SCHEMA, "policy"]))
    if raw.get("study") is not None:
        raise InputError("study: needs -m, because a study has many runs: bnft run -m +study=NAME")
    data, data_keys = components.check("data", raw["data"], DataKeys)  # first, since other groups refer to data
    try:
        config = asdict(_ROOT.validate_python(dict(raw)))
    except ValidationError as error:
        raise InputError(pydantic_message(error, raw, SCHEMA)) from None
    config["data"] = {**data_keys, **data}
    config["model"], _ = components.check("model", raw["model"])
    config["attack"] = _checked_attack(raw["attack"])
    config["schedule"]["shape"], _ = components.check("schedule.shape", raw["schedule"]["shape"], None, SHAPE_SUPPLIES)
    _check_together(config)
    if config["attack"]["_target_"] is None:  # training on clean images
        config["attack"] = None
    return config


def _checked_attack(attack: Mapping[str, Any]) -> dict[str, Any]:
    """Check the training attack. For `attack=none`, the keys of PGD are checked.

    Other keys are then not checked, because a sweep over attack=none,mine can set keys that only `mine` has.
    """
    if not isinstance(attack, Mapping) or "_target_" not in attack:
        raise rejected("attack", attack, "a group of keys with a _target_, or attack=none")
    target = attack["_target_"]
    named = {**attack, "_target_": USUAL_ATTACK if target is None else target}
    arguments, keys = components.check("attack", named, AttackKeys, ATTACK_SUPPLIES, incomplete=target is None)
    return {**keys, **arguments, "_target_": target}


def checked_evaluation(values: Mapping[str, Any]) -> Evaluation:
    """Check the settings of an evaluation without a run. The default step size of PGD is a quarter of eps.

    Raises InputError if a setting is invalid.
    """
    try:
        settings = TypeAdapter(Evaluation).validate_python(dict(values))
    except ValidationError as error:
        raise InputError(pydantic_message(error, values, annotations_of(Evaluation))) from None
    if settings.step_size is None and settings.attack == "pgd" and settings.eps is not None:
        settings.step_size = settings.eps / 4
    try:
        _check_evaluation(asdict(settings))
    except InputError as error:
        raise InputError(str(error).replace("evaluation.", "")) from None
    if settings.norm == "Linf" and settings.eps > 1:
        raise rejected("eps", settings.eps, "at most 1 with norm=Linf (pixel units, images in [0, 1])")
    return settings


def _check_together(config: Mapping[str, Any]) -> None:
    """Check the rules for several keys together."""
    _check_evaluation(config["evaluation"])
    _check_monitor(config["monitor"], config["schedule"]["epochs"])
    for group in ("threat", "attack", "monitor", "evaluation"):
        norm, eps = config[group].get("norm"), config[group].get("eps")
        if norm == "Linf" and (eps or 0) > 1:
            raise rejected(f"{group}.eps", eps, f"at most 1 with {group}.norm=Linf (pixel units, images in [0, 1])")
    schedule = config["schedule"]
    if schedule["nesterov"] and not schedule["momentum"]:
        raise rejected("schedule.momentum", schedule["momentum"], "above 0 with schedule.nesterov=true")
    for key in ("mean", "std"):
        values, channels = config["data"][key], config["data"]["channels"]
        if values is not None and len(values) != channels:
            raise rejected(f"data.{key}", values, f"a list of {channels} numbers, one per channel")


def _check_monitor(monitor: Mapping[str, Any], epochs: int) -> None:
    every = monitor["every"]
    if monitor["eps"] is None:
        raise rejected("monitor.eps", None, "a number, above 0")
    if every is None and monitor["keep"] != "last":
        raise rejected("monitor.keep", monitor["keep"], "last with monitor.every=null; set monitor.every to measure")
    if every is not None and every > epochs:
        raise rejected("monitor.every", every, f"at most the {epochs} epochs of schedule.epochs, or null")


def _check_evaluation(evaluation: Mapping[str, Any]) -> None:
    attack, names, version = evaluation["attack"], evaluation["attacks"], evaluation["version"]
    if evaluation["eps"] is None:
        raise rejected("evaluation.eps", None, "a number, above 0")
    for name in NEEDED[attack] + (("restarts",) if evaluation["then"] else ()):
        if evaluation[name] is None:
            allowed = in_words(annotations_of(Evaluation)[name]).removesuffix(", or null")
            raise rejected(f"evaluation.{name}", None, f"{allowed} with evaluation.attack={attack}")
    if attack != "autoattack" and evaluation["then"]:
        raise rejected("evaluation.then", evaluation["then"], f"null with evaluation.attack={attack}")
    if (evaluation["restarts"] or 1) > MOST_RESTARTS:
        raise rejected("evaluation.restarts", evaluation["restarts"], f"at most {MOST_RESTARTS}")
    _check_budgets(evaluation)
    if attack == "autoattack" and version == "custom" and not names:
        raise rejected("evaluation.attacks", names, f"a list of {', '.join(ATTACKS)} with evaluation.version=custom")
    if attack == "autoattack" and version != "custom" and names:
        raise rejected("evaluation.attacks", names, f"null with evaluation.version={version}")


def _check_budgets(evaluation: Mapping[str, Any]) -> None:
    """Check `evaluation.budgets`, over which robust error is measured. One of them is eps itself."""
    budgets, eps, attack = evaluation["budgets"], evaluation["eps"], evaluation["attack"]
    if budgets is None:
        return
    most = MOST_ATTACKS // evaluation["restarts"] if evaluation["restarts"] else MOST_ATTACKS
    if attack != "quick":
        allowed = f"null with evaluation.attack={attack}"
    elif eps not in budgets:
        allowed = f"a list that contains evaluation.eps={show(eps)}"
    elif evaluation["norm"] == "Linf" and budgets[-1] > 1:
        allowed = "at most 1 with evaluation.norm=Linf (pixel units, images in [0, 1])"
    elif len(budgets) > most:
        allowed = f"a list of at most {most} numbers with evaluation.restarts={evaluation['restarts']}"
    else:
        return
    raise rejected("evaluation.budgets", budgets, allowed)
