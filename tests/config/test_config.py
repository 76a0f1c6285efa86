"""Every option of every group composes and builds; the command line wins; a base inherits what it should."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose as hydra_compose
from omegaconf import OmegaConf
from support import table2
from support.command import ROOT

from bnft.batchnorm.freezing import Freezing
from bnft.common.errors import InputError
from bnft.config import build, components
from bnft.config.check import check
from bnft.config.compose import compose
from bnft.runs import identity
from bnft.runs.execution import execute
from bnft.runs.plan import ModelFile, Run, plan
from bnft.sweeps.terminal import Terminal

GROUPS = ("policy", "freeze_policy", "attack", "model", "data", "schedule", "schedule/shape", "evaluation")
NEEDED = {"model=torchvision": ["model.name=resnet18"], "data=cifar10": [], "data=npz": []}

pytestmark = pytest.mark.usefixtures("hydra")


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (ROOT / "conf" / group).glob("*.yaml"))


@pytest.fixture
def data_file(tmp_path: Path, images: dict[str, np.ndarray]) -> Path:
    file = tmp_path / "images.npz"
    np.savez(file, **images)  # type: ignore[arg-type]
    return file


def run_of(*overrides: str) -> Run:
    (run,) = plan([list(overrides)]).runs
    return run


@pytest.mark.parametrize("choice", [f"{group}={option}" for group in GROUPS for option in options(group)])
def test_every_option_composes_and_builds(choice, data_file):
    line = [choice, *NEEDED.get(choice, [])]
    if choice == "data=npz":
        line += [f"data.path={data_file}"]
    config = compose(line).config
    recipe = build.recipe(config)
    assert recipe.epochs >= 0
    assert 0 <= recipe.shape(0.5) <= 1
    assert (recipe.attack is None) == (config["attack"] is None)
    assert build.evaluation(config).eps == pytest.approx(config["threat"]["eps"])
    if choice != "data=cifar10":
        data = build.dataset(config)
        model = build.model(config, data)
        policy = config["freeze_policy"]
        assert Freezing(model, policy["parameters"], policy["statistics"]).counts().parameters > 0
        with torch.no_grad():
            assert model.eval()(data.pixels(data.x_test[:2])).shape == (2, config["data"]["num_classes"])


def test_the_policies_are_the_eleven_of_the_paper_and_the_controls():
    assert set(options("policy")) == set(table2.by_policy()) | set(CONTROLS)
    for policy, row in table2.by_policy().items():
        assert compose([f"policy={policy}"]).config["title"] == row.title


TABLE = {  # parameters, statistics, attacked, base: the first table of docs/protocol.md's source, Table 2
    "normal": (["all"], "update", False, None),
    "normal_bn_only": (["batchnorm"], "update", False, None),
    "normal_bn_only_logits_conv1": (["batchnorm", "logits", "first_conv"], "update", False, None),
    "adv": (["all"], "update", True, None),
    "bn_only": (["batchnorm"], "update", True, None),
    "bn_only_logits_conv1": (["batchnorm", "logits", "first_conv"], "update", True, None),
    "bn_stats_no_reset": (["none"], "update", True, "normal"),
    "bn_stats": (["none"], "reset", True, "normal"),
    "bn_only_params": (["batchnorm"], "frozen", True, "normal"),
    "bn_params": (["batchnorm"], "update", True, "normal"),
    "bn_params_logits_conv1": (["batchnorm", "logits", "first_conv"], "update", True, "normal"),
}


CONTROLS = {  # in what each differs from BN PARAMS
    "bn_params_clean": {"attack": None},
    "bn_params_no_decay": {"schedule.batchnorm_weight_decay": 0.0},
    "bn_params_gamma": {"freeze_policy.parameters": ["batchnorm.gamma"]},
    "bn_params_beta": {"freeze_policy.parameters": ["batchnorm.beta"]},
    "bn_params_stage1": {"freeze_policy.parameters": ["batchnorm@stage1"]},
    "bn_params_stage2": {"freeze_policy.parameters": ["batchnorm@stage2"]},
    "bn_params_stage3": {"freeze_policy.parameters": ["batchnorm@stage3"]},
    "bn_params_shortcut": {"freeze_policy.parameters": ["batchnorm@shortcut"]},
    "random_params": {"freeze_policy.parameters": ["random:batchnorm"]},
    "adv_bn_clean": {"attack": None, "base": "adv"},
}


@pytest.mark.parametrize("images", ["digits", "cifar10"])
@pytest.mark.parametrize("policy", CONTROLS)
def test_a_control_is_bn_params_but_for_one_thing(policy, images):
    """The recipe of the data and the augmentation of adversarial training are those of BN PARAMS."""
    ours, theirs = (compose([f"policy={name}", f"data={images}"]).config for name in (policy, "bn_params"))
    assert ours["data"]["augmentation"] == {"digits": "none", "cifar10": "crop_flip"}[images]
    assert ours["schedule"]["epochs"] == {"digits": 15, "cifar10": 30}[images]
    assert ours.pop("title") != theirs.pop("title")
    assert identity.differences(ours, theirs) == CONTROLS[policy]


def test_a_control_is_no_row_of_the_paper_and_has_no_overrides():
    for policy in CONTROLS:
        run = run_of(f"policy={policy}", "seed=2")
        assert run.overrides == {} and run.base_name.startswith("adv-" if policy == "adv_bn_clean" else "normal-")
    assert run_of("policy=bn_params_gamma", "freeze_policy=batchnorm_beta").overrides == {
        "freeze_policy.parameters": ["batchnorm.beta"]
    }


SCRATCH_BN = ("normal_bn_only", "normal_bn_only_logits_conv1", "bn_only", "bn_only_logits_conv1")


@pytest.mark.parametrize("policy", TABLE)
def test_the_axes_of_each_row(policy):
    config = compose([f"policy={policy}"]).config
    found = config["freeze_policy"]["parameters"], config["freeze_policy"]["statistics"]
    assert (*found, config["attack"] is not None, config["base"]) == TABLE[policy]


@pytest.mark.parametrize("policy", TABLE)
def test_policies_only_pick_from_groups(policy):
    import yaml

    written = yaml.safe_load((ROOT / "conf" / "policy" / f"{policy}.yaml").read_text())
    assert written.pop("schedule", None) == ({"kind": "scratch_bn"} if policy in SCRATCH_BN else None)
    assert written.keys() == {"defaults", "title", "base"}


def test_the_papers_setting_on_cifar10(data_file):
    config = compose(["policy=adv", "data=npz", f"data.path={data_file}"]).config
    attack, schedule = config["attack"], config["schedule"]
    assert (attack["eps"], attack["iterations"], attack["mode"], attack["keep"]) == (8 / 255, 10, "eval", "worst")
    assert attack["step_size"] == pytest.approx(0.007)
    assert (schedule["epochs"], schedule["lr"], schedule["batch_size"]) == (150, 0.05, 128)
    assert schedule["shape"]["_target_"] == "step"
    assert config["model"]["width"] == 64
    assert config["data"]["augmentation"] == "crop_flip"
    evaluation = config["evaluation"]
    assert (evaluation["version"], evaluation["eps"], evaluation["n_images"]) == ("standard", 8 / 255, 1000)
    clean = compose(["policy=normal", "data=npz", f"data.path={data_file}"]).config
    assert clean["data"]["augmentation"] == "autoaugment"


def test_classes_and_channels_follow_from_the_data(data_file):
    config = compose(["data=npz", f"data.path={data_file}"]).config
    assert (config["model"]["num_classes"], config["model"]["channels"]) == (3, 3)


def test_the_attack_and_the_evaluation_follow_the_threat_model():
    config = compose(["policy=adv", "threat=l2_128_255"]).config
    for group in ("threat", "attack", "evaluation"):
        assert (config[group]["norm"], config[group]["eps"]) == ("L2", pytest.approx(128 / 255))
    config = compose(["policy=adv", "data=cifar10", "threat=linf_8_255"]).config
    assert config["evaluation"]["eps"] == pytest.approx(8 / 255)
    config = compose(["policy=adv", "threat.eps=4/255"]).config
    assert config["attack"]["eps"] == config["evaluation"]["eps"] == pytest.approx(4 / 255)
    assert config["attack"]["step_size"] == pytest.approx(0.223125 * 4 / 255)
    config = compose(["policy=adv", "attack.eps=0.1"]).config
    assert (config["attack"]["eps"], config["evaluation"]["eps"]) == (0.1, 0.15)


def test_groups_on_the_command_line_win_over_the_policy():
    config = compose(["policy=bn_params", "attack=none", "freeze_policy.parameters=[batchnorm,first_conv]"]).config
    assert config["attack"] is None
    assert config["freeze_policy"]["parameters"] == ["batchnorm", "first_conv"]


def test_a_base_inherits_model_data_seed_and_precision_and_nothing_else():
    line = ["policy=bn_params", "seed=3", "model.width=8", "data.augmentation=crop", "precision=fp32"]
    line += ["attack.iterations=3", "schedule.epochs=2", "freeze_policy.statistics=frozen"]
    base = run_of(*line).base
    assert isinstance(base, Run)
    assert base.name == run_of("policy=normal", *line[1:5]).name
    assert base.config["schedule"]["epochs"] == compose(["policy=normal"]).config["schedule"]["epochs"]


def test_a_base_is_made_where_its_child_is(tmp_path):
    base = run_of("policy=bn_params", f"store={tmp_path}", "threads=1", "device=cpu").base
    assert isinstance(base, Run)
    assert (base.config["store"], base.config["threads"], base.config["device"]) == (str(tmp_path), 1, "cpu")


def test_base_overrides_pass_more():
    run = run_of("policy=bn_params", "base_overrides=['schedule.epochs=2']")
    assert isinstance(run.base, Run)
    assert run.base.config["schedule"]["epochs"] == 2
    assert run.overrides == {}, "the schedule is free, the base's too"
    trained = run_of("policy=bn_params", "base_overrides=['attack=pgd']")
    assert "base.attack._target_" in trained.overrides or "base.attack" in trained.overrides


def test_a_plan_holds_each_base_once_and_each_run_once():
    lines = [[f"policy={policy}", "seed=1"] for policy in ("bn_stats", "bn_params", "bn_stats")]
    planned = plan(lines)
    assert [run.policy for run in planned.runs] == ["bn_stats", "bn_params"]
    assert [base.policy for base in planned.bases] == ["normal"]
    assert plan([*lines, ["policy=normal", "seed=1"]]).bases == ()


def test_what_changes_no_number_changes_no_name(tmp_path):
    name = run_of("policy=bn_params").name
    assert run_of("policy=bn_params", "device=cpu", "threads=1", f"store={tmp_path}").name == name
    assert run_of("policy=bn_params", "evaluation=pgd").name == name
    assert run_of("policy=normal", "attack.eps=0.3").name == run_of("policy=normal").name, "there is no attack"
    for change in ("seed=1", "precision=fp32", "schedule.lr=0.01", "attack.keep=last", "data.augmentation=crop"):
        assert run_of("policy=bn_params", change).name != name, change


WRONG_ATTACKS = (
    "attack.eps=abc",
    "attack.eps=2",
    "attack.eps=null",
    "attack.iterations=-1",
    "attack.norm=bf16",
    "attack.mode=idle",
    "attack.keep=best",
    "attack.random_start=maybe",
    "attack.step_size=0",
)


@pytest.mark.parametrize("wrong", WRONG_ATTACKS)
def test_the_keys_of_an_attack_are_checked_where_none_is_used(wrong):
    said = []
    for policy in ("adv", "normal"):
        with pytest.raises(InputError) as refusal:
            compose([f"policy={policy}", wrong])
        said.append(str(refusal.value))
    assert said[0] == said[1] and said[0].startswith(f"{wrong}: must be ")


def test_a_large_eps_needs_another_norm():
    assert compose(["policy=adv", "threat.norm=L2", "threat.eps=2"]).config["evaluation"]["eps"] == 2
    with pytest.raises(InputError, match=r"threat\.eps=2: must be at most 1 with threat\.norm=Linf"):
        compose(["policy=normal", "threat.eps=2", "evaluation.norm=L2"])


def test_a_sweep_over_attacks_can_set_what_only_ones_own_has():
    """Where there is no attack, only the keys of the usual one are checked, and none of them names the run."""
    own, none = (["policy=adv", choice, "+attack.name=mine"] for choice in OWN_OR_NONE)
    assert compose(own).config["attack"]["name"] == "mine"
    assert run_of(*none).name == run_of("policy=adv", "attack=none").name
    assert run_of("policy=normal", "+attack.name=mine", "attack.eps=0.1").name == run_of("policy=normal").name
    raw: Any = OmegaConf.to_container(hydra_compose("config", ["policy=normal"]), resolve=True)
    assert check({**raw, "attack": {"_target_": None}})["attack"] is None, "it need not have those keys"


OWN_OR_NONE = ("attack._target_=mischief.attack", "attack=none")


def test_data_enter_by_content_not_by_path(data_file, tmp_path, images):
    def name(file: Path) -> str:
        line = [f"data.path={file}", "evaluation.n_images=10", "schedule.batch_size=16", "model=resnet8"]
        return run_of("policy=normal", "data=npz", *line).name

    copied = tmp_path / "elsewhere.npz"
    np.savez_compressed(copied, **images)
    assert name(copied) == name(data_file)
    images["x_test"][0, 0, 0, 0] ^= 1
    changed = tmp_path / "changed.npz"
    np.savez(changed, **images)
    assert name(changed) != name(data_file)


def test_overrides_tell_a_row_of_the_paper_from_others():
    assert run_of("policy=bn_params", "seed=4", "model.width=8", "schedule.epochs=3").overrides == {}
    assert run_of("policy=bn_params", "attack.eps=0.1").overrides.keys() >= {"attack.eps"}
    assert run_of("policy=bn_params", "freeze_policy.statistics=frozen").overrides == {
        "freeze_policy.statistics": "frozen"
    }
    assert run_of("policy=bn_params", "evaluation.eps=0.1").overrides == {"evaluation.eps": 0.1}
    assert run_of("policy=bn_params", "evaluation=pgd").overrides["evaluation.attack"] == "pgd"
    assert run_of("policy=bn_params", "evaluation.n_images=50").overrides == {}
    assert run_of("policy=bn_params", "base=adv").overrides["base"] == "adv"
    assert run_of("policy=bn_params", "base=null").overrides == {"base": None}


class OwnNet(torch.nn.Module):
    """A user's own module."""

    def __init__(self, num_classes: int, hidden: int = 3) -> None:
        super().__init__()
        self.conv, self.bn = torch.nn.Conv2d(1, hidden, 3), torch.nn.BatchNorm2d(hidden)
        self.head = torch.nn.Linear(hidden, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.bn(self.conv(x)).relu().mean((2, 3)))


