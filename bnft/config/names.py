"""The stable names of bnft's own components. They stand in configurations and results; import paths do not.

A component of bnft is named without a dot (`resnet`), one of a person's own by `package.module.name`. So the files of
bnft can move without renaming any run. Light: reports read it, too.
"""

FORMER = {
    "bnft.models.resnet.ResNet": "resnet",
    "bnft.models.torchvision.Torchvision": "torchvision",
    "bnft.data.cifar10.load": "cifar10",
    "bnft.data.digits.load": "digits",
    "bnft.data.npz.load": "npz",
    "bnft.attacks.pgd.pgd": "pgd",
    "bnft.schedules.step": "step",
    "bnft.schedules.cosine": "cosine",
    "bnft.schedules.one_cycle": "one_cycle",
}
"""What components were called in configurations and results of version 0.1; still understood."""

HASHED = {name: former for former, name in FORMER.items()}
"""What protocol 2 hashes for a component, so that runs keep the names that they had in version 0.1."""


def stable(target: str) -> str:
    """The stable name of a component; a person's own keeps its `package.module.name`."""
    return FORMER.get(target, target)


def short(target: str) -> str:
    """A component's name for headings: the stable name, or the module of a person's own (`mine` of `mine.load`)."""
    name = stable(target)
    return name.split(".")[-2] if "." in name else name
