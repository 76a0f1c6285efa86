"""The controls beside the paper's rows: each trains what it says, and stands in the table as a row of its own."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.command import TINY, Outcome

from bnft.cli import main
from bnft.runs.run_folder import RunFolder

CONTROLS: dict[str, Callable[[str], bool]] = {  # whether a BN layer's tensor learns
    "bn_params_clean": lambda name: True,
    "bn_params_no_decay": lambda name: True,
    "bn_params_gamma": lambda name: name.endswith(".weight"),
    "bn_params_beta": lambda name: name.endswith(".bias"),
    "bn_params_stage1": lambda name: ".stages.0." in name,
    "bn_params_stage2": lambda name: ".stages.1." in name,
    "bn_params_stage3": lambda name: ".stages.2." in name,
    "bn_params_shortcut": lambda name: ".shortcut." in name,
    "adv_bn_clean": lambda name: True,
}
BN_PARAMETERS = 84  # of a ResNet-8 at width 2


def weights_of(policy: str) -> dict[str, torch.Tensor]:
    (path,) = Path("multirun").glob(f"{policy}-*")
    state, _ = RunFolder(path).model()
    return {name: value for name, value in state.items() if name.endswith((".weight", ".bias"))}


def test_controls_train_what_they_say(launch: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    policies = ["bn_params", *CONTROLS, "random_params"]
    done = launch("-m", f"policy={','.join(policies)}", *TINY)
    assert done.code == 0, done.err
    for policy, learns in CONTROLS.items():
        before, after = weights_of("adv" if policy == "adv_bn_clean" else "normal"), weights_of(policy)
        batchnorm = {name for name in before if ".bn" in name or ".shortcut.1." in name}
        assert sum(before[name].numel() for name in batchnorm) == BN_PARAMETERS
        moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
        assert moved == set(filter(learns, batchnorm)), policy
    before, after = weights_of("normal"), weights_of("random_params")
    numbers = {name: int((value != after[name]).sum()) for name, value in before.items()}
    assert 0.9 * BN_PARAMETERS < sum(numbers.values()) <= BN_PARAMETERS, "some have no gradient"
    assert not any(count for name, count in numbers.items() if ".bn" in name or ".shortcut.1." in name)

    main(["table", "--format", "json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["policy"] for row in rows] == policies
    assert rows[-1]["label"].startswith("RANDOM PARAMS (PGD)")
    assert rows[-1]["learning_percent"] == rows[0]["learning_percent"]
