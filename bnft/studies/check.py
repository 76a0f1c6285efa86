"""Read a study from the configuration, and check it whole before anything runs."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bnft.common.errors import InputError, did_you_mean, show
from bnft.config.compose import compose, is_sweep
from bnft.config.messages import annotations_of, pydantic_message
from bnft.studies.measures import CONSTANT, ERRORS, MEASURES
from bnft.studies.study import Claim, Study, StudyRow

NOT_IN_FILES = ("name", "reference")  # keys that bnft adds
NOT_IN_ROWS = ("store", "sweep_name", "wandb", "study", "sweep", "policy", "title")  # keys that a row cannot override

_STUDY = TypeAdapter(Study)


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
    rows, claims = values.get("rows") or [], values.get("claims")
    for key, part, kind in (("rows", rows, StudyRow), ("claims", claims, Claim)):
        if part is None and key != "rows":
            continue
        if not isinstance(part, Sequence) or isinstance(part, str) or (not part and key == "rows"):
            raise InputError(f"{key}={show(part)}: must be a list with one item per {key[:-1]}")
        for number, item in enumerate(part, start=1):
            _check_item(item, kind, f"{key}, number {number}")
    if hidden := [key for key in NOT_IN_FILES if key in values]:
        raise InputError(f"{hidden[0]}: no such key")
    given = {key: value for key, value in values.items() if value is not None}
    named = [{**row, "title": row.get("title") or _policy_title(row, place)} for place, row in enumerate(rows, start=1)]
    return _validated(_STUDY, {**given, "name": name, "rows": named}, Study)


def _check_item(item: Any, kind: type, place: str) -> None:
    """Check one row or claim by itself, for a message that says which one is wrong."""
    if not isinstance(item, Mapping):
        raise InputError(f"{place}: must be a mapping such as {{policy: bn_params}}, not {show(item)}")
    if hidden := [key for key in NOT_IN_FILES if key in item]:
        raise InputError(f"{place}: {hidden[0]}: no such key")
    known = {"title": "without a title"} if kind is StudyRow else {}
    given = {key: value for key, value in item.items() if value is not None}
    try:
        _validated(TypeAdapter(kind), known | given, kind)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def _validated(adapter: TypeAdapter[Any], values: Mapping[str, Any], kind: type) -> Any:
    try:
        return adapter.validate_python(dict(values))
    except ValidationError as error:
        message = pydantic_message(error, values, annotations_of(kind))
        raise InputError(re.sub(r" \((\w+)=VALUE\)$", r" (\1: VALUE)", message)) from None


def _policy_title(row: Mapping[str, Any], number: int) -> str:
    try:
        return str(compose([f"policy={row['policy']}", *(row.get("overrides") or ())]).config["title"])
    except InputError as error:
        raise InputError(f"rows, number {number}: {error}") from None


def _check_rows(rows: Sequence[StudyRow]) -> None:
    title, count = Counter(row.title for row in rows).most_common(1)[0]
    if count > 1:
        raise InputError(f"rows: {count} rows have the title {show(title)}; give each a `title` of its own")
    for row in rows:
        if row.title == CONSTANT:
            raise InputError(f"rows: {CONSTANT} must not be the title of a row, because claims use it for a classifier")
        for line in row.overrides:
            key = line.lstrip("+~").partition("=")[0]
            group = re.split(r"[./@]", key)[0]
            if group in NOT_IN_ROWS:
                raise InputError(f"row {row.title}: {show(line)}: must not be in `overrides` of a row")
            if is_sweep(line):
                raise InputError(f"row {row.title}: {show(line)}: must have one value; add a row for each value")


def _check_claim(claim: Claim, study: Study) -> None:
    measure = MEASURES[claim.measure]
    _known(claim.row, "row", study)
    if claim.than != CONSTANT:
        _known(claim.than, "than", study)
    elif not claim.is_error:
        raise InputError(f"than={CONSTANT}: must be a row with measure={claim.measure}")
    if claim.relation not in measure.relations:
        raise InputError(
            f"relation={show(claim.relation)}: must be one of {', '.join(measure.relations)} with"
            f" measure={claim.measure}"
        )
    if (claim.relation == "closer") != (claim.to is not None):
        raise InputError(f"to={show(claim.to)}: must be a row with relation=closer, and null with other relations")
    if claim.to is not None:
        _known(claim.to, "to", study)
    if claim.margin is not None and claim.relation != "same":
        raise InputError(f"margin={show(claim.margin)}: must be null with relation={claim.relation}")
    if claim.than_measure is not None and claim.measure not in ERRORS:
        raise InputError(f"than_measure={claim.than_measure}: must be null with measure={claim.measure}")
    if claim.row == claim.than and claim.measure == claim.other_measure:
        raise InputError(f"than={show(claim.than)}: must be another row than `row`, or have another `than_measure`")


def _known(title: str, key: str, study: Study) -> None:
    if title not in study.by_title:
        hint = did_you_mean(title, study.by_title)
        raise InputError(f"{key}={show(title)}: must be the title of a row{hint}: {', '.join(study.by_title)}")