def test_a_users_own_module_by_target():
    settings = {"_target_": "test_config.OwnNet", "num_classes": 10, "hidden": 5}
    arguments, _ = components.check("model", settings)
    assert components.build("model", arguments)().bn.num_features == 5


def test_a_base_as_a_file_is_named_by_its_content(tmp_path):
    from safetensors.torch import save_file

    config = compose(["policy=normal"]).config
    file = tmp_path / "weights.safetensors"
    save_file(build.model(config, build.dataset(config)).state_dict(), file)
    run = run_of("policy=bn_params", f"base={file}")
    assert isinstance(run.base, ModelFile)
    assert run.identity["base"] == {"sha256": run.base.sha256}
    moved = file.rename(tmp_path / "moved.safetensors")
    assert run_of("policy=bn_params", f"base={moved}").name == run.name


@pytest.mark.parametrize(
    "line",
    [
        ["policy=bn_params", "seed=3", "schedule.epochs=2", "attack.eps=0.1"],
        ["policy=adv", "data=digits", "schedule/shape=cosine", "model.width=${seed}", "seed=4"],
        ["seed=1", "policy=normal", "seed=2", 'schedule.lr="${times:0.1,${seed}}"'],
        ["policy=bn_only", "model={width: 4}", "+evaluation.restarts=2", "~schedule.shape.warmup"],
    ],
)
def test_composing_for_many_runs_at_once_gives_what_hydra_gives(line):
    """Runs that choose alike share their composition, and those that differ in their seed its resolution."""
    for overrides in (line, [*line, "seed=5"], [*line, "seed=6"]):
        plain = hydra_compose("config", overrides)
        values: Any = OmegaConf.to_container(plain, resolve=True)
        assert compose(overrides).config == check(values)


def test_data_that_change_after_planning_are_refused(data_file, tmp_path, images):
    """As while a job waits in a queue: the run's name says which data it is of."""
    line = ["policy=normal", "data=npz", f"data.path={data_file}", "model=resnet8", "schedule.batch_size=16"]
    line += ["evaluation.n_images=30", f"store={tmp_path}", "data.augmentation=none"]
    planned = plan([line])
    np.savez(data_file, **{**images, "x_train": 255 - images["x_train"]})
    build._loaded.cache_clear()
    with pytest.raises(InputError, match="its data have changed"):
        execute(planned.runs[0], planned.store, Terminal())
