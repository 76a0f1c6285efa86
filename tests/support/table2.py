"""The study of Table 2, as a sweep records it."""

from functools import cache
from typing import Any

from omegaconf import OmegaConf

from bnft.config import folders
from bnft.config.compose import composing
from bnft.runs.reference import with_reference
from bnft.runs.selection import pick
from bnft.runs.store import Store
from bnft.studies.check import checked
from bnft.studies.study import Study, StudyRow


@cache
def study() -> Study:
    """Return the study with the published setting of each row."""
    with composing():
        values = OmegaConf.to_container(OmegaConf.load(folders.own() / "study" / "table2.yaml"))
        return with_reference(checked("table2", values))


@cache
def by_policy() -> dict[str, StudyRow]:
    return {row.policy: row for row in study().rows}


def title(policy: str) -> str:
    """Return the title of a policy's row; the policy itself if it has none."""
    return by_policy()[policy].title if policy in by_policy() else policy


def placed(entry: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of a run in a sweep with its row. `overrides` is how it differs from its policy."""
    policy = entry["run"].rpartition("-")[0]
    if policy not in by_policy():
        return entry
    return {**entry, "row": title(policy), **({"changed": overrides} if overrides else {})}


def sweep(store: Store, entries: list[dict[str, Any]], command: str = "launch.py -m ...", **more: Any) -> str:
    """Record a sweep of the study. Entries are from `placed`."""
    return store.save_sweep(entries, [], command, more.pop("commit", None), study=study().encoded(), **more)


def record(store: Store) -> None:
    """Record a sweep of all evaluations in the store that are done, if one of them is in no sweep yet."""
    asked = {(entry["run"], entry["evaluation"]) for name in store.sweeps() for entry in store.sweep(name)["runs"]}
    entries = []
    for name in pick(store, ["all"]).runs:
        for evaluation in store.run(name).evaluations():
            result = evaluation.result()
            assert result is not None
            entries.append(placed({"run": name, "evaluation": evaluation.path.name}, dict(result.run.overrides)))
    if {(entry["run"], entry["evaluation"]) for entry in entries} - asked:
        sweep(store, entries)
