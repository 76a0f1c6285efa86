"""Evaluation of a model without and with attacks.

The model is evaluated in eval mode and in fp32, on images in [0, 1], with fixed seeds. Every adversarial image is
scored again and checked against the budget. AutoAttack's warnings are kept with the result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn

from bnft.attacks.base import no_trace
from bnft.attacks.folding import Folded
from bnft.common.stopping import Pulse, before_each_forward
from bnft.evaluation import autoattack, pgd, quick
from bnft.evaluation.cascade import (
    Attack,
    Cascade,
    EvaluationError,
    Watcher,
    check_adversarial,
    check_images,
    laid_out,
)
from bnft.evaluation.cascade import run as run_cascade
from bnft.evaluation.notes import recorded
from bnft.evaluation.passes import Counter, counted
from bnft.evaluation.processes import Job, helpers
from bnft.evaluation.settings import CLEAN, STANDS, Evaluation
from bnft.evaluation.summary import AttackSummary, CurvePoint, ErrorRate, Passes, Summary

EXAMPLES = 16  # original images that are kept
UNCONFIRMED = "adversarial images did not fool the model when scored again and do not count"
SCORING_BATCH = 500  # images scored at once if no attack needs memory


@dataclass(frozen=True)
class Outcomes:
    """The outcomes for N images, of which the first n were attacked.

    Attributes:
        clean_logits: logits (N, classes) of all images.
        labels: labels (N,) of all images.
        fallen_at: int8 (n,), which attack broke each attacked image; see `cascade.Cascade`.
        beyond: bool (n,), which images only the further attack broke (`Evaluation.then`), or only budgets larger than
            eps (`Evaluation.budgets`). In `fallen_at`, they are robust.
        adversarial: the adversarial images (n, C, H, W); see `cascade.Cascade`. With several budgets, each image is
            within the smallest one that broke it.
        adversarial_logits: logits (n, classes) of `adversarial`.
        pgd_logits: logits (n, classes) of PGD examples of the attacked images; see `pgd.logits`.
        originals: the first EXAMPLES of the attacked images without perturbations, to be shown beside `adversarial`.
        fallen_within: int8 (n,): STANDS, CLEAN, or the number of the smallest budget that broke the image, counted from
            1; None if the evaluation has one budget.
    """

    clean_logits: torch.Tensor
    labels: torch.Tensor
    fallen_at: torch.Tensor
    beyond: torch.Tensor
    adversarial: torch.Tensor
    adversarial_logits: torch.Tensor
    pgd_logits: torch.Tensor
    originals: torch.Tensor
    fallen_within: torch.Tensor | None = None

    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in vars(self).items() if value is not None}


def evaluate(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    config: Evaluation,
    watcher: Watcher,
    cascade: Cascade | None = None,
    processes: int = 1,
) -> tuple[Outcomes, Summary]:
    """Measure the clean error on all images and the robust error on the first `config.n_images` of them.

    Args:
        model: the model in eval mode and fp32, on the images' device. Attacks search on its folded view (see
            `bnft.attacks.folding`). Every image that they return is scored on the model itself.
        images: float32 of shape (N, C, H, W), in [0, 1].
        labels: int64 of shape (N,).
        config: the attack and its budget.
        watcher: called after each batch of an attack.
        cascade: the state of an interrupted evaluation, to continue from.
        processes: the maximal number of processes for a long evaluation on a CPU; see `bnft.evaluation.processes`.

    Returns:
        The outcome for each image, and the numbers counted from the outcomes.

    Raises:
        EvaluationError: if the model or an attack returns invalid values, so that the errors would be wrong.
    """
    check_model(model)
    check_images(images, "evaluation is given")
    count = config.n_images
    with no_trace(model):
        clean_logits = torch.cat([score(model, images[:count], config.batch_size), *_scores(model, images[count:])])
        attacked, truth = images[:count], labels[:count]
        view = Folded(model, images[:2]).view
        attacks, notes = _attacks(view, config, clean_logits.shape[1], images.device)
        if cascade is None:
            cascade = Cascade.start(attacked, clean_logits[:count].argmax(1) == truth)
            if config.attack != "pgd":
                cascade.warnings = notes + autoattack.warnings_before(model, attacked, truth, config)
        job = Job(model, attacked, truth, config, clean_logits.shape[1])
        with (
            recorded(cascade.warnings),
            before_each_forward(view, watcher.pulse),
            counted(view) as counter,
            helpers(job, _helpers_attacks, processes, watcher.pulse, cascade.warnings) as shared,
        ):
            run_cascade(
                model,
                attacked,
                truth,
                attacks,
                norm=config.norm,
                eps=config.eps,
                batch_size=config.batch_size,
                cascade=cascade,
                watcher=watcher,
                counter=counter,
                shared=shared.found if shared is not None else None,
            )
            pgd_logits = pgd.logits(model, view, attacked, truth, config)
        adversarial = laid_out(cascade.adversarial, attacked)
        adversarial_logits = score(model, adversarial, config.batch_size)
        unconfirmed = confirm(cascade, attacked, adversarial_logits.argmax(1) != truth, attacks, config)
    outcomes = Outcomes(
        clean_logits.cpu(),
        labels.cpu(),
        *_parted(cascade.fallen_at, attacks, config),
        cascade.adversarial,
        adversarial_logits.cpu(),
        pgd_logits.cpu(),
        attacked[:EXAMPLES].cpu(),
        _within(cascade.fallen_at, config),
    )
    return outcomes, replace(
        summary(outcomes, attacks, cascade, config, unconfirmed), pgd_loss=pgd.loss(pgd_logits, truth)
    )


def check_model(model: nn.Module) -> None:
    """Raise EvaluationError unless every module is in eval mode and every floating-point tensor is fp32."""
    training = [name or "the model itself" for name, module in model.named_modules() if module.training]
    if training:
        raise EvaluationError(f"evaluation needs the model in eval mode; in train mode: {', '.join(training[:5])}")
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.dtype != torch.float32:
            raise EvaluationError(f"evaluation needs fp32; {name} is {value.dtype}")


@torch.no_grad()
def score(model: nn.Module, images: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Return logits (N, classes) of images (N, C, H, W) in [0, 1]. Raises EvaluationError if any is not finite."""
    check_images(images, "the model is given")
    logits = torch.cat([model(part).float() for part in images.split(batch_size)])
    if not bool(torch.isfinite(logits).all()):
        raise EvaluationError("the model gives logits that are not finite")
    return logits


