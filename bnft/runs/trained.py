"""The trained model of a run, without its data."""

from torch import nn

from bnft import models
from bnft.common.errors import DamagedError, InputError
from bnft.config import components, sources
from bnft.runs import layout
from bnft.runs.plan import own_sources
from bnft.runs.run_folder import RunFolder


def trained_model(folder: RunFolder) -> nn.Module:
    """Return the trained model of a run, in eval mode and on the CPU.

    It maps images (N, C, H, W) in [0, 1] to logits (N, classes).

    Raises:
        DamagedError: if its files are damaged.
        InputError: if the run is not trained, or the source of its model has been edited since.
    """
    config, file = folder.config(), folder.path / layout.MODEL
    if not folder.trained:
        raise InputError(f"{folder.path}: holds no {file.name}; the run is not trained, or was exported without it")
    state, _ = folder.model()
    sources.forget()
    kept, now = folder.record().sources, own_sources(config)
    if edited := sorted(name for name in {*kept, *now} if kept.get(name) != now.get(name)):
        raise InputError(f"{folder.path}: its source has changed since it was trained ({', '.join(edited)})")
    channels = len(state.get("normalize.mean", ()))
    model = models.build(components.build("model", config["model"]), [0.0] * channels, [1.0] * channels, seed=0)
    try:
        models.restore(model, state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedError(f"{file}: is damaged, it does not fit the model of its config.yaml ({reason})") from None
    return model.eval()
