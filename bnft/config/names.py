"""The stable names of bnft's own components. Configurations and results contain these names, not import paths.

The name of a component of bnft has no dot (`resnet`). A user's own component is named by `package.module.name`. The
files of bnft can therefore move without renaming any run. Reports import this module, so it must import quickly.
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
"""The names of components in configurations and results of version 0.1, which still work."""

RENAMED = {"data.eps": "threat.eps"}
"""Keys of the configuration that have another name now."""

BEFORE_RECIPES = ("recipe.head=pytorch", "recipe.last_gamma=zeros")
"""What gives the initial values of protocols before RECIPES_SINCE."""
RECIPES_SINCE = 3


def current(line: str) -> str:
    """Return an override with the current name of its key."""
    key, equals, value = line.partition("=")
    return f"{RENAMED.get(key, key)}{equals}{value}"


def stable(target: str) -> str:
    """Return the stable name of a component. For a user's own component, it is `package.module.name`."""
    return FORMER.get(target, target)


def short(target: str) -> str:
    """Return a name for headings: the stable name, or the module of a user's own component (`mine` of `mine.load`)."""
    name = stable(target)
    return name.split(".")[-2] if "." in name else name
