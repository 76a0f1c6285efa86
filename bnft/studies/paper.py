"""What the paper reports: Table 2 of Walter, Stutz and Schiele, "On Fragile Features and Batch Normalization in
Adversarial Training".
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """One row of Table 2, errors in percent."""

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
DATA = "cifar10"
MODEL_PARAMETERS = 4_327_754  # ResNet-20 at 64 channels, of which BN is 0.145 % (Table 1: 0.15 %)

LEARNING_SHARES = {  # Table 1, in percent of all parameters; in brackets where statistics change and nothing learns
    "normal": "100.00",
    "adv": "100.00",
    "normal_bn_only": "0.15",
    "bn_only": "0.15",
    "bn_stats_no_reset": "(0.15)",
    "bn_stats": "(0.15)",
    "bn_only_params": "0.15",
    "bn_params": "0.15",
}
