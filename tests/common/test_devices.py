"""Which device, precision and number of threads a run computes with."""

import os

import pytest
import torch

from bnft.common import devices
from bnft.common.errors import InputError


def test_an_absent_device_is_refused():
    with pytest.raises(InputError, match=r"^device=cuda:99: must be one of auto, cpu"):
        devices.choose("cuda:99", "fp32", None)


@pytest.mark.parametrize(("fast", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_is_bf16_where_it_is_fast(monkeypatch, fast, precision):
    monkeypatch.setattr(devices, "has_fast_bf16", lambda device: fast)
    assert devices.choose("cpu", "auto", 3) == devices.Hardware(torch.device("cpu"), precision, 3)
    assert devices.choose("cpu", "fp32", 3).precision == "fp32"


def test_all_available_threads_are_used_unless_told():
    assert devices.choose("cpu", "fp32", None).threads == devices.available_threads() >= 1
    assert devices.choose("cpu", "fp32", 1).describe() == "cpu, fp32, 1 thread"


def test_a_slurm_task_uses_the_cpus_that_it_was_given(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert devices.available_threads() == 3
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    assert devices.available_threads() == len(os.sched_getaffinity(0))
