"""The allowed words of a freeze policy. Does not import PyTorch."""

SELECTORS = (
    "all",
    "batchnorm",
    "logits",
    "first_conv",
    "none",
    "batchnorm.gamma",
    "batchnorm.beta",
    "batchnorm@stageN",
    "batchnorm@shortcut",
    "random:batchnorm",
    "random:N",
)
STATISTICS = ("update", "frozen", "reset")
CUMULATIVE = "cumulative"  # a value of `freeze_policy.momentum`
