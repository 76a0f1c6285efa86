"""The numbers and settings of the paper: Walter, Stutz and Schiele, "On Fragile Features and Batch Normalization in
Adversarial Training".
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PaperRow:
    """One row of Table 2, with errors in percent."""

    policy: str
    title: str
    clean_error: float
    robust_error: float


CLEAN_IMAGES = 900  # every clean error in the paper is a whole multiple of 1/900
ROBUST_IMAGES = 1000  # section 3.2

ROWS = (
    PaperRow("normal", "NORMAL", 4.11, 99.8),
    PaperRow("normal_bn_only", "NORMAL +BN ONLY", 46.11, 99.7),
    PaperRow("normal_bn_only_logits_conv1", "NORMAL +BN ONLY + log + conv1", 35.89, 99.6),
    PaperRow("adv", "ADV", 17.67, 58.4),
    PaperRow("bn_only", "ADV +BN ONLY", 43.33, 98.0),
    PaperRow("bn_only_logits_conv1", "ADV +BN ONLY + log + conv1", 35.22, 98.1),
    PaperRow("bn_stats_no_reset", "BN STATS (no reset)", 6.44, 99.9),
    PaperRow("bn_stats", "BN STATS (reset)", 6.33, 99.6),
    PaperRow("bn_only_params", "BN ONLY PARAMS", 77.11, 85.3),
    PaperRow("bn_params", "BN PARAMS", 29.67, 70.5),
    PaperRow("bn_params_logits_conv1", "BN PARAMS + log + conv1", 26.89, 68.2),
)
BY_POLICY = {row.policy: row for row in ROWS}
ORDER = {row.policy: position for position, row in enumerate(ROWS)}

EPS = 8 / 255  # L-infinity, pixel units
CONSTANT_ERROR = 90.0  # error of always predicting the same one of ten equally frequent classes
STEP_SIZE = 0.007  # step size of PGD
TRAINING_IMAGES = 50_000
PRECISION = "fp32"  # not stated in the paper; the default of PyTorch
DATA = "cifar10"
MODEL_PARAMETERS = 4_327_754  # ResNet-20 with 64 channels; BN has 0.145 % of them (Table 1: 0.15 %)

LEARNING_SHARES = {  # Table 1, in percent of all parameters; in brackets if only statistics change
    "normal": "100.00",
    "adv": "100.00",
    "normal_bn_only": "0.15",
    "bn_only": "0.15",
    "bn_stats_no_reset": "(0.15)",
    "bn_stats": "(0.15)",
    "bn_only_params": "0.15",
    "bn_params": "0.15",
}

_MODEL = {
    "_target_": "resnet",
    "channels": 3,
    "num_classes": 10,
    "width": 64,
    "blocks": [3, 3, 3],
    "initialization": {
        "convolutions": "kaiming_fan_out",
        "head": "kaiming_fan_in",
        "gamma": "ones",
        "last_gamma": "ones",
    },
    "normalization": "batch",
}
_SGD = {"batch_size": 128, "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
_STEP = {"_target_": "step", "milestones": [0.4, 0.6, 0.8], "factor": 0.1}
_ON_CLEAN_IMAGES = ("normal", "normal_bn_only", "normal_bn_only_logits_conv1")
_FROM_NORMAL = ("bn_stats_no_reset", "bn_stats", "bn_only_params", "bn_params", "bn_params_logits_conv1")
_EPOCHS = {"scratch": 150, "finetune": 30, "statistics": 5}
_PGD = {
    "_target_": "pgd",
    "mode": "eval",
    "norm": "Linf",
    "eps": EPS,
    "iterations": 10,
    "step_size": STEP_SIZE,
    "random_start": True,
    "keep": "worst",
}


def setting(policy: str) -> dict[str, Any]:
    """Return the paper's training of a row, in the form of a run's identity.

    Values that the paper does not state are those of docs/protocol.md, which gives the source of each choice.
    """
    clean, tuned = policy in _ON_CLEAN_IMAGES, policy in _FROM_NORMAL
    length = "statistics" if policy.startswith("bn_stats") else "finetune" if tuned else "scratch"
    values: dict[str, Any] = {
        "model": _MODEL,
        "data": {"augmentation": "autoaugment" if clean else "crop_flip"},
        "schedule": {"epochs": _EPOCHS[length], **_SGD, "shape": _STEP},
    }
    values |= {} if clean else {"attack": _PGD}
    return values | ({"base": setting("normal")} if tuned else {})
