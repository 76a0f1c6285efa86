"""What bnft uses of other packages that is private or undocumented there, each part for itself.

A failure here says which bound of `pyproject.toml` does not hold, and in which module the part is used.
"""

import argparse
import functools
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from pydantic import TypeAdapter, ValidationError
from sklearn.datasets import load_digits
from support.command import ROOT
from torch import fx, nn

from bnft.common import compat as own
from bnft.common.constraints import above
from bnft.common.ending import argparse_message
from bnft.config import compat as of_hydra

COMMON, CONFIG = "bnft/common/compat.py", "bnft/config/compat.py"
TRACKING, EVALUATION = "bnft/tracking/compat.py", "bnft/evaluation/compat.py"
Check = Callable[..., None]
CHECKS: list[tuple[Check, str, str, str]] = []


def bound(package: str) -> str:
    """The line of `pyproject.toml` that says which versions are allowed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if package == "python":
        return f"requires-python = {project['requires-python']}"
    (line,) = (line for line in project["dependencies"] if re.match(rf"{package}\b(?!-)", line))
    return str(line)


def uses(package: str, module: str, *parts: str) -> Callable[[Check], Check]:
    """A check of a package that `module` of bnft uses: its `parts` (as `module:name`) exist, and the example works."""

    def decorated(check: Check) -> Check:
        @functools.wraps(check)
        def checked(*arguments: Any, **named: Any) -> None:
            try:
                for part in parts:
                    pkgutil.resolve_name(part)
                check(*arguments, **named)
            except Exception as error:
                version = sys.version.split()[0] if package == "python" else metadata.version(package)
                message = f"{module} does not work with {package} {version}, which pyproject.toml allows"
                raise AssertionError(f"{message} ({bound(package)}): {type(error).__name__}: {error}") from error

        CHECKS.extend((checked, package, module, part) for part in parts)
        return checked

    return decorated


# PyTorch and torchvision


@uses("torch", COMMON, "torch.nn.modules.batchnorm:_BatchNorm")
def test_batchnorm_layers_have_a_common_class() -> None:
    layers = (nn.BatchNorm1d(1), nn.BatchNorm2d(1), nn.BatchNorm3d(1), nn.SyncBatchNorm(1))
    assert all(map(own.is_batchnorm, layers))
    assert not any(map(own.is_batchnorm, (nn.InstanceNorm2d(1), nn.GroupNorm(1, 1), nn.Linear(1, 1))))


@uses("torch", COMMON, "torch.cpu:_is_amx_tile_supported", "torch.cpu:_is_avx512_bf16_supported")
def test_the_cpu_says_whether_it_multiplies_bf16() -> None:
    found = [torch.cpu._is_amx_tile_supported(), torch.cpu._is_avx512_bf16_supported()]
    assert all(isinstance(value, bool) for value in found)
    assert own.cpu_multiplies_bf16() is any(found)


@uses("torch", COMMON, "torch.utils.flop_counter:FlopCounterMode")
def test_operations_are_counted() -> None:
    assert own.flops(nn.Linear(3, 5), torch.zeros(2, 3)) == 2 * 2 * 3 * 5


@uses("torch", COMMON, "torch.fx.passes.shape_prop:ShapeProp")
def test_shapes_are_noted_at_nodes() -> None:
    traced = fx.symbolic_trace(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()))
    own.note_shapes(traced, torch.zeros(4, 1, 5, 5))
    assert [own.noted_shape(node) for node in traced.graph.nodes] == [(4, 1, 5, 5), (4, 2, 3, 3), (4, 18), (4, 18)]


@uses(
    "torchvision",
    COMMON,
    "torchvision.transforms.autoaugment:AutoAugment._augmentation_space",
    "torchvision.transforms.autoaugment:_apply_op",
)
def test_autoaugment_is_in_parts() -> None:
    policies, space = own.autoaugment_policies(32, 32)
    assert len(policies) == 25 and policies[0] == (("Invert", 0.1, None), ("Contrast", 0.2, 6))
    for name, chance, place in (part for policy in policies for part in policy):
        magnitudes, signed = space[name]
        assert 0 <= chance <= 1 and isinstance(signed, bool) and (place is None or magnitudes.shape == (10,))
    images = torch.arange(2 * 3 * 4, dtype=torch.uint8).reshape(2, 3, 2, 2)
    assert torch.equal(own.autoaugment_operation(images, "Invert", 0.0), 255 - images)


@uses("scikit-learn", COMMON)
def test_the_digits_are_in_a_file() -> None:
    digits, table = load_digits(), np.loadtxt(own.digits_file(), delimiter=",")
    assert np.array_equal(table[:, :-1].reshape(-1, 8, 8), digits.images) and np.array_equal(
        table[:, -1], digits.target
    )


# Python


@uses("python", COMMON, "argparse:ArgumentParser.parse_args")
def test_a_parser_knows_its_arguments() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--colour", choices=["red"])
    action = own.argparse_actions(parser)[-1]
    assert (action.option_strings, action.choices) == (["--colour"], ["red"])


@uses("python", "bnft/common/ending.py")
def test_argparse_says_what_it_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--colour", choices=["red"])
    for arguments, meant in ((["--color", "red"], "--colour"), (["--colour", "rod"], "red")):
        with pytest.raises(SystemExit):
            parser.parse_args(arguments)
        message = capsys.readouterr().err.strip().partition("error: ")[2]
        assert f"did you mean {meant}?" in argparse_message(message, ["--colour", "red"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bnft uses it on Linux only")
@uses("python", COMMON, "multiprocessing.forkserver:ensure_running")
def test_the_forkserver_starts_before_its_first_process(tmp_path: Path) -> None:
    (tmp_path / "preloaded.py").write_text("print('loaded', flush=True)")
    code = (
        "import multiprocessing, time; from bnft.common.compat import start_forkserver\n"
        "multiprocessing.get_context('forkserver').set_forkserver_preload(['preloaded'])\n"
        "start_forkserver(); start_forkserver(); time.sleep(10)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "loaded\n"
        finally:
            process.kill()


# Hydra and OmegaConf


@pytest.fixture
def conf(tmp_path: Path) -> Iterator[Path]:
    """Hydra on a folder with a configuration of one key and one group."""
    from hydra.core.global_hydra import GlobalHydra

    (tmp_path / "group").mkdir()
    (tmp_path / "config.yaml").write_text("key: 1\n")
    (tmp_path / "group" / "one.yaml").write_text("a: [\n")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        yield tmp_path


@contextmanager
def caught() -> Iterator[list[Exception]]:
    found: list[Exception] = []
    try:
        yield found
    except Exception as error:
        found.append(error)


def parsed(*lines: str) -> Any:
    return OverridesParser.create().parse_overrides(list(lines))


@uses("omegaconf", CONFIG, "omegaconf._utils:get_yaml_loader")
def test_yaml_is_read_with_the_chosen_loader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Loader(of_hydra.yaml_loader()):  # type: ignore[misc]
        def get_single_node(self) -> Any:
            read.append(self.name)
            return super().get_single_node()

    read: list[str] = []
    monkeypatch.setattr("omegaconf._utils.get_yaml_loader", None)  # put back afterwards
    of_hydra.use_yaml_loader(lambda: Loader)
    (tmp_path / "a.yaml").write_text("a: 1e3\n")
    assert OmegaConf.load(tmp_path / "a.yaml") == OmegaConf.create("a: 1000.0")
    assert len(read) == 2 and read[0].endswith("a.yaml")


@uses("hydra-core", CONFIG, "hydra._internal.config_loader_impl:ConfigLoaderImpl._apply_overrides_to_config")
def test_overrides_give_a_configuration_its_values() -> None:
    config = OmegaConf.create({"a": 1, "b": {"c": 2}})
    OmegaConf.set_struct(config, True)
    of_hydra.apply_values(parsed("a=3", "b.c=4", "+d=5"), config)
    assert config == {"a": 3, "b": {"c": 4}, "d": 5}
    with caught() as errors:
        of_hydra.apply_values(parsed("a=3", "nothing=1"), config)
    override = of_hydra.override_in_hand(errors[0])
    assert override is not None and override.input_line == "nothing=1"


@uses("hydra-core", CONFIG, "hydra._internal.config_repository:ConfigRepository.group_exists")
def test_groups_are_told_from_keys(conf: Path) -> None:
    assert of_hydra.is_group("group") and not of_hydra.is_group("key")


@uses("hydra-core", CONFIG, "hydra._internal.utils:get_args_parser")
def test_hydra_has_a_parser_of_its_flags() -> None:
    actions = own.argparse_actions(of_hydra.flag_parser())
    assert {"--multirun", "-m", "--help", "--cfg"} <= {name for action in actions for name in action.option_strings}


@uses("hydra-core", CONFIG, "hydra.core.utils:JobReturn._return_value")
def test_the_error_of_a_job_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    job = JobReturn(overrides=["a=1"], status=JobStatus.FAILED)
    job.return_value = error = ValueError("wrong")
    assert of_hydra.error_of(job) is error
    job.status = JobStatus.COMPLETED
    assert of_hydra.error_of(job) is None
    assert capsys.readouterr().err == ""


@uses("hydra-core", CONFIG, "hydra._internal.core_plugins.basic_sweeper:BasicSweeper.split_arguments")
def test_a_sweep_is_all_combinations() -> None:
    jobs = of_hydra.jobs_of(parsed("a=1,2", "b=x", "c=range(0,2)"))
    assert jobs == [["a=1", "b=x", "c=0"], ["a=1", "b=x", "c=1"], ["a=2", "b=x", "c=0"], ["a=2", "b=x", "c=1"]]


@uses("hydra-core", CONFIG, "hydra._internal.core_plugins.file_config_source:FileConfigSource.load_config")
def test_a_traceback_has_the_file_that_hydra_read(conf: Path) -> None:
    from hydra import compose

    with caught() as errors:
        compose("config", ["+group=one"])
    assert of_hydra.file_in_hand(errors[0]) == str(conf.resolve() / "group" / "one.yaml")
    assert of_hydra.failed_part(errors[0]) is None


@uses(
    "hydra-core",
    CONFIG,
    "hydra.core.plugins:Plugins.instantiate_launcher",
    "hydra.core.plugins:Plugins.instantiate_sweeper",
)
def test_a_traceback_says_that_a_launcher_could_not_be_made() -> None:
    from hydra.core.plugins import Plugins

    for part in ("launcher", "sweeper"):
        with caught() as errors:
            make = getattr(Plugins.instance(), f"instantiate_{part}")
            make(hydra_context=None, task_function=None, config=OmegaConf.create())
        assert of_hydra.failed_part(errors[0]) == part


@uses("pydantic", "bnft/common/constraints.py and bnft/config/messages.py")
def test_pydantic_says_what_is_wrong() -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(dict[str, Annotated[float, above(0)]]).validate_python({"a": 1, "b": -1})
    (error,) = refused.value.errors()
    assert (error["loc"], error["type"], str(error["ctx"]["error"])) == (("b",), "value_error", "above 0")


# AutoAttack


@uses("pyautoattack", EVALUATION, "pyautoattack.checks:funcs", "pyautoattack.checks:check_dynamic")
def test_counts_of_calls_are_forgotten() -> None:
    from pyautoattack import checks

    from bnft.evaluation.compat import forget_calls

    checks.funcs["grad"] = 1
    forget_calls()
    assert set(checks.funcs) == {"grad", "backward", "_make_grads"} and not any(checks.funcs.values())


@uses("pyautoattack", EVALUATION, "pyautoattack:AutoAttack.get_seed")
def test_the_official_attacks_have_the_attributes_that_are_set() -> None:
    from pyautoattack import AutoAttack

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    official = AutoAttack(model, norm="Linf", eps=0.1, version="standard", seed=5, device="cpu")
    assert official.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"] and official.get_seed() == 5
    for attack, names in {
        official.apgd: ("loss", "seed"),
        official.apgd_targeted: ("n_target_classes", "seed"),
        official.fab: ("n_target_classes", "n_restarts", "targeted", "seed"),
        official.square: ("predict", "seed"),
    }.items():
        assert all(hasattr(attack, name) for name in (*names, "perturb")), attack


# W&B


@uses("wandb", TRACKING, "wandb.sdk.wandb_settings:Settings", "wandb:setup")
def test_wandb_takes_private_settings() -> None:
    import wandb

    from bnft.tracking.compat import SETTINGS

    chosen, usual = wandb.Settings(**SETTINGS), wandb.Settings()
    assert all(getattr(chosen, name) != getattr(usual, name) for name in SETTINGS)
    assert {"api_key", "base_url", "identity_token_file", "mode"} <= set(wandb.Settings.model_fields)
    assert "settings" in dir(wandb.sdk.wandb_setup._WandbSetup)


@uses(
    "wandb",
    TRACKING,
    "wandb.sdk.mailbox.mailbox:MailboxClosedError",
    "wandb.sdk.mailbox.mailbox_handle:HandleAbandonedError",
    "wandb.sdk.lib.service.service_port_file:ServicePollForTokenError",
)
def test_a_service_that_is_gone_is_known_by_name() -> None:
    from wandb.sdk.mailbox.mailbox import MailboxClosedError

    from bnft.tracking.compat import is_lost

    assert is_lost(MailboxClosedError()) and not is_lost(ValueError())


@uses(
    "wandb",
    TRACKING,
    "wandb.sdk.data_types.image:Image.seq_to_json",
    "wandb.sdk.data_types.table:Table.to_json",
    "wandb.sdk.wandb_run:Run.starting_step",
)
def test_images_and_tables_have_the_types_that_we_log() -> None:
    import wandb

    from bnft.tracking.compat import IMAGES, TABLE

    assert f'"{IMAGES}"' in inspect.getsource(wandb.Image.seq_to_json)
    assert f'"{TABLE}"' in inspect.getsource(wandb.Table.to_json)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@uses(
    "wandb-workspaces",
    TRACKING,
    "wandb_workspaces.workspaces.internal:_internal_name_to_url_query_str",
    "wandb_workspaces.workspaces.internal:get_view_dict",
    "wandb_workspaces.workspaces.interface:Workspace._to_model",
    "wandb_workspaces.reports.v2.interface:Report._to_model",
)
def test_workspaces_take_names_and_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.workspaces import internal

    from bnft.tracking import compat

    panel = wr.LinePlot(title="a")
    view = ws.Workspace(entity="e", project="p", name="n", sections=[ws.Section(name="s", panels=[panel])])
    compat.name_workspace(view, "0123abc", "runs")
    compat.give_id(panel, "drawn")
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(internal, "get_view_dict", lambda *place: asked.append(place) or {"id": "there"})
    compat.renew(view)
    assert asked == [("e", "p", "0123abc")]
    runset = wr.Runset(name="r")  # with a project, W&B is asked for its number
    compat.give_id(runset, "set")
    model, report = compat.models(view, wr.Report(entity="e", project="p", blocks=[wr.PanelGrid(runsets=[runset])]))
    assert (model.id, model.name) == ("there", "nw-0123abc-v")
    assert (model.entity, model.project, model.display_name) == ("e", "p", "n")
    written = model.spec.model_dump_json(by_alias=True)
    assert '"drawn"' in written and '"runs"' in written
    assert '"set"' in report.spec.model_dump_json(by_alias=True)
    assert (report.project.entity_name, report.project.name) == ("e", "p")


# submitit


@uses(
    "submitit",
    "bnft/sweeps/slurm/submission.py",
    "submitit:SlurmExecutor._submit_command",
    "submitit.slurm.slurm:_make_sbatch_string",
    "submitit.core.utils:FailedJobError",
    "submitit.core.utils:FailedSubmissionError",
)
def test_submitit_submits_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bnft.sweeps.slurm.arrays import Array
    from bnft.sweeps.slurm.submission import Executor, Request

    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/script\necho Submitted batch job 7\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "log").mkdir()
    tasks: Any = {0: None, 1: None}
    executor = Executor(tmp_path / "log", Request({"mem": "1G"}, array_parallelism=2, signal_seconds=30))
    assert executor.submit_tasks("name", Array(tasks), "carry out", ["export A=1"]) == "7"
    script = (tmp_path / "script").read_text()
    for line in ("--job-name=name", "--array=0-1%2", "--mem=1G", "--requeue", "--signal=USR2@30"):
        assert f"#SBATCH {line}\n" in script
    assert "\nexport A=1\n" in script and script.rstrip().endswith("carry out")
    assert "--time" not in script and "--wckey" not in script


# the checks themselves


@pytest.mark.parametrize(
    ("check", "package", "module", "part"), CHECKS, ids=[part.rpartition(":")[2] for *_, part in CHECKS]
)
def test_what_is_renamed_is_found(
    check: Check, package: str, module: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, _, name = part.rpartition("." if "." in part.partition(":")[2] else ":")
    place = pkgutil.resolve_name(owner)
    for kind in getattr(place, "__mro__", (place,)):  # else a class that it is derived from has it
        if name in vars(kind):
            monkeypatch.delattr(kind, name)
    with pytest.raises(AssertionError) as failed:
        check()
    message = str(failed.value)
    assert module in message and bound(package) in message and f"'{name}'" in message
