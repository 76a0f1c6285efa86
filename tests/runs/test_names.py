"""The names of the paper's eleven rows: who has runs under these names must find them again."""

import numpy as np
import pytest

from bnft.data.dataset import Arrays
from bnft.runs.plan import plan

POLICIES = (
    "normal",
    "normal_bn_only",
    "normal_bn_only_logits_conv1",
    "adv",
    "bn_only",
    "bn_only_logits_conv1",
    "bn_stats_no_reset",
    "bn_stats",
    "bn_only_params",
    "bn_params",
    "bn_params_logits_conv1",
)
NAMES = {
    "digits": """
        normal-bb1b846025
        normal_bn_only-e32eafbbab
        normal_bn_only_logits_conv1-9844ee99ba
        adv-1cf1cd5441
        bn_only-ccc5463efb
        bn_only_logits_conv1-3a23f43597
        bn_stats_no_reset-2db8c65c37
        bn_stats-30c77bc0c4
        bn_only_params-4e5326ee36
        bn_params-d2246d8587
        bn_params_logits_conv1-1b206e4b40
    """,
    "cifar10": """
        normal-2ae7cba3e9
        normal_bn_only-6da4fe91ac
        normal_bn_only_logits_conv1-ad5c359b1a
        adv-4e5131b354
        bn_only-0c28723a3a
        bn_only_logits_conv1-e20d4929ba
        bn_stats_no_reset-1eda56554b
        bn_stats-27ac3fe6c3
        bn_only_params-73047f0a0b
        bn_params-76a4da06a9
        bn_params_logits_conv1-6d2b5c0c90
    """,
}
EVALUATIONS = {"digits": "autoattack-7156338b49", "cifar10": "autoattack-91a1fe46a8"}


def _made_up(root: str, download: bool = True) -> Arrays:
    """Images of CIFAR-10's shape and number of classes; what is pinned below hashes these, not the real ones."""
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (1200, 32, 32, 3)).astype(np.uint8)
    labels = np.arange(1200) % 10
    return Arrays(images[:200], labels[:200], images[200:], labels[200:])


@pytest.mark.parametrize("data", NAMES)
def test_the_eleven_rows_keep_their_names(data, hydra, monkeypatch):
    monkeypatch.setattr("bnft.data.cifar10.load", _made_up)
    planned = plan([[f"policy={policy}", f"data={data}"] for policy in POLICIES])
    assert [run.name for run in planned.runs] == NAMES[data].split()
    assert {run.evaluation_id for run in planned.runs} == {EVALUATIONS[data]}
    assert planned.bases == (), "the five rows that start from NORMAL start from the row itself"
