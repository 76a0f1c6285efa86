"""The words of a freeze policy, importable without PyTorch."""

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
CUMULATIVE = "cumulative"  # a momentum of the BN statistics
