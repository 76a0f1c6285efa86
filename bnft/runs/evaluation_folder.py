"""What one evaluation of a run leaves behind: its result and its outcomes, which are checked against each other."""

from collections.abc import Mapping
from dataclasses import replace
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnft.common import files
from bnft.common.errors import DamagedError
from bnft.evaluation.settings import STANDS
from bnft.evaluation.summary import ErrorRate
from bnft.runs import identity, layout
from bnft.runs.result import Result, plain, read

if TYPE_CHECKING:  # commands that only read results start without PyTorch
    import torch
    from numpy.typing import NDArray

    from bnft.evaluation.cascade import Cascade

IMAGES = ("adversarial", "originals")  # of the outcomes; all else is a few numbers per image


class EvaluationFolder:
    """What one evaluation of a run leaves behind. `owner` is the run's config.yaml; see `files.write`."""

    def __init__(self, path: Path, owner: Path | None = None) -> None:
        self.path, self._owner = path, owner

    def result(self) -> Result | None:
        """The result, or None if the evaluation is not done. Raises DamagedError if it is not whole."""
        file = self.path / layout.RESULT
        if not file.exists():
            return None
        values = files.read_json(file)
        result = read(Result, files.unsealed(file, values) if isinstance(values, dict) else values, file)
        owner, run = result.run.name, self.path.parents[1].name
        if owner is not None and not identity.same_hash(owner, run):
            raise DamagedError(f"{file}: is damaged, it is the result of {owner}")
        return result

    def outcomes(self, images: bool = True) -> "dict[str, NDArray[Any]]":
        """Per-image outcomes as arrays, see `evaluation.Outcomes`; without `images`, only a few numbers of each.

        Raises DamagedError if what is read is not whole, or not what the result was counted from.
        """
        file = self.path / layout.OUTCOMES
        outcomes, result = files.read_arrays(file, () if images else IMAGES), self.result()
        if result is not None:
            if result.outcomes != files.checksum(file):
                raise DamagedError(f"{file}: is damaged, it does not belong to the result.json beside it")
            wrong = _miscounted(result, outcomes)
            if wrong:
                raise DamagedError(f"{file}: is damaged, its {wrong} is not what the result.json beside it says")
        return outcomes

    def save(self, outcomes: "Mapping[str, torch.Tensor]", result: Result) -> None:
        """Write both, over what is there. Until the end, the evaluation is not done."""
        (self.path / layout.RESULT).unlink(missing_ok=True)
        checksum = files.write_tensors(self.path / layout.OUTCOMES, outcomes, owner=self._owner)
        files.write_json(
            self.path / layout.RESULT, files.sealed(plain(replace(result, outcomes=checksum))), self._owner
        )
        (self.path / layout.CASCADE).unlink(missing_ok=True)

    def save_cascade(self, cascade: "Cascade") -> None:
        files.write_tensors(self.path / layout.CASCADE, cascade.tensors(), cascade.place(), self._owner)

    def cascade(self) -> "Cascade | None":
        """The cascade to go on with, or None to start. Raises DamagedError if it is not whole."""
        from bnft.evaluation.cascade import Cascade

        file = self.path / layout.CASCADE
        if not file.exists():
            return None
        tensors, place = files.read_tensors(file)
        state: dict[str, Any] = {**tensors, **place}
        try:
            return Cascade(**state)
        except TypeError:
            raise DamagedError(f"{file}: is damaged, it is no state of an evaluation") from None


def _miscounted(result: Result, outcomes: "Mapping[str, NDArray[Any]]") -> str | None:
    """Which error of a result is not that of its outcomes, if any; what has no outcomes to count is left alone."""
    counted: dict[str, tuple[ErrorRate, Any]] = {}
    try:
        if {"clean_logits", "labels"} <= outcomes.keys():
            counted["clean error"] = result.clean, outcomes["clean_logits"].argmax(1) != outcomes["labels"]
        if "fallen_at" in outcomes:
            fallen_at = outcomes["fallen_at"]
            counted["robust error"] = result.robust, fallen_at != STANDS
            for number, step in enumerate(result.cascade, start=1):
                counted[f"error after {step.attack}"] = step, (fallen_at >= 0) & (fallen_at <= number)
        for name, (rate, wrong) in counted.items():
            errors, images = int(wrong.sum()), len(wrong)
            if (rate.errors, rate.images) != (errors, images) or not isclose(rate.error, 100 * errors / images):
                return name
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return "shape"
    return None