def _scores(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Return the logits of images as a list of one tensor, or an empty list if there are no images."""
    return [score(model, images, SCORING_BATCH)] if len(images) else []


def confirm(
    cascade: Cascade, originals: torch.Tensor, fooled: torch.Tensor, attacks: Sequence[Attack], config: Evaluation
) -> int:
    """Check every adversarial image again, within the budget of its attack.

    Images that do not fool the model again count as robust. An image close to the decision boundary can be
    classified differently in another batch, because of rounding.

    Returns:
        The number of images that do not fool the model again.
    """
    found = cascade.adversarial.to(originals.device)
    for number, attack in enumerate(attacks, start=1):
        fell = (cascade.fallen_at == number).to(originals.device)
        check_adversarial(found[fell], originals[fell], config.norm, attack.eps or config.eps, "the cascade")
    unconfirmed = (cascade.fallen_at > CLEAN) & ~fooled.cpu()
    cascade.fallen_at[unconfirmed] = STANDS
    return int(unconfirmed.sum())


def summary(
    outcomes: Outcomes, attacks: Sequence[Attack], cascade: Cascade, config: Evaluation, unconfirmed: int
) -> Summary:
    """Return the numbers of an evaluation, without the loss on PGD examples."""
    fallen_at = outcomes.fallen_at
    clean = ErrorRate.of(int((outcomes.clean_logits.argmax(1) != outcomes.labels).sum()), len(outcomes.labels))
    steps = []
    own = len(attacks) - _further(config)
    for number, attack in enumerate(attacks[:own], start=1):
        errors = int(((fallen_at >= CLEAN) & (fallen_at <= number)).sum())
        steps.append(_step(attack.name, errors, len(fallen_at), cascade.seconds[number - 1 : number]))
    strongest = None
    if config.then is not None:
        errors = int(((fallen_at != STANDS) | outcomes.beyond).sum())
        strongest = _step(config.then, errors, len(fallen_at), cascade.seconds[own:])
    notes = list(cascade.warnings)
    if config.attack == "autoattack":
        notes += autoattack.warnings_after(_accuracies(fallen_at, steps))
    if unconfirmed:
        notes.append(f"{unconfirmed} {UNCONFIRMED}")
    return Summary(
        clean=clean,
        robust=ErrorRate.of(int((fallen_at != STANDS).sum()), len(fallen_at)),
        cascade=tuple(steps),
        strongest=strongest,
        passes=None if cascade.passes is None else Passes(**cascade.passes),
        curve=_curve(outcomes, config),
        warnings=tuple(notes),
        seconds=round(sum(cascade.seconds), 3),
    )


def _accuracies(fallen_at: torch.Tensor, steps: Sequence[AttackSummary]) -> dict[str, float]:
    """Return the share of images that are classified correctly without an attack, and after each attack."""
    after = {step.attack: 1 - step.errors / step.images for step in steps}
    return {"clean": float((fallen_at != CLEAN).float().mean()), **after}


def after_autoattack(outcomes: Mapping[str, torch.Tensor], result: Summary) -> Cascade | None:
    """Return the state of a cascade after AutoAttack, to continue with a further attack (`Evaluation.then`).

    Args:
        outcomes: the outcomes of an evaluation with AutoAttack alone, as from `Outcomes.tensors`.
        result: its numbers.

    Returns:
        The state. None if it cannot be restored exactly: the adversarial images or the number of passes are missing, or
        an adversarial image did not fool the model when scored again, so that the attack that returned it is not known.
    """
    if "adversarial" not in outcomes or result.passes is None:
        return None
    if any(warning.endswith(UNCONFIRMED) for warning in result.warnings):
        return None
    fallen_at = outcomes["fallen_at"]
    later = autoattack.warnings_after(_accuracies(fallen_at, result.cascade))  # `summary` adds these again
    return Cascade(
        fallen_at=fallen_at,
        adversarial=outcomes["adversarial"],
        members=(fallen_at == STANDS).nonzero().squeeze(1),
        attack=len(result.cascade),
        seconds=[step.seconds for step in result.cascade],
        warnings=[warning for warning in result.warnings if warning not in later],
        passes=asdict(result.passes),
    )


def _step(attack: str, errors: int, images: int, seconds: Sequence[float]) -> AttackSummary:
    return AttackSummary(attack=attack, **vars(ErrorRate.of(errors, images)), seconds=round(sum(seconds), 3))


def _attacks(view: nn.Module, config: Evaluation, classes: int, device: torch.device) -> tuple[list[Attack], list[str]]:
    """Make the attacks of an evaluation. Returns them and their differences from AutoAttack, in words."""
    if config.attack == "quick":
        return quick.attacks(view, config, device), []
    if config.attack == "pgd":
        return pgd.attacks(view, config, device), []
    attacks, notes = autoattack.attacks(view, config, classes, device)
    return (attacks + quick.attacks(view, config, device, thorough=True) if config.then else attacks), notes


def _further(config: Evaluation) -> int:
    """Return how many attacks at the end of the cascade do not count: the further attack, and those beyond eps."""
    further = 1 if config.then is not None else sum(eps > config.eps for eps in config.budgets or ())
    return further * (config.restarts or 1)


def _parted(
    fallen_at: torch.Tensor, attacks: Sequence[Attack], config: Evaluation
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which attack broke each image, without those of `_further`, and which images only those broke."""
    beyond = fallen_at > len(attacks) - _further(config)
    return fallen_at.masked_fill(beyond, STANDS), beyond


def _within(fallen_at: torch.Tensor, config: Evaluation) -> torch.Tensor | None:
    """Return `Outcomes.fallen_within`, from the attack that broke each image."""
    if config.budgets is None:
        return None
    number = (fallen_at - 1).div(config.restarts or 1, rounding_mode="floor") + 1
    return number.where(fallen_at > CLEAN, fallen_at)


def _curve(outcomes: Outcomes, config: Evaluation) -> tuple[CurvePoint, ...] | None:
    within = outcomes.fallen_within
    if within is None:
        return None
    points = []
    for number, eps in enumerate((0.0, *(config.budgets or ()))):
        errors = int(((within >= CLEAN) & (within <= number)).sum())
        points.append(CurvePoint(eps=eps, **vars(ErrorRate.of(errors, len(within)))))
    return tuple(points)


def _helpers_attacks(job: Job, pulse: Pulse) -> tuple[list[Attack], Counter]:
    """Make the attacks in a helper process, and the counter of passes. `pulse` is called before each forward pass."""
    view, counter = Folded(job.model, job.images[:2]).view, Counter()
    view.register_forward_pre_hook(lambda *_: pulse())
    view.register_forward_hook(counter.see)
    return _attacks(view, job.config, job.classes, job.images.device)[0], counter
