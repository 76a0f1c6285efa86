"""Plan runs from command lines. Each run has a name, a checked configuration and a base, if it starts from one.

Planning loads the data, because their content is part of a run's name. It writes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from bnft.common import devices, files
from bnft.common.errors import DamagedError, InputError, rejected
from bnft.config import build, sources
from bnft.config.compose import (
    Composed,
    as_path,
    base_overrides,
    compose,
    forget,
    own_line,
    policies,
    pristine_overrides,
    quick_line,
    without_groups,
)
from bnft.evaluation.settings import quick_instead
from bnft.runs import identity, layout
from bnft.runs.reference import with_reference
from bnft.runs.result import FORMAT, RunRecord
from bnft.runs.run_folder import RunFolder
from bnft.runs.store import SWEEP_NAME, Store, checked
from bnft.studies.check import checked as checked_study
from bnft.studies.study import Study, StudyRow

PAPER_ATTACK = ("attack", "version", "attacks", "norm", "eps")
"""A run that differs from its policy in these settings of the evaluation is not a row of the paper."""


@dataclass(frozen=True)
class ModelFile:
    """A base that is a file of weights, identified by its SHA-256."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        policy: the name of the policy.
        identity: the part of the configuration whose hash is in the name.
        config: the whole resolved configuration.
        base: the run or file that it starts from; None to train from scratch.
        overrides: the values that differ from the policy, apart from data, model, schedule, monitor and seed. A run
            without any is a row of the paper's table.
        line: the command line, as overrides, that computes the same numbers.
        sources: the source files of a user's own components, and their SHA-256.
        usual_evaluation: the values of PAPER_ATTACK of the policy; empty for a base.
        row: the title of its row in the study of the sweep; None without a study.
        changed: the values that differ from this row, like `overrides`.
    """

    policy: str
    identity: dict[str, Any]
    config: dict[str, Any]
    base: "Run | ModelFile | None"
    overrides: dict[str, Any]
    line: list[str]
    sources: dict[str, str] = field(default_factory=dict)
    usual_evaluation: dict[str, Any] = field(default_factory=dict)
    row: str | None = None
    changed: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def name(self) -> str:
        return f"{self.policy}-{identity.digest(self.identity)}"

    @cached_property
    def evaluation_id(self) -> str:
        return identity.evaluation_id(self.config["evaluation"])

    @cached_property
    def preview(self) -> "Run | None":
        """The same run with the quick evaluation, which is made before AutoAttack; None if there is none."""
        evaluation = self.config["evaluation"]
        if not self.config.get("preview") or evaluation["attack"] != "autoattack":
            return None
        quick = quick_instead(evaluation)
        rest = identity.without_evaluation(self.overrides)
        return replace(
            self,
            config={**self.config, "evaluation": quick},
            overrides=rest | _other_evaluation(quick, self.usual_evaluation),
            changed=identity.without_evaluation(self.changed),
            line=quick_line(self.line),
        )

    @property
    def base_name(self) -> str | None:
        """The name of the run that this one starts from; None if it starts from scratch or from a file."""
        return self.base.name if isinstance(self.base, Run) else None

    def encoded(self) -> dict[str, Any]:
        """Return the run as JSON; the opposite of `decoded`."""
        base: dict[str, Any] | None = None
        if isinstance(self.base, Run):
            base = self.base.encoded()
        elif self.base is not None:
            base = {"path": str(self.base.path.absolute()), "sha256": self.base.sha256}
        return {**{one.name: getattr(self, one.name) for one in fields(self)}, "base": base}

    @classmethod
    def decoded(cls, value: Mapping[str, Any]) -> "Run":
        base = value["base"]
        if base is not None:
            base = ModelFile(Path(base["path"]), base["sha256"]) if "sha256" in base else cls.decoded(base)
        return cls(**{**value, "base": base})

    def record(self) -> RunRecord:
        """Return the record of the run, for `config.yaml` and for every result."""
        return RunRecord(
            name=self.name,
            policy=self.policy,
            title=self.config["title"],
            base=self.base_name,
            overrides=self.overrides,
            line=self.line,
            sources=self.sources,
            identity=self.identity,
            format=FORMAT,
        )


@dataclass(frozen=True, repr=False)
class Plan:
    """The requested runs.

    Attributes:
        runs: the runs, in order, each once.
        bases: the runs that they start from, apart from those in `runs`.
        store: the store.
        study: the study that has their rows; None without a study.
    """

    runs: tuple[Run, ...]
    bases: tuple[Run, ...]
    store: Store
    study: Study | None = None

    def __repr__(self) -> str:
        runs, bases = ([run.name for run in part] for part in (self.runs, self.bases))
        return f"Plan(runs={runs}, bases={bases}, store={str(self.store.root)!r})"

    @property
    def wandb(self) -> dict[str, Any]:
        """The settings of tracking; see `schema.Wandb`."""
        return dict(self.runs[0].config["wandb"])


@cache
def _composed(line: tuple[str, ...]) -> Composed:
    """Compose a command line, once per plan. Many runs of a sweep have the same base."""
    return compose(line)


@dataclass(frozen=True)
class Point:
    """A composed command line, and the row of a study that it belongs to."""

    composed: Composed
    row: StudyRow | None = None


def plan(
    command_lines: Iterable[Sequence[str]], here: bool = True, study: tuple[str, Mapping[str, Any]] | None = None
) -> Plan:
    """Return the plan of one or more command lines. Writes nothing.

    Args:
        command_lines: lists of overrides.
        here: whether the runs use the devices of this machine, so that these are checked.
        study: the name and the contents of a study, whose rows are combined with each command line.

    Raises:
        InputError: if a command line or the study is invalid.
    """
    forget()  # files may have changed since the last plan
    _composed.cache_clear()
    asked: Study | None = None
    if study is None:
        points = [Point(_composed(tuple(line))) for line in command_lines]
    else:
        asked = with_reference(checked_study(*study))
        points = [_point(asked, row, line) for line in command_lines for row in asked.rows]
    composed = [point.composed for point in points]
    stores = {point.config["store"] for point in composed}
    if len(stores) > 1:
        raise rejected("store", sorted(stores), "one folder for all runs of a sweep")
    if any(point.config["wandb"] != composed[0].config["wandb"] for point in composed):
        raise InputError("wandb: must be the same for all runs of a sweep")
    if any(point.config[SWEEP_NAME] != composed[0].config[SWEEP_NAME] for point in composed):
        raise InputError(f"{SWEEP_NAME}: must be the same for all runs of a sweep")
    store = Store(checked(stores.pop()))
    runs: dict[tuple[str, str], Run] = {}
    for point in points:
        if here:
            devices.check(point.composed.config["device"])
        run = _with_row(_run(point.composed, store), point)
        first = runs.setdefault((run.name, run.evaluation_id), run)
        if first.row != run.row:
            raise InputError(
                f"study={asked.name if asked else None}: rows {first.row} and {run.row} are the same run; remove one of"
                " them, or an override on the command line that makes them equal"
            )
    names = {run.name for run in runs.values()}
    bases: dict[str, Run] = {}
    for run in runs.values():
        for base in ancestors(run):
            if base.name not in names:
                bases[base.name] = base
    return Plan(tuple(runs.values()), tuple(bases.values()), store, asked)


def _point(study: Study, row: StudyRow, line: Sequence[str]) -> Point:
    """Combine a row of a study with a command line, which can override values of the row."""
    typed = without_groups(line, ("study", "sweep"))
    if len(without_groups(typed, ("policy",))) < len(typed):
        raise InputError(f"policy: must be left out with +study={study.name}, because its rows choose the policies")
    own = (f"policy={row.policy}", *row.overrides)
    try:
        return Point(_composed((*own, *typed)), row)
    except InputError as error:
        _composed_row(study, row, own)  # is the row itself wrong?
        raise error from None


def _composed_row(study: Study, row: StudyRow, line: tuple[str, ...]) -> None:
    try:
        _composed(line)
    except InputError as error:
        raise InputError(f"study={study.name}: row {row.title}: {error}") from None


def _with_row(run: Run, point: Point) -> Run:
    """Add to a run its row in the study, and how it differs from it."""
    if point.row is None:
        return run
    usual = _pristine(point.composed, point.row.overrides)
    changed = _overrides(point.composed, usual, run.identity["data"]["sha256"], run.identity.get("base"))
    return replace(run, row=point.row.title, changed=changed)


def ancestors(run: Run) -> list[Run]:
    """Return the base of a run, the base of its base and so on, the last of them first."""
    return [*ancestors(run.base), run.base] if isinstance(run.base, Run) else []


def _run(point: Composed, store: Store, children: tuple[str, ...] = (), checked: bool = True) -> Run:
    """Return the run of one point. A run that is only compared with another is not `checked` against the data."""
    config = point.config
    data = build.dataset(config)
    if checked:
        build.check_data(config, data, evaluated=not children)
    base, base_identity = _base(point, store, (*children, point.policy), checked)
    usual = None if children else _pristine(point)  # overrides are only shown for requested runs
    run = Run(
        policy=point.policy,
        identity=_identity(config, data.sha256, base_identity),
        config=config,
        base=base,
        overrides=_overrides(point, usual, data.sha256, base_identity) if usual else {},
        line=own_line(point),
        sources=own_sources(config),
        usual_evaluation={key: usual.config["evaluation"][key] for key in PAPER_ATTACK} if usual else {},
    )
    if checked and not store.run(run.name).begun:  # its model was checked when it began
        build.check_model(config, data)
    return run


def own_sources(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the source files outside bnft that the model, the attack and the schedule's shape use; see `sources.of`.

    The source of the data set is left out, because the hash of its content is part of the identity.
    """
    components = {"model": config["model"], "attack": config["attack"], "schedule.shape": config["schedule"]["shape"]}
    files_of_each = [sources.of(key, component["_target_"]) for key, component in components.items() if component]
    return {name: value for of_one in files_of_each for name, value in sorted(of_one.items())}


