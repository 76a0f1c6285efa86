"""The differences of a row from the published setting, which are shown with every comparison to published numbers."""

from collections.abc import Mapping, Sequence
from math import isclose
from typing import Any

from bnft.common.errors import show
from bnft.config.names import short
from bnft.report.rows import Row, Study
from bnft.runs import identity

OPTIMIZER = ("lr", "momentum", "nesterov", "weight_decay", "shape")  # these have no effect if nothing learns
WHOLE_STUDY = ("data", "data.validation", "model.parameters", "evaluation.norm", "evaluation.eps", "attack.eps")
_SIZE = ("model.channels", "model.num_classes", "model.width", "model.blocks")

UNSAID = {"convolutions": "kaiming_fan_out", "head": "pytorch", "gamma": "ones", "last_gamma": "zeros"}
"""The initial values of ResNets whose identity has none, as in version 0.1; see `models.initialization.DEFAULT`."""

Differences = dict[str, tuple[Any, Any]]  # dotted key to our value and the paper's; None if a side has no value


def differences(row: Row) -> Differences:
    """Return the differences of a row from the published setting, `StudyRow.reference`; none without one.

    Keys of its base begin with `base.`.
    """
    setting = row.place.study.setting if row.place else None
    theirs = row.place.row.reference if row.place else None
    if setting is None or theirs is None:
        return {}
    run, evaluation = row.first, row.first.evaluation
    general = {
        "data": (short(run.data.target), short(theirs["data"]["name"])),
        "data.images": (run.data.images, setting.training_images or run.data.images),
        "data.validation": (run.data.validation, None),
        "model.parameters": (run.training.counts.parameters, setting.parameters or run.training.counts.parameters),
        "precision": (_precision(row), theirs["precision"]),
        "evaluation.norm": (evaluation.norm, theirs["evaluation"]["norm"]),
        "evaluation.eps": (evaluation.eps, theirs["evaluation"]["eps"]),
    }
    pairs = {key: pair for key, pair in general.items() if not _equal(*pair)}
    pairs |= _of_identity(run.run.identity, theirs, "", row.learns)
    if "model.parameters" in pairs:  # then the sizes of the network need not be named
        pairs = {key: pair for key, pair in pairs.items() if key.removeprefix("base.") not in _SIZE}
    attack, other = run.run.identity.get("attack") or {}, theirs.get("attack") or {}
    steps = [one["step_size"] / one["eps"] for one in (attack, other) if "step_size" in one and one.get("eps")]
    if "attack.step_size" in pairs and len(steps) == 2 and _equal(*steps):
        del pairs["attack.step_size"]
    return pairs


def _precision(row: Row) -> str:
    """Return the precision of training that was used, or that was requested if the used one is not recorded."""
    used = {stored.result.training.hardware for stored in row.results}
    requested = str(row.first.run.identity.get("precision")).replace("auto", "fp32")
    return " and ".join(sorted({one.precision for one in used if one})) or requested


def _of_identity(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str, learns: bool) -> Differences:
    pairs: Differences = {}
    for group in ("model", "data", "attack", "schedule"):
        mine, other = ours.get(group) or {}, theirs.get(group) or {}
        if group == "model" and short(str(mine.get("_target_"))) == "resnet":
            mine = {**mine, "initialization": UNSAID | mine.get("initialization", {})}
        if group == "data":
            mine = {key: value for key, value in mine.items() if key != "sha256"}
            other = {key: value for key, value in other.items() if key != "name"}
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
        return {**pairs, f"{prefix}base": ("a file" if "sha256" in mine else None, base.get("policy"))}
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
    """Return the differences due to which a study's absolute numbers cannot be compared with the published ones."""
    compared = next((row for row in study.rows if study.published(row)), None)
    setting = study.definition.setting if study.definition else None
    if compared is None or setting is None:
        return []
    pairs, texts = differences(compared), []
    if study.first.data.validation:
        texts.append("test images (held-out training images instead)")
    if "data" in pairs:
        texts.append(f"data ({pairs['data'][0]} instead of {setting.data})")
    if "model.parameters" in pairs:
        ours, theirs = pairs["model.parameters"]
        texts.append(f"model ({ours:,} parameters instead of {theirs:,})")
    if "evaluation.norm" in pairs or "evaluation.eps" in pairs:
        assert compared.place is not None and compared.place.row.reference is not None
        ours, theirs = study.first.evaluation, compared.place.row.reference["evaluation"]
        texts.append(f"budget ({ours.norm} {show(ours.eps)} instead of {theirs['norm']} {show(theirs['eps'])})")
    return texts


def note(rows: Sequence[tuple[str, Row]]) -> str:
    """Return a note that names the differences of rows from the published setting; empty if there are none.

    Differences that all rows share are named once. Those in `of_study` are left out. Differences of a base are left out
    if the base is among the rows and has the same ones.

    Args:
        rows: rows that are compared with published numbers, by label.
    """
    known = {result.run_folder.name: row for _, row in rows for result in row.results}
    texts = {}
    for label, row in rows:
        base = known.get(row.first.run.base or "")
        texts[label] = told(_own(differences(row), differences(base) if base else {}))
    shared = [text for text in next(iter(texts.values()), ()) if all(text in others for others in texts.values())]
    alike: dict[tuple[str, ...], list[str]] = {}
    for label, own in texts.items():
        alike.setdefault(tuple(text for text in own if text not in shared), []).append(label)
    parts = [f"in all rows: {', '.join(shared)}"] if shared else []
    parts += [f"in {', '.join(labels)}: {', '.join(own)}" for own, labels in alike.items() if own]
    return f"Differences from the paper's setting {'; '.join(parts)}." if parts else ""


def _own(pairs: Differences, of_base: Differences) -> Differences:
    own = {key: pair for key, pair in pairs.items() if key not in WHOLE_STUDY}
    return {key: pair for key, pair in own.items() if of_base.get(_of_base(key)) != pair}


def _of_base(key: str) -> str:
    """Return the key without `base.`; empty if it is not a key of the base."""
    return key.removeprefix("base.") if key.startswith("base.") else ""


def _shown(value: Any) -> str:
    large = isinstance(value, int) and value >= 1000
    return f"{value:,}" if large else show(value)
