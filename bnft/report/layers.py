"""`bnft layers`: the layers of a model with their roles, and the parameters that a freeze policy selects.

Unlike the rest of the report, this module needs PyTorch, because it builds the model.
"""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text
from torch import nn

from bnft.batchnorm.freezing import Freezing
from bnft.common.console import output
from bnft.common.errors import did_you_mean, rejected
from bnft.config import build
from bnft.config.compose import compose, composing, for_hydra
from bnft.models.roles import Layer, layers_of

HEADER = ("layer", "type", "role", "stage", "shape", "parameters", "picked")


def choices() -> list[str]:
    """Return the names that `model=` accepts."""
    with composing() as loader:
        return list(loader.get_group_options("model"))


def show(model: str, overrides: Sequence[str], selectors: Sequence[str]) -> None:
    """Print the layers of a model and the parameters that selectors pick.

    Args:
        model: the name of the model.
        overrides: changes of the configuration, as for `bnft run`.
        selectors: the selectors; if empty, those of the freeze policy.

    Raises:
        InputError: if an argument is invalid.
    """
    names = choices()
    if model not in names:
        raise rejected("MODEL", model, f"one of {', '.join(names)}{did_you_mean(model, names)}")
    for override in overrides:
        key, _, value = override.partition("=")
        if key == "model":
            raise rejected(key, value, f"left out, since MODEL is {model}")
    with composing():
        config = compose([f"model={model}", *map(for_hydra, overrides)]).config
    built, policy = build.model_without_data(config), config["freeze_policy"]
    parameters = list(selectors) or policy["parameters"]
    freezing = Freezing(built, parameters, policy["statistics"], config["seed"])
    console = output()
    console.print(_table(built, freezing, f"{model}: what {', '.join(parameters)} picks"))
    console.print(str(freezing.counts()), markup=False)


def _table(model: nn.Module, freezing: Freezing, title: str) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold", pad_edge=False, show_footer=True)
    picked, layers, counts = freezing.learning_entries(), layers_of(model), freezing.counts()
    footer = [f"{len(layers)} layers", "", "", "", "", f"{counts.parameters:,}", f"{counts.learning:,}"]
    for name, last in zip(HEADER, footer, strict=True):
        right = name in ("stage", "parameters", "picked")
        table.add_column(name, footer=last, justify="right" if right else "left", overflow="fold")
    for layer in layers:
        table.add_row(*map(Text, _cells(layer, picked)))
    return table


def _cells(layer: Layer, picked: dict[str, int]) -> list[str]:
    own = dict(layer.module.named_parameters(recurse=False))
    entries = {name: picked.get(f"{layer.name}.{name}".lstrip("."), 0) for name in own}
    count, number = sum(value.numel() for value in own.values()), sum(entries.values())
    of = "" if number == count else f" of {' and '.join(name for name in own if entries[name])}"
    return [
        layer.name,
        type(layer.module).__name__,
        f"{layer.role}, shortcut" if layer.shortcut else layer.role,
        "" if layer.stage is None else str(layer.stage),
        ", ".join(f"{name} {'x'.join(map(str, value.shape)) or 1}" for name, value in own.items()),
        f"{count:,}",
        f"{number:,}{of}" if number else "",
    ]
