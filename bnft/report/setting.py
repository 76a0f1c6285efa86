"""The differences of a row from the paper's setting, which are shown with every comparison to the paper."""

from collections.abc import Mapping, Sequence
from math import isclose
from typing import Any

from bnft.common.errors import show
from bnft.config.names import short
from bnft.report.rows import Row, Study
from bnft.runs import identity
from bnft.studies import paper

OPTIMIZER = ("lr", "momentum", "nesterov", "weight_decay", "shape")  # these have no effect if nothing learns
WHOLE_STUDY = ("data", "data.validation", "model.parameters", "evaluation.norm", "evaluation.eps", "attack.eps")
_SIZE = ("model.channels", "model.num_classes", "model.width", "model.blocks")

UNSAID = {"convolutions": "kaiming_fan_out", "head": "pytorch", "gamma": "ones", "last_gamma": "zeros"}
"""The initial values of ResNets whose identity has none, as in version 0.1; see `models.initialization.DEFAULT`."""

Differences = dict[str, tuple[Any, Any]]  # dotted key to our value and the paper's; None if a side has no value


def differences(row: Row) -> Differences:
    """Return the differences of a row from the paper. Keys of its base begin with `base.`."""
    pairs: Differences = {}
    run, evaluation = row.first, row.first.evaluation
    parameters, data = run.training.counts.parameters, short(run.data.target)
    general = {
        "data": (data, paper.DATA),
        "data.images": (run.data.images, paper.TRAINING_IMAGES),
        "data.validation": (run.data.validation, None),
        "model.parameters": (parameters, paper.MODEL_PARAMETERS),
        "precision": (_precision(row), paper.PRECISION),
        "evaluation.norm": (evaluation.norm, "Linf"),
        "evaluation.eps": (evaluation.eps, paper.EPS),
    }
    pairs |= {key: pair for key, pair in general.items() if not _equal(*pair)}
    if row.policy in paper.BY_POLICY:
        pairs |= _of_identity(run.run.identity, paper.setting(row.policy), "", learns=run.training.counts.learning != 0)
    if "model.parameters" in pairs:  # then the sizes of the network need not be named
        pairs = {key: pair for key, pair in pairs.items() if key.removeprefix("base.") not in _SIZE}
    attack = run.run.identity.get("attack") or {}
    if "attack.step_size" in pairs and _equal(attack["step_size"] / attack["eps"], paper.STEP_SIZE / paper.EPS):
        del pairs["attack.step_size"]
    return pairs


def _precision(row: Row) -> str:
    """Return the precision of training that was used, or that was requested if the used one is not recorded."""
    used = {stored.result.training.hardware for stored in row.results}
    return " and ".join(sorted({one.precision for one in used if one})) or _requested(row)


def _requested(row: Row) -> str:
    precision = str(row.first.run.identity.get("precision"))
    return paper.PRECISION if precision == "auto" else precision


def _of_identity(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str, learns: bool) -> Differences:
    pairs: Differences = {}
    for group in ("model", "data", "attack", "schedule"):
        mine, other = ours.get(group) or {}, theirs.get(group) or {}
        if group == "model" and short(str(mine.get("_target_"))) == "resnet":
            mine = {**mine, "initialization": UNSAID | mine.get("initialization", {})}
        if group == "data":
            mine = {key: value for key, value in mine.items() if key != "sha256"}
        if group == "schedule" and not learns:
            mine, other = ({key: part[key] for key in part if key not in OPTIMIZER} for part in (mine, other))
        pairs |= _leaves(mine, other, f"{prefix}{group}")
    if (ours.get("monitor") or {}).get("keep", "last") != "last":
        pairs[f"{prefix}monitor.keep"] = ours["monitor"]["keep"], "last"
    base = theirs.get("base")
    if base is None:
        return pairs
    mine = ours.get("base") or {}
    if "schedule" not in mine:  # a file of weights, whose training is not known
        return {**pairs, f"{prefix}base": ("a file" if "sha256" in mine else None, "normal")}
    return pairs | _of_identity(mine, base, f"{prefix}base.", learns=True)


def _leaves(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str) -> Differences:
    """Return the values in which two groups differ. If their components differ, return the names of these only."""
    names = [short(str(group["_target_"])) if "_target_" in group else None for group in (ours, theirs)]
    if names[0] != names[1]:
        return {path: (names[0], names[1])}
    pairs: Differences = {}
    for key, mine in ours.items():
        other = theirs.get(key)
        if key in ("_target_", identity.SOURCE):
            continue
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            pairs |= _leaves(mine, other, f"{path}.{key}")
        elif not _equal(mine, other):
            pairs[f"{path}.{key}"] = mine, other
    return pairs


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) or isinstance(theirs, float):
        return isinstance(ours, (int, float)) and isinstance(theirs, (int, float)) and isclose(ours, theirs)
    return bool(ours == theirs)


def told(pairs: Differences) -> list[str]:
    """Return differences as texts, such as `schedule.epochs=20 (paper: 150)`."""
    return [f"{key}={_shown(ours)} (paper: {_shown(theirs)})" for key, (ours, theirs) in pairs.items()]


def of_study(study: Study) -> list[str]:
    """Return the differences from the paper due to which a study's absolute numbers cannot be compared with it."""
    texts = []
    if study.first.data.validation:
        texts.append("test images (held-out training images instead)")
    data = short(study.first.data.target)
    if data != paper.DATA:
        texts.append(f"data ({data} instead of CIFAR-10)")
    parameters = study.first.training.counts.parameters
    if parameters != paper.MODEL_PARAMETERS:
        texts.append(f"model ({parameters:,} parameters instead of {paper.MODEL_PARAMETERS:,})")
    evaluation = study.first.evaluation
    if evaluation.norm != "Linf" or not isclose(evaluation.eps, paper.EPS):
        texts.append(f"budget ({evaluation.norm} {show(evaluation.eps)} instead of Linf 8/255)")
    return texts


def note(rows: Sequence[tuple[str, Row]]) -> str:
    """Return a note that names the differences of rows from the paper's setting; empty if there are none.

    Differences that all rows share are named once. Those in `of_study` are left out. Differences of a base are left out
    if NORMAL is among the rows and has the same ones.

    Args:
        rows: rows that are compared with the paper, by label.
    """
    normal = next((differences(row) for _, row in rows if row.policy == "normal"), {})
    texts = {label: told(_own(differences(row), normal)) for label, row in rows}
    shared = [text for text in next(iter(texts.values()), ()) if all(text in others for others in texts.values())]
    alike: dict[tuple[str, ...], list[str]] = {}
    for label, own in texts.items():
        alike.setdefault(tuple(text for text in own if text not in shared), []).append(label)
    parts = [f"in all rows: {', '.join(shared)}"] if shared else []
    parts += [f"in {', '.join(labels)}: {', '.join(own)}" for own, labels in alike.items() if own]
    return f"Differences from the paper's setting {'; '.join(parts)}." if parts else ""


def _own(pairs: Differences, normal: Differences) -> Differences:
    own = {key: pair for key, pair in pairs.items() if key not in WHOLE_STUDY}
    return {key: pair for key, pair in own.items() if normal.get(_of_base(key)) != pair}


def _of_base(key: str) -> str:
    """Return the key without `base.`; empty if it is not a key of the base."""
    return key.removeprefix("base.") if key.startswith("base.") else ""


def _shown(value: Any) -> str:
    large = isinstance(value, int) and value >= 1000
    return f"{value:,}" if large else show(value)
