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
        normal-97a78716ba
        normal_bn_only-9d0c479ab4
        normal_bn_only_logits_conv1-559ded6d57
        adv-aa1ddaf41e
        bn_only-97f36f5bac
        bn_only_logits_conv1-add8aa8aae
        bn_stats_no_reset-9d4fe5a717
        bn_stats-3f0374c1bd
        bn_only_params-f50e3d715c
        bn_params-022b635747
        bn_params_logits_conv1-9ec578dcd9
    """,
    "cifar10": """
        normal-b3c52282d5
        normal_bn_only-51caa7b5f0
        normal_bn_only_logits_conv1-3125351ea3
        adv-5bc79969e8
        bn_only-a054cb3ea8
        bn_only_logits_conv1-9da730b96d
        bn_stats_no_reset-4dba7a0ccb
        bn_stats-2de0b89d19
        bn_only_params-90d3c6a81e
        bn_params-723ef1aa7e
        bn_params_logits_conv1-4869faa2b1
    """,
}
EVALUATIONS = {"digits": "autoattack-df22b6b013", "cifar10": "autoattack-44679f813d"}


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
