"""Read a study from the configuration, and check it whole before anything runs."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bnft.common.errors import InputError, did_you_mean, show
from bnft.config.compose import compose, is_sweep, policies
from bnft.config.messages import annotations_of, pydantic_message
from bnft.studies.measures import CONSTANT, ERRORS, MEASURES
from bnft.studies.study import Claim, Published, Setting, Study, StudyRow

NOT_IN_FILES = ("name", "reference")  # keys that bnft adds
NOT_IN_ROWS = ("store", "sweep_name", "wandb", "study", "sweep", "policy", "title")  # keys that a row cannot override

PARTS: Mapping[tuple[type, str], type] = {  # keys with keys of their own
    (StudyRow, "published"): Published,
    (Study, "setting"): Setting,
}

_ADAPTERS: Mapping[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Study, StudyRow, Claim)}


def checked(name: str, values: Any) -> Study:
    """Return the study of a file.

    Args:
        name: its name, as in `+study=NAME`.
        values: its contents.

    Raises:
        InputError: if it is not a valid study.
    """
    try:
        study = _typed(name, values)
        _check_rows(study.rows)
        for number, claim in enumerate(study.claims, start=1):
            try:
                _check_claim(claim, study)
            except InputError as error:
                raise InputError(f"claims, number {number}: {error}") from None
        for title in study.highlight:
            _known(title, "highlight", study)
    except InputError as error:
        raise InputError(f"study={name}: {error}") from None
    return study


def _typed(name: str, values: Any) -> Study:
    """Return the study with all values in their types, and with the title of each row."""
    if not isinstance(values, Mapping) or not values:
        raise InputError("must be a file with `title` and `rows`")
    _check_keys(values, Study, "a study")
    if values.get("rows") is None:
        raise InputError("rows: must be given, a list with one item per row such as {policy: bn_stats}")
    rows, claims = values["rows"], values.get("claims")
    for key, part, kind in (("rows", rows, StudyRow), ("claims", claims, Claim)):
        if part is None and key != "rows":
            continue
        if not isinstance(part, Sequence) or isinstance(part, str) or (not part and key == "rows"):
            raise InputError(f"{key}={show(part)}: must be a list with one item per {key[:-1]}")
        for number, item in enumerate(part, start=1):
            _check_item(item, kind, f"{key}, number {number}")
    given = {key: value for key, value in values.items() if value is not None}
    named = [{**row, "title": row.get("title") or _policy_title(row, place)} for place, row in enumerate(rows, start=1)]
    return _validated({**given, "name": name, "rows": named}, Study)


def _check_item(item: Any, kind: type, place: str) -> None:
    """Check one row or claim by itself, for a message that says which one is wrong."""
    if not isinstance(item, Mapping):
        first = ", ".join(f"{key}: ..." for key in ("policy", "text") if key in kind.__annotations__)
        raise InputError(f"{place}: must be a mapping such as {{{first}}}, not {show(item)}")
    known = {"title": "without a title"} if kind is StudyRow else {}
    given = {key: value for key, value in item.items() if value is not None}
    try:
        _check_keys(item, kind, "a row" if kind is StudyRow else "a claim")
        _validated(known | given, kind)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def _check_keys(values: Mapping[str, Any], kind: type, what: str) -> None:
    """Check that a mapping has no other keys than a file can give."""
    known = [field.name for field in fields(kind) if field.name not in NOT_IN_FILES]
    for key, value in values.items():
        if key not in known:
            raise InputError(f"{key}: no such key{did_you_mean(str(key), known)}; {what} has {', '.join(known)}")
        part = PARTS.get((kind, key))
        if part is not None and value is not None:
            if not isinstance(value, Mapping):
                own = ", ".join(field.name for field in fields(part))
                raise InputError(f"{key}={show(value)}: must be a mapping with {own}")
            _check_keys(value, part, f"`{key}`")


def _validated(values: Mapping[str, Any], kind: type) -> Any:
    try:
        return _ADAPTERS[kind].validate_python(dict(values))
    except ValidationError as error:
        message = pydantic_message(error, values, annotations_of(kind))
        raise InputError(re.sub(r" \(([\w.]+)=VALUE\)$", r" (\1: VALUE)", message)) from None


def _policy_title(row: Mapping[str, Any], number: int) -> str:
    try:
        _check_policy(row["policy"])
        return str(compose([f"policy={row['policy']}", *(row.get("overrides") or ())]).config["title"])
    except InputError as error:
        raise InputError(f"rows, number {number}: {error}") from None


def _check_policy(policy: str) -> None:
    if policy not in policies():
        hint = did_you_mean(policy, policies())
        raise InputError(f"policy={show(policy)}: must be a policy{hint}; `bnft run --help` lists them")


def _check_rows(rows: Sequence[StudyRow]) -> None:
    title, count = Counter(row.title for row in rows).most_common(1)[0]
    if count > 1:
        raise InputError(f"rows: {count} rows have the title {show(title)}; give each a `title` of its own")
    for row in rows:
        if row.title == CONSTANT:
            raise InputError(f"rows: {CONSTANT} must not be the title of a row, because claims use it for a classifier")
        try:
            _check_policy(row.policy)
            _check_overrides(row.overrides)
        except InputError as error:
            raise InputError(f"row {row.title}: {error}") from None


def _check_overrides(lines: Sequence[str]) -> None:
    keys = [line.lstrip("+~").partition("=")[0] for line in lines]
    for line, key in zip(lines, keys, strict=True):
        if re.split(r"[./@]", key)[0] in NOT_IN_ROWS:
            raise InputError(f"{show(line)}: must not be in `overrides` of a row")
        if is_sweep(line):
            raise InputError(f"{show(line)}: must have one value; add a row for each value")
        if keys.count(key) > 1:
            raise InputError(f"{key}: must be only once in `overrides` of a row")


def _check_claim(claim: Claim, study: Study) -> None:
    measure = MEASURES[claim.measure]
    _known(claim.row, "row", study)
    if claim.than != CONSTANT:
        _known(claim.than, "than", study)
    elif not claim.is_error:
        raise InputError(f"than={CONSTANT}: must be the title of a row with measure={claim.measure}")
    if claim.relation not in measure.relations:
        raise InputError(
            f"relation={show(claim.relation)}: must be one of {', '.join(measure.relations)} with"
            f" measure={claim.measure}"
        )
    if (claim.relation == "closer") != (claim.to is not None):
        raise InputError(
            f"to={show(claim.to)}: must be the title of a row with relation=closer, and left out otherwise"
        )
    if claim.to is not None:
        _known(claim.to, "to", study)
    if claim.margin is not None and claim.relation != "same":
        raise InputError(
            f"margin={show(claim.margin)}: must be left out with relation={claim.relation}; only `same` has one"
        )
    if claim.than_measure is not None and claim.measure not in ERRORS:
        raise InputError(f"than_measure={claim.than_measure}: must be left out with measure={claim.measure}")
    if claim.row == claim.than and claim.measure == claim.other_measure:
        raise InputError(f"than={show(claim.than)}: must be another row than `row`, or have another `than_measure`")


def _known(title: str, key: str, study: Study) -> None:
    if title not in study.by_title:
        hint = did_you_mean(title, study.by_title)
        raise InputError(f"{key}={show(title)}: must be the title of a row{hint}: {', '.join(study.by_title)}")
