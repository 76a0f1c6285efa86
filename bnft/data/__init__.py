"""Data sets: uint8 images and labels, checked and named by their content."""

from bnft.data.dataset import Arrays, Dataset, prepare

__all__ = ["Arrays", "Dataset", "prepare"]
