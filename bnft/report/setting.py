"""In what a row differs from the paper's setting, so that its numbers stand beside the paper's with that said."""

from collections.abc import Mapping, Sequence
from math import isclose
from typing import Any

from bnft.common.errors import show
from bnft.config.names import short
from bnft.report.rows import Row, Study
from bnft.runs import identity
from bnft.studies import paper

OPTIMIZER = ("lr", "momentum", "nesterov", "weight_decay", "shape")  # without effect where nothing learns
WHOLE_STUDY = ("data", "data.validation", "model.parameters", "evaluation.norm", "evaluation.eps", "attack.eps")
_SIZE = ("model.channels", "model.num_classes", "model.width", "model.blocks")

UNSAID = {"convolutions": "kaiming_fan_out", "head": "pytorch", "gamma": "ones", "last_gamma": "zeros"}
"""The initial values of ResNets whose identities have none: those of version 0.1, `models.initialization.DEFAULT`."""

Differences = dict[str, tuple[Any, Any]]  # dotted key to our value and the paper's; None where one has none


def differences(row: Row) -> Differences:
    """The differences of a row, the keys in dotted form; those of its base begin with `base.`."""
    found: Differences = {}
    run, evaluation = row.first, row.first.evaluation
    parameters, data = run.training.counts.parameters, short(run.data.target)
    told = {
        "data": (data, paper.DATA),
        "data.images": (run.data.images, paper.TRAINING_IMAGES),
        "data.validation": (run.data.validation, None),
        "model.parameters": (parameters, paper.MODEL_PARAMETERS),
        "precision": (_precision(row), paper.PRECISION),
        "evaluation.norm": (evaluation.norm, "Linf"),
        "evaluation.eps": (evaluation.eps, paper.EPS),
    }
    found |= {key: pair for key, pair in told.items() if not _equal(*pair)}
    if row.policy in paper.BY_POLICY:
        found |= _of_identity(run.run.identity, paper.setting(row.policy), "", learns=run.training.counts.learning != 0)
    if "model.parameters" in found:  # which says what the size of the network comes to
        found = {key: pair for key, pair in found.items() if key.removeprefix("base.") not in _SIZE}
    attack = run.run.identity.get("attack") or {}
    if "attack.step_size" in found and _equal(attack["step_size"] / attack["eps"], paper.STEP_SIZE / paper.EPS):
        del found["attack.step_size"]
    return found


def _precision(row: Row) -> str:
    """The precision of training: what was used, or where that is not recorded, what was asked for."""
    used = {stored.result.training.hardware for stored in row.results}
    return " and ".join(sorted({one.precision for one in used if one})) or _asked(row)


def _asked(row: Row) -> str:
    asked = str(row.first.run.identity.get("precision"))
    return paper.PRECISION if asked == "auto" else asked


def _of_identity(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str, learns: bool) -> Differences:
    found: Differences = {}
    for group in ("model", "data", "attack", "schedule"):
        mine, other = ours.get(group) or {}, theirs.get(group) or {}
        if group == "model" and short(str(mine.get("_target_"))) == "resnet":
            mine = {**mine, "initialization": UNSAID | mine.get("initialization", {})}
        if group == "data":
            mine = {key: value for key, value in mine.items() if key != "sha256"}
        if group == "schedule" and not learns:
            mine, other = ({key: part[key] for key in part if key not in OPTIMIZER} for part in (mine, other))
        found |= _leaves(mine, other, f"{prefix}{group}")
    base = theirs.get("base")
    if base is None:
        return found
    mine = ours.get("base") or {}
    if "schedule" not in mine:  # a file of weights, of which nothing is known
        return {**found, f"{prefix}base": ("a file" if "sha256" in mine else None, "normal")}
    return found | _of_identity(mine, base, f"{prefix}base.", learns=True)


def _leaves(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str) -> Differences:
    """The leaves in which two groups differ; of other components, their names alone."""
    names = [short(str(group["_target_"])) if "_target_" in group else None for group in (ours, theirs)]
    if names[0] != names[1]:
        return {path: (names[0], names[1])}
    found: Differences = {}
    for key, mine in ours.items():
        other = theirs.get(key)
        if key in ("_target_", identity.SOURCE):
            continue
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            found |= _leaves(mine, other, f"{path}.{key}")
        elif not _equal(mine, other):
            found[f"{path}.{key}"] = mine, other
    return found


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) or isinstance(theirs, float):
        return isinstance(ours, (int, float)) and isinstance(theirs, (int, float)) and isclose(ours, theirs)
    return bool(ours == theirs)


def told(found: Differences) -> list[str]:
    """Differences as texts, such as `schedule.epochs=20 (paper: 150)`."""
    return [f"{key}={_shown(ours)} (paper: {_shown(theirs)})" for key, (ours, theirs) in found.items()]


def of_study(study: Study) -> list[str]:
    """In what a whole study differs from the paper's, so that its numbers are not to be set against the paper's."""
    found = []
    if study.first.data.validation:
        found.append("test images (a part of the training images was held out instead)")
    data = short(study.first.data.target)
    if data != paper.DATA:
        found.append(f"data ({data} instead of CIFAR-10)")
    parameters = study.first.training.counts.parameters
    if parameters != paper.MODEL_PARAMETERS:
        found.append(f"model ({parameters:,} parameters instead of {paper.MODEL_PARAMETERS:,})")
    evaluation = study.first.evaluation
    if evaluation.norm != "Linf" or not isclose(evaluation.eps, paper.EPS):
        found.append(f"budget ({evaluation.norm} {show(evaluation.eps)} instead of Linf 8/255)")
    return found


def note(rows: Sequence[tuple[str, Row]]) -> str:
    """What rows that stand beside the paper's, each with its label, do otherwise than the paper; empty if nothing.

    It names what all rows share once, and leaves what a study as a whole differs in to `of_study`.
    What the base of a row does otherwise is left out if NORMAL is there and does the same.
    """
    normal = next((differences(row) for _, row in rows if row.policy == "normal"), {})
    texts = {label: told(_own(differences(row), normal)) for label, row in rows}
    shared = [text for text in next(iter(texts.values()), ()) if all(text in others for others in texts.values())]
    alike: dict[tuple[str, ...], list[str]] = {}
    for label, found in texts.items():
        alike.setdefault(tuple(text for text in found if text not in shared), []).append(label)
    parts = [f"in all rows: {', '.join(shared)}"] if shared else []
    parts += [f"in {', '.join(labels)}: {', '.join(found)}" for found, labels in alike.items() if found]
    return f"Differences from the paper's setting {'; '.join(parts)}." if parts else ""


def _own(found: Differences, normal: Differences) -> Differences:
    own = {key: pair for key, pair in found.items() if key not in WHOLE_STUDY}
    return {key: pair for key, pair in own.items() if normal.get(_of_base(key)) != pair}


def _of_base(key: str) -> str:
    """The key that a key of the base has in the base's own row; of another key, none."""
    return key.removeprefix("base.") if key.startswith("base.") else ""


def _shown(value: Any) -> str:
    large = isinstance(value, int) and value >= 1000
    return f"{value:,}" if large else show(value)