def edited_sources(run: Run) -> list[str]:
    """Return the source files of a user's own components that have changed since the run was planned."""
    sources.forget()
    now, planned = own_sources(run.config), run.sources
    return sorted(name for name in {*now, *planned} if now.get(name) != planned.get(name))


def _sourced(key: str, component: Mapping[str, Any]) -> dict[str, Any]:
    """Return a component for the identity, with the hash of its source."""
    return {**component, identity.SOURCE: sources.digest(sources.of(key, component["_target_"]))}


def _identity(config: dict[str, Any], sha256: str, base: dict[str, Any] | None) -> dict[str, Any]:
    parts = identity.parts(config)
    attack, schedule = parts["attack"], parts["schedule"]
    sourced = {
        "model": _sourced("model", parts["model"]),
        "data": {"sha256": sha256, **parts["data"]},
        "attack": _sourced("attack", attack) if attack else None,
        "schedule": {**schedule, "shape": _sourced("schedule.shape", schedule["shape"])},
    }
    return identity.of_run(**{**parts, **sourced}, base=base)


def _base(
    point: Composed, store: Store, chain: tuple[str, ...], checked: bool = True
) -> tuple[Run | ModelFile | None, dict[str, Any] | None]:
    """Return the run or file that `base` names, and its part of the identity."""
    base = point.config["base"]
    if base is None:
        return None, None
    if base in policies():
        if base in chain:
            raise rejected("base", base, f"a policy that does not start from itself ({' from '.join([*chain, base])})")
        try:
            run = _run(_composed(tuple(base_overrides(point, base))), store, chain, checked)
        except InputError as error:
            raise InputError(f"base={base}: {error}") from None
        if checked and run.config["model"] != point.config["model"]:
            check_fits(build.model(run.config, build.dataset(run.config)).state_dict(), point.config, base)
        return run, run.identity
    if (store.run(base).path / layout.CONFIG).is_file():
        return _stored(store.run(base).path, point)
    path = as_path(base)
    if path is None:
        known = "a policy (`bnft run --help` lists them)"
        raise rejected("base", base, f"{known}, a run in {store.root}, a folder, or a .safetensors file")
    if path.is_dir() and (path / layout.CONFIG).is_file():
        return _stored(path, point)
    return _file(path / layout.MODEL if path.is_dir() else path, point)


