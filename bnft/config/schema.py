"""The typed schema of the configuration. Hydra checks types against it. `bnft.config.compose` checks all rules.

`model`, `data`, `attack` and `schedule.shape` are components. Their schema is the signature of their `_target_` and the
keys that all components of a group have, which are here.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, Any

from omegaconf import MISSING

from bnft.batchnorm.selectors import CUMULATIVE, SELECTORS, STATISTICS
from bnft.common.constraints import Rule, Strict, above, at_least, at_most, below, not_empty, number, one_of
from bnft.evaluation.settings import NORMS, PREVIEWS, Evaluation

TRACKING_MODES = ("auto", "online", "offline", "disabled")
PRECISIONS = ("auto", "bf16", "fp32")
KEPT = ("last", "best")
KINDS = ("scratch", "scratch_bn", "finetune", "statistics")

selectors = Rule(f"a list of {', '.join(SELECTORS)} or name patterns", bool, complete=True)

momentum = Rule(
    f"{CUMULATIVE}, or a number above 0 and at most 1",
    lambda value: value == CUMULATIVE or (isinstance(value, (int, float)) and 0 < value <= 1 and value is not True),
    complete=True,
)

plain_name = Rule(
    "letters, digits, _ . + and -, and unlike `all` or the name of a run",
    lambda value: bool(re.fullmatch(r"(?!all$|.+-[0-9a-f]{10}$)\w[\w.+-]{0,99}", value)),
    complete=True,
)


@dataclass
class FreezePolicy(Strict):
    """Which parameters learn, and what happens to the BN statistics."""

    parameters: Annotated[list[str], selectors] = MISSING
    statistics: Annotated[str, one_of(*STATISTICS)] = MISSING
    momentum: Annotated[Any, momentum] = None  # of the BN statistics; the layers' own if None


@dataclass
class Schedule(Strict):
    """How long and how fast to train, with SGD. The learning rate is `lr * shape(progress)`.

    `kind` has no effect by itself. A scale has numbers of epochs and learning rates for each kind.
    """

    epochs: Annotated[int, at_least(0)] = MISSING
    batch_size: Annotated[int, at_least(2)] = MISSING
    lr: Annotated[float, number, above(0)] = MISSING
    shape: Any = MISSING
    momentum: Annotated[float, at_least(0), below(1)] = MISSING
    nesterov: bool = MISSING
    weight_decay: Annotated[float, at_least(0)] = MISSING
    batchnorm_weight_decay: Annotated[float | None, at_least(0)] = None  # on BN parameters; as the others if None
    kind: Annotated[str | None, one_of(*KINDS)] = None


@dataclass
class Threat(Strict):
    """The threat model. Training attack, monitor and evaluation use its norm and eps, in pixel units."""

    norm: Annotated[str, one_of(*NORMS)] = MISSING
    eps: Annotated[Any, number, above(0)] = MISSING


@dataclass
class RecipeKeys(Strict):
    """Choices that papers often leave unsaid. Models and data sets refer to them, and say what they allow."""

    convolutions: str | None = None
    head: str | None = None
    gamma: str | None = None
    last_gamma: str | None = None
    normalization: str | None = None
    milestones: list[float] | None = None
    fill: str | None = None
    interpolation: str | None = None


@dataclass
class DataKeys(Strict):
    """The keys that every data set has, in addition to those of its `_target_`."""

    num_classes: Annotated[int, at_least(2)]
    channels: Annotated[int, at_least(1)]
    augmentation: str  # one of `data.augmentation.NAMES`
    augmentations: dict[str, str]  # the augmentation for `clean` and for `adversarial` training examples
    n_images: Annotated[int, at_least(1)]
    attack_batch_size: Annotated[int, at_least(1)]
    training_images: Annotated[int | None, at_least(1)] = None
    validation: Annotated[int | None, at_least(1)] = None
    fill: Annotated[str | None, one_of("mean")] = None
    interpolation: Annotated[str | None, one_of("bicubic")] = None
    mean: list[float] | None = None
    std: list[Annotated[float, above(0)]] | None = None


@dataclass
class AttackKeys(Strict):
    """The keys that every training attack has, in addition to those of its `_target_`."""

    examples: Annotated[str, one_of("clean", "adversarial")]
    mode: Annotated[str, one_of("eval", "train")] = "eval"


@dataclass
class Monitor(Strict):
    """Clean and robust error while training, on training images that are held out."""

    every: Annotated[int | None, at_least(1)] = None
    images: Annotated[int, at_least(1)] = MISSING
    keep: Annotated[str, one_of(*KEPT)] = MISSING
    norm: Annotated[str, one_of(*NORMS)] = MISSING
    eps: Annotated[Any, number, above(0)] = MISSING


@dataclass
class Wandb(Strict):
    """Whether and where runs are tracked with Weights & Biases."""

    mode: Annotated[str, one_of(*TRACKING_MODES)] = "auto"
    entity: str | None = None
    project: Annotated[str, not_empty] = "bnft"
    tags: list[str] = field(default_factory=list)


@dataclass
class Config(Strict):
    """The root. `bnft.runs.identity.of_run` lists the keys that name a run. The other keys do not change numbers."""

    title: str = MISSING
    base: str | None = None
    base_overrides: list[str] = field(default_factory=list)
    preview: Annotated[str | None, one_of(*PREVIEWS)] = "quick"  # what to evaluate with before AutoAttack
    seed: Annotated[int, at_least(0)] = 0
    precision: Annotated[str, one_of(*PRECISIONS)] = "auto"
    device: str = "auto"
    threads: Annotated[int | None, at_least(1), at_most(1024)] = None
    store: str = "multirun"
    sweep_name: Annotated[str | None, plain_name] = None
    study: Any = None  # with -m, the contents of a file in conf/study/; see `bnft.studies`
    model: Any = MISSING
    data: Any = MISSING
    freeze_policy: FreezePolicy = MISSING
    recipe: RecipeKeys = field(default_factory=RecipeKeys)
    threat: Threat = MISSING
    attack: Any = MISSING
    schedule: Schedule = MISSING
    scale: dict[str, Any] = field(default_factory=dict)  # numbers to which the file of a scale refers
    monitor: Monitor = MISSING
    evaluation: Evaluation = MISSING
    wandb: Wandb = field(default_factory=Wandb)
