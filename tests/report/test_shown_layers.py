"""`bnft layers`: every layer with its role, and what a selector picks of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import LONGEST

from bnft.cli import main

Command = Callable[..., list[list[str]]]


@pytest.fixture
def layers(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The cells of the table that the command prints, its last line as a row of one cell."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> list[list[str]]:
        main(["layers", *arguments])
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 140
        assert list(tmp_path.iterdir()) == [], "nothing is written"
        rows = [line for line in lines if line.startswith("│")]
        return [*([cell.strip() for cell in row.strip("│").split("│")] for row in rows), [lines[-1]]]

    return call


def test_the_layers_of_resnet20(layers: Command) -> None:
    *rows, total, counts = layers("resnet20", "data=cifar10", "--select", "batchnorm.gamma@shortcut", "first_conv")
    assert len(rows) == 43 and total == ["43 layers", "", "", "", "", "4,327,754", "2,112"]
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["network.conv"] == ["Conv2d", "first_conv", "", "weight 64x3x3x3", "1,728", "1,728"]
    assert by_name["network.stages.1.0.shortcut.1"] == [
        "BatchNorm2d",
        "batchnorm, shortcut",
        "2",
        "weight 128, bias 128",
        "256",
        "128 of weight",
    ]
    assert by_name["network.stages.2.1.bn2"] == ["BatchNorm2d", "batchnorm", "3", "weight 256, bias 256", "512", ""]
    assert by_name["network.logits"] == ["Linear", "logits", "", "weight 10x256, bias 10", "2,570", ""]
    assert [name for name, row in by_name.items() if row[-1]] == [
        "network.conv",
        "network.stages.1.0.shortcut.1",
        "network.stages.2.0.shortcut.1",
    ]
    assert counts == ["2,112 of 4,327,754 parameters learn (0.049 %), 6,272 BN statistics are updated (0.145 %)"]


def test_without_a_selector_it_is_that_of_the_freeze_policy(layers: Command) -> None:
    *rows, total, _ = layers("resnet8", "policy=bn_params_stage1")
    assert [row[0] for row in rows if row[-1]] == ["network.stages.0.0.bn1", "network.stages.0.0.bn2"]
    assert total[-1] == "64"
    *rows, total, _ = layers("resnet8", "freeze_policy.parameters=[logits,batchnorm@stage1]")
    assert [row[-1] for row in rows if row[-1]] == ["32", "32", "650"] and total[-1] == "714"


def test_random_entries_are_those_of_the_seed(layers: Command) -> None:
    zero, again, one = (layers("resnet8", "policy=random_params", f"seed={seed}") for seed in (0, 0, 1))
    assert zero == again != one
    assert zero[-2][-1] == one[-2][-1] == "672"


def test_a_model_of_torchvision(layers: Command) -> None:
    *rows, total, _ = layers("torchvision", "model.name=resnet18", "--select", "batchnorm@stage4")
    assert sum(bool(row[-1]) for row in rows) == 5 and total[-1] == "5,120"


def test_without_a_model_it_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    main(["layers"])
    assert capsys.readouterr().out.split() == ["resnet20", "resnet8", "torchvision"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resnet2"], "MODEL=resnet2: must be one of resnet20, resnet8, torchvision (did you mean resnet20?)"),
        (["policy=adv"], "MODEL=policy=adv: must be one of resnet20, resnet8, torchvision"),
        (["--select", "all"], "MODEL: must be given before --select; `bnft layers` lists the models"),
        (["resnet8", "--select", "batchnorm@stage9"], "batchnorm@stage9: must be one of @stage1, @stage2, @stage3 in"),
        (["torchvision", "model.name=vgg11_bn", "--select", "all@stage1"], "all@stage1: must be a selector without a"),
        (["resnet8", "--select", "layer1.*"], "freeze_policy.parameters=layer1.*: must be one of all, batchnorm,"),
        (["resnet8", "model.depth=3"], "model.depth=3: no such key"),
        (["resnet8", "schedule.lr=0"], "schedule.lr=0: must be a number, above 0"),
        (["resnet8", "model=resnet20"], "model=resnet20: must be left out, since MODEL is resnet8"),
        (["torchvision"], "model.name: must be given"),
        (
            ["torchvision", "model.name=resnet18", "model.arguments={groups: 2}"],
            "must be arguments of torchvision's resnet18",
        ),
    ],
)
def test_bad_input(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["layers", *arguments])
    shown = capsys.readouterr()
    assert (end.value.code, shown.out) == (2, "")
    assert shown.err.startswith("bnft: ") and said in shown.err
    assert shown.err.count("\n") == 1 and len(shown.err) < LONGEST
