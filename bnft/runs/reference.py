"""The published setting of each row of a study, to name the differences of our runs from it."""

from dataclasses import replace
from typing import Any

from bnft.common.errors import InputError
from bnft.config.compose import Composed, base_overrides, compose, policies
from bnft.runs import identity
from bnft.studies.study import Study

EVALUATION = ("attack", "version", "norm", "eps")


def with_reference(study: Study) -> Study:
    """Return the study with the published setting of each row that has published numbers.

    Raises InputError if the overrides of `setting` do not compose.
    """
    if study.setting is None:
        return study
    rows = []
    for row in study.rows:
        try:
            line = [f"policy={row.policy}", *row.overrides, *study.setting.overrides]
            point = compose(line) if row.published else None
        except InputError as error:
            raise InputError(f"study={study.name}: setting: {error}") from None
        rows.append(replace(row, reference=None if point is None else reference(point)))
    return replace(study, rows=rows)


def reference(point: Composed, base: bool = False) -> dict[str, Any]:
    """Return a configuration in the form of a run's identity, without loading the data.

    It has the name of the data set instead of its hash, and `evaluation`. A base has its policy as `policy`.
    """
    config, parts = point.config, identity.parts(point.config)
    start = config["base"] if config["base"] in policies() else None
    named = identity.of_run(
        **{**parts, "data": {"name": config["data"]["_target_"], **parts["data"]}},
        base=reference(compose(base_overrides(point, start)), base=True) if start else None,
    )
    if base:
        return {**named, "policy": point.policy}
    return {**named, "evaluation": {key: config["evaluation"][key] for key in EVALUATION}}
