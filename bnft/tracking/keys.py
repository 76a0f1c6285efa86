"""The names of the metrics that a tracked run logs. They are used to log them and to draw them.

The step of every metric is the epoch. Errors are in percent.
"""

EPOCH = "epoch"

TRAIN_LOSS = "train/loss"
TRAIN_ERROR = "train/error"  # in train mode, on the images that the model trains on
TRAIN_CLEAN_ERROR = "train/clean_error"
TRAIN_ADVERSARIAL_ERROR = "train/adversarial_error"
TRAIN_PGD_LOSS = "train/pgd_loss"
TRAIN_LR = "train/lr"
TRAIN_SECONDS = "train/seconds"
TRAIN_IMAGES_PER_SECOND = "train/images_per_second"
MONITOR_CLEAN_ERROR = "monitor/clean_error"  # by the quick attack on held-out training images
MONITOR_ROBUST_ERROR = "monitor/robust_error"
TRAINING = (
    TRAIN_LOSS,
    TRAIN_ERROR,
    TRAIN_CLEAN_ERROR,
    TRAIN_ADVERSARIAL_ERROR,
    TRAIN_PGD_LOSS,
    TRAIN_LR,
    TRAIN_SECONDS,
    TRAIN_IMAGES_PER_SECOND,
    MONITOR_CLEAN_ERROR,
    MONITOR_ROBUST_ERROR,
)

TEST_CLEAN_ERROR = "test/clean_error"
TEST_ROBUST_ERROR = "test/robust_error"
TEST_CLEAN_LOW, TEST_CLEAN_HIGH = "test/clean_low", "test/clean_high"  # the ends of the 95 % interval
TEST_ROBUST_LOW, TEST_ROBUST_HIGH = "test/robust_low", "test/robust_high"
TEST_PGD_LOSS = "test/pgd_loss"
TEST_EPS = "test/eps"
TEST_NORM = "test/norm"
TEST_ATTACK = "test/attack"  # of the robust error, such as quick
TEST_STRONGEST_ERROR = "test/strongest_error"  # after a further attack too
TEST_EVALUATION = "test/evaluation"  # its id
TEST_SECONDS = "test/seconds"
TEST_WARNINGS = "test/warnings"  # the number of AutoAttack's warnings
TEST = (
    TEST_CLEAN_ERROR,
    TEST_ROBUST_ERROR,
    TEST_CLEAN_LOW,
    TEST_CLEAN_HIGH,
    TEST_ROBUST_LOW,
    TEST_ROBUST_HIGH,
    TEST_PGD_LOSS,
    TEST_EPS,
)

CASCADE = "test/cascade"  # table
EXAMPLES = "test/examples"  # images
CLEAN_CONFIDENCE, ADVERSARIAL_CONFIDENCE = "test/confidence/clean", "test/confidence/adversarial"
CLEAN_LOGITS, ADVERSARIAL_LOGITS = "test/logits/clean", "test/logits/adversarial"
TEST_HISTOGRAMS = (CLEAN_CONFIDENCE, ADVERSARIAL_CONFIDENCE, CLEAN_LOGITS, ADVERSARIAL_LOGITS)

BN_PREFIX = "bn/"
MEAN_M_PREFIX = "bn_mean_m/"


def bn(layer: str, quantity: str) -> str:
    """Return the name of the histogram of one of `record.QUANTITIES` over the channels of a BN layer."""
    return f"{BN_PREFIX}{_place(layer)}/{quantity}"


def mean_m(layer: str) -> str:
    """Return the name of the mean of the normalized weight m over the channels of a BN layer."""
    return f"{MEAN_M_PREFIX}{_place(layer)}"


def after(attack: str) -> str:
    """Return the name of the robust error after one attack of the cascade."""
    return f"cascade/{attack}"


def _place(layer: str) -> str:
    """Return a layer's name without dots. W&B would split it at dots, and settings for `bn/*` would not apply to it."""
    return layer.replace(".", "/")
