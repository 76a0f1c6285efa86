"""The number of learned parameters of a model. Does not import PyTorch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters and BN statistics of a model.

    Args:
        parameters: all parameters of the model.
        learning: those that learn.
        batchnorm: those of BN layers.
        statistics: running means and variances that are updated.
    """

    parameters: int
    learning: int
    batchnorm: int = 0
    statistics: int = 0

    @property
    def share(self) -> float:
        """The learned parameters in percent of all parameters, as in the last column of Table 1."""
        return 100 * self.learning / self.parameters

    @property
    def statistics_share(self) -> float:
        """The updated statistics in percent of all parameters."""
        return 100 * self.statistics / self.parameters

    def __str__(self) -> str:
        return (
            f"{self.learning:,} of {self.parameters:,} parameters learn ({self.share:.3f} %),"
            f" {self.statistics:,} BN statistics are updated ({self.statistics_share:.3f} %)"
        )