def _stored(path: Path, point: Composed) -> tuple[ModelFile, dict[str, Any]]:
    """Return the model file of a trained run, and the run's identity."""
    folder = Store(path.parent).run(path.name)
    record = folder.record()
    if not folder.trained:
        raise rejected("base", point.config["base"], f"a trained run; {path} has no {layout.MODEL} yet")
    base, _ = _file(path / layout.MODEL, point, folder)
    return base, record.identity


def _file(file: Path, point: Composed, run: RunFolder | None = None) -> tuple[ModelFile, dict[str, Any]]:
    """Return a file of weights, and its part of the identity. `run` is the run that it belongs to, if known."""
    if not file.is_file():  # a pipe or a device could be read forever
        raise rejected("base", point.config["base"], f"a folder with {layout.MODEL}, or a .safetensors file")
    try:
        state, _ = run.model() if run is not None else files.read_tensors(file)
    except (DamagedError, OSError) as error:  # OSError if a file cannot be mapped, such as one in /proc
        raise InputError(f"base={point.config['base']}: must be a .safetensors file with weights; {error}") from None
    check_fits(state, point.config, str(point.config["base"]))
    sha256 = files.sha256(file)
    return ModelFile(file, sha256), {"sha256": sha256}


def check_fits(state: dict[str, Any], config: dict[str, Any], base: str) -> None:
    """Raise InputError unless the tensors of a base have the names and shapes of the configured model."""
    expected = build.model(config, build.dataset(config)).state_dict()
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        what = f"{missing[0]} is missing" if missing else f"{extra[0]} is not part of the model"
        raise InputError(f"base={base}: must fit the model: {what} ({len(missing)} missing, {len(extra)} too many)")
    for name, value in expected.items():
        if value.shape != state[name].shape:
            shape, wanted = tuple(state[name].shape), tuple(value.shape)
            raise InputError(f"base={base}: must fit the model: {name} has shape {shape} and must have {wanted}")


