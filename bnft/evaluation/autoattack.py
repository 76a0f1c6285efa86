"""AutoAttack (Croce and Hein, 2020). The official attack objects are stages of a cascade."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pyautoattack import AutoAttack, checks
from torch import nn

from bnft.evaluation.cascade import Attack
from bnft.evaluation.compat import forget_calls
from bnft.evaluation.notes import recorded
from bnft.evaluation.query_cache import cached
from bnft.evaluation.settings import Evaluation

TARGETED_DLR_CLASSES = 4  # the targeted DLR loss uses the four largest logits
DLR_CLASSES = 3


def attacks(model: nn.Module, config: Evaluation, classes: int, device: torch.device) -> tuple[list[Attack], list[str]]:
    """Make the attacks of one version of AutoAttack.

    Targeted attacks try 9 target classes, or all other classes if there are fewer. An attack is left out if its loss
    needs more classes than there are.

    Args:
        model: the model to search on.
        config: the version, the budget and the seed.
        classes: the number of classes.
        device: the device of the model.

    Returns:
        The attacks, and their differences from AutoAttack, in words.
    """
    notes = []
    official = _official(model, config, device)
    targets = min(9, classes - 1)
    official.apgd_targeted.n_target_classes = official.fab.n_target_classes = targets
    if targets < 9:
        notes.append(f"with {classes} classes, targeted attacks try {targets} target classes instead of 9")
    names = []
    for name in official.attacks_to_run:
        needed = {"apgd-t": TARGETED_DLR_CLASSES, "apgd-dlr": DLR_CLASSES}.get(name, 2)
        if classes < needed:
            notes.append(f"{name} was left out: its loss needs {needed} classes, there are {classes}")
        else:
            names.append(name)
    return [Attack(name, _stage(official, name)) for name in names], notes


def _official(model: nn.Module, config: Evaluation, device: torch.device) -> AutoAttack:
    custom = config.attacks if config.version == "custom" else None
    official = AutoAttack(
        model,
        norm=config.norm,
        eps=config.eps,
        version=config.version,
        attacks=custom,
        seed=config.seed,
        device=device,
    )
    official.verbose = False
    return official


def _stage(official: AutoAttack, name: str):  # type: ignore[no-untyped-def]
    """Return the call that `run_standard_evaluation` makes for one batch of one attack."""

    order = official.attacks_to_run
    restarts = official.fab.n_restarts
    if name == "fab-t" or (name == "fab" and "fab-t" in order[: order.index("fab")]):
        restarts = 1  # the official run sets this at fab-t, and never resets it

    def run(images: torch.Tensor, labels: torch.Tensor, batch: int) -> torch.Tensor:
        attack = {
            "apgd-ce": official.apgd,
            "apgd-dlr": official.apgd,
            "apgd-t": official.apgd_targeted,
            "fab": official.fab,
            "fab-t": official.fab,
            "square": official.square,
        }[name]
        if name in ("apgd-ce", "apgd-dlr"):
            official.apgd.loss = name.removeprefix("apgd-")
        if name in ("fab", "fab-t"):
            official.fab.targeted, official.fab.n_restarts = name == "fab-t", restarts
        if name == "square":
            official.square.predict = cached(official.model, images)
        attack.seed = official.get_seed()
        return attack.perturb(images.clone(), labels.clone()).detach()

    return run


def warnings_before(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, config: Evaluation) -> list[str]:
    """Run AutoAttack's checks of the model on the first batch: whether it is random, dynamic or returns no logits."""
    batch, truth = images[: config.batch_size], labels[: config.batch_size]
    logger = logging.getLogger("auto-attack")
    with recorded() as messages, _trace_kept():
        if config.version != "rand":
            checks.check_randomized(model, batch, truth, bs=config.batch_size, logger=logger)
        checks.check_range_output(model, batch, logger=logger)
        forget_calls()
        checks.check_dynamic(model, batch, False, logger=logger)
    return messages


def warnings_after(accuracies: dict[str, float]) -> list[str]:
    """Run AutoAttack's check of the result. It warns of masked gradients if Square Attack breaks many images.

    `accuracies` is the share of images (0 to 1) that the model classifies correctly, for "clean" and after each attack.
    """
    with recorded() as messages:
        checks.check_square_sr(accuracies, logger=logging.getLogger("auto-attack"))
    return messages


@contextmanager
def _trace_kept() -> Iterator[None]:
    """Restore the tracer of a debugger or of coverage, which AutoAttack's check for dynamic defences removes."""
    tracer = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(tracer)
