"""One evaluation of one run as it is stored: its result, and the outcomes of its images."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from bnft.common.errors import DamagedError
from bnft.evaluation.settings import quick_instead
from bnft.report.per_image import PerImage
from bnft.runs import identity, layout
from bnft.runs.evaluation_folder import EvaluationFolder
from bnft.runs.result import Result, RunRecord
from bnft.runs.run_folder import RunFolder


@dataclass(frozen=True)
class StoredResult:
    """One evaluation of one run, and its folder."""

    folder: EvaluationFolder
    result: Result

    @property
    def run(self) -> RunRecord:
        return self.result.run

    @property
    def seed(self) -> int:
        return self.result.seed

    @property
    def run_folder(self) -> RunFolder:
        return RunFolder(self.folder.path.parents[1])

    @cached_property
    def preview(self) -> "StoredResult | None":
        """The quick evaluation of the same images that is shown before AutoAttack; None if it is not there, or damaged.

        Evaluations by other attacks than AutoAttack have none.
        """
        evaluation = self.result.evaluation
        if evaluation.attack == "autoattack":
            folder = self.folder.beside(identity.evaluation_id(quick_instead(evaluation.settings)))
            with suppress(DamagedError):
                result = folder.result()
                return StoredResult(folder, result) if result is not None else None
        return None

    @cached_property
    def further_by_preview(self) -> int:
        """The number of images that the preview broke and AutoAttack did not."""
        with suppress(DamagedError):
            if self.preview is not None:
                return int((self.preview.per_image.robust & ~self.per_image.robust).sum())
        return 0

    @cached_property
    def scores(self) -> dict[str, NDArray[Any]]:
        """The outcomes without the images, kept in memory. Raises DamagedError if they are missing or damaged."""
        return self.outcomes(images=False)

    def outcomes(self, images: bool = True) -> dict[str, NDArray[Any]]:
        """Read the outcomes, see `EvaluationFolder.outcomes`. Raise DamagedError if they are missing or damaged."""
        with repairable():
            return self.folder.outcomes(images)

    @cached_property
    def per_image(self) -> PerImage:
        """The errors on every image, kept in memory. Raises DamagedError like `outcomes`."""
        outcomes = self.outcomes(images=False)
        if "fallen_at" not in outcomes:
            with repairable():
                raise DamagedError(f"{self.folder.path / layout.OUTCOMES}: is damaged, fallen_at is missing")
        return PerImage.of(outcomes)


@contextmanager
def repairable() -> Iterator[None]:
    """Add to a DamagedError about an evaluation how to compute the file again."""
    try:
        yield
    except DamagedError as error:
        raise DamagedError(f"{error}; remove this file and repeat the command that wrote it") from None