def _pristine(point: Composed, row: Sequence[str] = ()) -> Composed:
    """Return the policy of a run with the same data, model, schedule and seed, but without other overrides.

    The overrides of `row`, a row of a study, are kept.
    """
    line = pristine_overrides(point, row)
    return point if sorted(line) == sorted(point.overrides) else _composed(tuple(line))


def _overrides(point: Composed, usual: Composed, sha256: str, base: dict[str, Any] | None) -> dict[str, Any]:
    """Return the values in which a run differs from its policy, apart from those that a row of the paper leaves free.

    `usual` is the policy with the same free values.
    """
    if usual is point:
        return {}
    own, standard = point.config, usual.config
    _, usual_base = _base(usual, Store(own["store"]), (point.policy,), checked=False)  # only to compare with
    ours, theirs = (
        identity.without(_identity(config, sha256, origin), "model", "data", "schedule", "monitor", "seed")
        for config, origin in ((own, base), (standard, usual_base))
    )
    different = identity.differences(identity.without_source(ours), identity.without_source(theirs))
    if own["base"] != standard["base"] and any(key.split(".")[0] == "base" for key in different):
        different = {key: value for key, value in different.items() if key.split(".")[0] != "base"}
        different["base"] = own["base"]
    return different | _other_evaluation(own["evaluation"], standard["evaluation"])


def _other_evaluation(own: Mapping[str, Any], standard: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of PAPER_ATTACK in which an evaluation differs from another one."""
    evaluations = [{key: one.get(key) for key in PAPER_ATTACK} for one in (own, standard)]
    return identity.differences(evaluations[0], evaluations[1], "evaluation.")
