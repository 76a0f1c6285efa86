"""The words of a freeze policy, importable without PyTorch."""

SELECTORS = ("all", "batchnorm", "logits", "first_conv", "none")
STATISTICS = ("update", "frozen", "reset")
