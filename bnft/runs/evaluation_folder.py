"""The files of one evaluation of a run: its result and its outcomes, which are checked against each other."""

from collections.abc import Mapping
from dataclasses import replace
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnft.common import files
from bnft.common.errors import DamagedError, show
from bnft.evaluation.settings import STANDS
from bnft.evaluation.summary import ErrorRate
from bnft.runs import identity, layout
from bnft.runs.result import Result, plain, read

if TYPE_CHECKING:  # commands that only read results start without PyTorch
    import torch
    from numpy.typing import NDArray

    from bnft.evaluation.cascade import Cascade

IMAGES = ("adversarial", "originals")  # the large arrays of the outcomes


class EvaluationFolder:
    """The folder of one evaluation of a run.

    Args:
        path: the folder.
        owner: the run's config.yaml; see `files.write`.
    """

    def __init__(self, path: Path, owner: Path | None = None) -> None:
        self.path, self._owner = path, owner

    def result(self) -> Result | None:
        """Return the result; None if the evaluation is not done. Raise DamagedError if it is damaged."""
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
        """Return the outcomes of each image as arrays; see `evaluation.Outcomes`.

        Args:
            images: whether to read the images too, which are large.

        Raises:
            DamagedError: if the file is damaged, or the result was not computed from it.
        """
        file = self.path / layout.OUTCOMES
        outcomes, result = files.read_arrays(file, () if images else IMAGES), self.result()
        if result is not None:
            if result.outcomes != files.checksum(file):
                raise DamagedError(f"{file}: is damaged, it does not belong to the result.json in its folder")
            wrong = _miscounted(result, outcomes)
            if wrong:
                raise DamagedError(f"{file}: is damaged, its {wrong} differs from the result.json in its folder")
        return outcomes

    def tensors(self) -> "dict[str, torch.Tensor]":
        """Return the outcomes of each image as tensors. Raise DamagedError as `outcomes` does."""
        self.outcomes(images=False)  # checks that they belong to the result
        return files.read_tensors(self.path / layout.OUTCOMES)[0]

    def beside(self, evaluation_id: str) -> "EvaluationFolder":
        """Return the folder of another evaluation of the same run."""
        return EvaluationFolder(self.path.with_name(evaluation_id), self._owner)

    def save(self, outcomes: "Mapping[str, torch.Tensor]", result: Result) -> None:
        """Write outcomes and result. Existing ones are replaced. The evaluation is done when the result is written."""
        (self.path / layout.RESULT).unlink(missing_ok=True)
        checksum = files.write_tensors(self.path / layout.OUTCOMES, outcomes, owner=self._owner)
        files.write_json(
            self.path / layout.RESULT, files.sealed(plain(replace(result, outcomes=checksum))), self._owner
        )
        (self.path / layout.CASCADE).unlink(missing_ok=True)

    def save_cascade(self, cascade: "Cascade") -> None:
        files.write_tensors(self.path / layout.CASCADE, cascade.tensors(), cascade.place(), self._owner)

    def cascade(self) -> "Cascade | None":
        """Return the saved cascade; None if there is none. Raise DamagedError if it is damaged."""
        from bnft.evaluation.cascade import Cascade

        file = self.path / layout.CASCADE
        if not file.exists():
            return None
        tensors, place = files.read_tensors(file)
        state: dict[str, Any] = {**tensors, **place}
        try:
            return Cascade(**state)
        except TypeError:
            raise DamagedError(f"{file}: is damaged, it is not the state of an evaluation") from None


def _miscounted(result: Result, outcomes: "Mapping[str, NDArray[Any]]") -> str | None:
    """Return the first error of a result that differs from its outcomes; None if there is none.

    Errors without outcomes are not checked.
    """
    counted: list[tuple[str, ErrorRate, Any]] = []
    try:
        if {"clean_logits", "labels"} <= outcomes.keys():
            counted.append(("clean error", result.clean, outcomes["clean_logits"].argmax(1) != outcomes["labels"]))
        if "fallen_at" in outcomes:
            fallen_at = outcomes["fallen_at"]
            counted.append(("robust error", result.robust, fallen_at != STANDS))
            for number, step in enumerate(result.cascade, start=1):
                counted.append((f"error after {step.attack}", step, (fallen_at >= 0) & (fallen_at <= number)))
        if result.strongest is not None:
            beyond = (outcomes["fallen_at"] != STANDS) | outcomes["beyond"]
            counted.append(("error after the further attack", result.strongest, beyond))
        for number, point in enumerate(result.curve or ()):
            within = (outcomes["fallen_within"] >= 0) & (outcomes["fallen_within"] <= number)
            counted.append((f"error within {show(point.eps)}", point, within))
            if point.eps == result.evaluation.eps:
                counted.append(("robust error", result.robust, within))
        for name, rate, wrong in counted:
            errors, images = int(wrong.sum()), len(wrong)
            if (rate.errors, rate.images) != (errors, images) or not isclose(rate.error, 100 * errors / images):
                return name
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return "shape"
    return None
