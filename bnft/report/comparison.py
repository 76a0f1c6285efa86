"""`bnft diff`: what makes two runs different runs, and their results side by side."""

from collections.abc import Mapping
from typing import Any

from bnft.common.console import show_columns
from bnft.common.errors import show as text
from bnft.report.one_run import OneRun, shown
from bnft.report.stored import StoredResult
from bnft.runs import identity

BASE = "base"
ABSENT = "-"


def leaves(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the leaves in which two identities differ, as pairs by dotted key. An absent leaf is None.

    The leaves of bases are compared too, unless only one run has a base or only one base is a file.
    """
    mine, other = identity.differences(ours, theirs, prefix), identity.differences(theirs, ours, prefix)
    pairs: dict[str, tuple[Any, Any]] = {}
    files = {key for part in (mine, other) for key in part if key.endswith(f"{BASE}.sha256")}
    bases = {key.removesuffix(".sha256") for key in files if None in (mine[key], other[key])}
    for key in mine:
        base = next((base for base in bases if key.startswith(f"{base}.")), None)
        if base is not None:
            pairs[base] = _named(_at(ours, base, prefix)), _named(_at(theirs, base, prefix))
        elif key.split(".")[-1] == BASE:
            pairs[key] = _named(mine[key]), _named(other[key])
        elif isinstance(mine[key], Mapping) or isinstance(other[key], Mapping):
            parts = [value if isinstance(value, Mapping) else {} for value in (mine[key], other[key])]
            pairs |= leaves(parts[0], parts[1], f"{key}.")
        else:
            pairs[key] = mine[key], other[key]
    return pairs


def _at(value: Any, key: str, prefix: str) -> Any:
    for part in key.removeprefix(prefix).split("."):
        value = value[part]
    return value


def _named(base: Any) -> str | None:
    """Return the identity of a base in one word."""
    if not isinstance(base, Mapping):
        return None
    return f"file {base['sha256'][:10]}" if set(base) == {"sha256"} else f"run {identity.digest(base)}"


def in_words(key: str, value: Any) -> str:
    """Return the value of a leaf as it is written on a command line. Hashes are shortened."""
    if value is None:
        return ABSENT
    short = key.split(".")[-1] in ("sha256", identity.SOURCE)
    return str(value)[: identity.HASH_LENGTH] if short else text(value)


def show(first: OneRun, second: OneRun) -> None:
    """Print the differences of two runs."""
    for letter, run in (("A", first), ("B", second)):
        print(f"{letter}  {run.name}  {run.record.title}")
    print()
    pairs = leaves(first.record.identity, second.record.identity)
    rows = [(key, in_words(key, ours), in_words(key, theirs)) for key, (ours, theirs) in pairs.items()]
    if rows:
        show_columns(("key", "A", "B"), rows)
    else:
        print("Their identities are the same.")
    print()
    by_id = _by_id(first), _by_id(second)
    lines = []
    for name in _evaluations(*by_id):
        results = [results.get(name) for results in by_id]
        cells = [_cells(result) for result in results]
        lines.append((name, cells[0][0], cells[1][0], cells[0][1], cells[1][1]))
    if lines:
        show_columns(("evaluation", "clean % A", "clean % B", "robust % A", "robust % B"), lines, right=_RIGHT)
    else:
        print("Neither has a result.")


_RIGHT = ("clean % A", "clean % B", "robust % A", "robust % B")


def fields(first: OneRun, second: OneRun) -> dict[str, Any]:
    """Return the differences of two runs as plain data."""
    ours, theirs = _by_id(first), _by_id(second)
    pairs = leaves(first.record.identity, second.record.identity)
    return {
        "a": first.name,
        "b": second.name,
        "differences": {key: list(pair) for key, pair in pairs.items()},
        "results": [
            {"evaluation": name, "a": rates(ours.get(name)), "b": rates(theirs.get(name))}
            for name in _evaluations(ours, theirs)
        ],
    }


def rates(result: StoredResult | None) -> dict[str, Any] | None:
    """Return the errors of a result as plain data, with their intervals and numbers of images."""
    if result is None:
        return None
    both = {"clean": result.result.clean, "robust": result.result.robust}
    return {
        name: {"error": rate.error, "interval": list(rate.interval), "images": rate.images}
        for name, rate in both.items()
    }


def _by_id(run: OneRun) -> dict[str, StoredResult]:
    return {_label(result): result for result in run.results}


def _label(result: StoredResult) -> str:
    """Return the id of an evaluation with its budget and its number of images."""
    evaluation = result.result.evaluation
    return f"{result.folder.path.name}: {evaluation.norm} eps {text(evaluation.eps)}, {evaluation.n_images} images"


def _evaluations(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return all evaluations: first those that both runs have."""
    both = [name for name in ours if name in theirs]
    return [*both, *(name for name in (*ours, *theirs) if name not in both)]


def _cells(result: StoredResult | None) -> tuple[str, str]:
    if result is None:
        return ABSENT, ABSENT
    return shown(result.result.clean, 2), shown(result.result.robust, 1)
