"""Small pieces that everything else rests on: identities, rules, intervals, schedules, random numbers, Equation 1."""

import copy
import errno
import math
import os
from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from bnft.batchnorm.log import BatchNormLog, layer_eps, quantities
from bnft.batchnorm.record import RECORDED, normalized
from bnft.common import devices, files, intervals
from bnft.common.canonical import canonical
from bnft.common.constraints import above, at_least, at_most, below, in_words, list_of, not_empty, number, one_of
from bnft.common.errors import InputError
from bnft.common.randomness import generator, global_seed, seed_for
from bnft.runs import identity
from bnft.runs.store import Store
from bnft.training import shapes

# identity


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": 2}, '{"a":2,"b":1}'),
        ({"a": {"d": [1, 2], "c": "x y"}}, '{"a":{"c":"x y","d":[1,2]}}'),
        ({"a": None, "b": {}, "c": {"d": None, "e": {"f": {}}}}, "{}"),
        ({"a": [None, {"b": None}], "c": []}, '{"a":[null,{}],"c":[]}'),
        ({"a": (1, 2)}, '{"a":[1,2]}'),
        ({"a": False, "b": 0, "c": ""}, '{"a":false,"b":0,"c":""}'),
        ({"lr": 5e-4, "eps": 8 / 255, "final": 0.0}, '{"eps":0.03137254901960784,"final":0.0,"lr":0.0005}'),
        ({"name": "é"}, '{"name":"\\u00e9"}'),
        ({1: "a"}, '{"1":"a"}'),
    ],
)
def test_canonical_form(value, text):
    assert canonical(value) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_has_no_canonical_form(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"lr": value})


def run(**changes: Any) -> dict[str, Any]:
    """The identity of a run, as it would be composed, with changes."""
    parts = {
        "model": {"_target_": "bnft.models.resnet.ResNet", "channels": 1, "width": 16, "blocks": [1, 1, 1]},
        "data": {"sha256": "3fe9", "augmentation": "none", "mean": None, "std": None},
        "freeze_policy": {"parameters": ["batchnorm", "logits"], "statistics": "update"},
        "attack": {"_target_": "bnft.attacks.pgd.pgd", "eps": 0.15, "iterations": 10},
        "schedule": {"epochs": 20, "lr": 0.05, "shape": {"_target_": "bnft.schedules.one_cycle"}},
        "precision": "auto",
        "seed": 0,
        "base": None,
    }
    return identity.of_run(**{**parts, **changes})


def test_these_names_never_change():
    """A change of the canonical form would lose every run that anybody has kept."""
    assert identity.digest({}) == "44136fa355"
    assert identity.digest(run()) == "d65eb62f51"
    assert identity.digest(run(attack=None, base=run(seed=3))) == "ba013bc0e1"


@pytest.mark.parametrize(
    "changes",
    [
        {"freeze_policy": {"statistics": "update", "parameters": ["logits", "batchnorm"]}},
        {"freeze_policy": {"parameters": ["logits", "batchnorm", "logits"], "statistics": "update"}},
        {"data": {"sha256": "3fe9", "augmentation": "none"}},
        {"data": {"sha256": "3fe9", "augmentation": "none", "later": None, "options": {}}},
        {"base": {}},
    ],
)
def test_what_says_the_same_has_the_same_name(changes):
    assert identity.digest(run(**changes)) == identity.digest(run())


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"precision": "fp32"},
        {"attack": None},
        {"base": {"sha256": "00"}},
        {"freeze_policy": {"parameters": ["batchnorm"], "statistics": "update"}},
        {"model": {"_target_": "bnft.models.resnet.ResNet", "channels": 1, "width": 16, "blocks": [1, 1]}},
        {"data": {"sha256": "3fe8", "augmentation": "none"}},
    ],
)
def test_what_says_something_else_has_another_name(changes):
    assert identity.digest(run(**changes)) != identity.digest(run())


def test_the_protocol_is_part_of_every_name(monkeypatch):
    names = identity.digest(run()), identity.digest(identity.of_evaluation({"attack": "pgd"}))
    monkeypatch.setattr(identity, "PROTOCOL", identity.PROTOCOL + 1)
    assert identity.digest(run()) != names[0]
    assert identity.digest(identity.of_evaluation({"attack": "pgd"})) != names[1]


def test_no_attack_leaves_no_field():
    assert "attack" not in run(attack=None) and "base" not in run()


def test_of_run_leaves_its_arguments_alone():
    policy = {"parameters": ["logits", "batchnorm"], "statistics": "update"}
    run(freeze_policy=policy)
    assert policy == {"parameters": ["logits", "batchnorm"], "statistics": "update"}


def test_an_evaluation_option_that_is_null_changes_no_name():
    plain = identity.of_evaluation({"attack": "pgd", "eps": 0.15})
    assert identity.of_evaluation({"eps": 0.15, "attack": "pgd", "restarts": None}) == plain
    assert identity.of_evaluation({"attack": "pgd", "eps": 0.1}) != plain


def test_without_reaches_into_the_bases():
    nested = run(base=run(base=run(seed=1), seed=1), seed=1)
    reduced = identity.without(nested, "seed", "schedule")
    for level in (reduced, reduced["base"], reduced["base"]["base"]):
        assert "seed" not in level and "schedule" not in level and "model" in level
    assert nested["base"]["seed"] == 1, "the original must stay as it is"
    assert "base" not in identity.without(nested, "base")


def test_a_bases_seed_stays_where_it_is_not_the_runs_own():
    """Else runs from one base and runs from another would be taken for seeds of one experiment."""
    same, other = run(seed=1, base=run(seed=1)), run(seed=1, base=run(seed=0))
    assert identity.without(same, "seed") == identity.without(run(seed=2, base=run(seed=2)), "seed")
    assert identity.without(same, "seed") != identity.without(other, "seed")


def test_differences():
    ours = run(seed=1, attack=None, base=run(seed=1))
    theirs = run(base=run(seed=2, precision="fp32"))
    assert identity.differences(ours, ours) == {}
    assert identity.differences(ours, theirs) == {
        "attack": None,
        "base.precision": "auto",
        "base.seed": 1,
        "seed": 1,
    }
    assert identity.differences({}, {"a": {"b": 1}}) == {"a": None}
    assert identity.differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, "root.") == {"root.a.c": 2}


# rules


def checked(annotation: Any, value: Any) -> Any:
    return TypeAdapter(annotation).validate_python(value)


@pytest.mark.parametrize(
    ("given", "value"),
    [(0.03, 0.03), ("0.03", 0.03), ("8/255", 8 / 255), (" 8 / 255 ", 8 / 255), ("3e-2", 0.03), (1, 1.0), ("1", 1.0)],
)
@pytest.mark.parametrize("kind", [float, Any])
def test_a_number_may_be_a_fraction(kind, given, value):
    found = checked(Annotated[kind, number, above(0)], given)
    assert found == value and type(found) is float


@pytest.mark.parametrize("given", ["a", "", "1/0", "1/2/3", "nan", "inf", math.nan, math.inf, "1e999", True, [1], {}])
@pytest.mark.parametrize("kind", [float, Any])
def test_what_is_not_a_finite_number_is_refused(kind, given):
    with pytest.raises(ValidationError, match=r"a number|finite"):
        checked(Annotated[kind, number], given)


@pytest.mark.parametrize(
    ("rule", "allowed", "refused", "words"),
    [
        (at_least(0), [0, 0.1, 7], [-1, -1e-9], "at least 0"),
        (above(0), [1e-9, 1], [0, -1], "above 0"),
        (below(1), [0, 0.999], [1, 2], "below 1"),
        (at_most(0.5), [0.5, -1], [0.51], "at most 0.5"),
        (one_of("Linf", "L2"), ["Linf", "L2"], ["L1", "linf", ""], "one of Linf, L2"),
        (list_of("a", "b"), [["a"], ["b", "a", "a"], []], [["a", "c"], "c"], "a list of a, b"),
        (not_empty, [[0], "a"], [[], ""], "not empty"),
    ],
)
def test_rules(rule, allowed, refused, words):
    assert rule.words == words
    for value in [*allowed, None]:
        assert checked(Annotated[Any, rule], value) == value
    for value in refused:
        with pytest.raises(ValidationError, match=words):
            checked(Annotated[Any, rule], value)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "a whole number"),
        (Annotated[int, at_least(0)], "a whole number, at least 0"),
        (Annotated[float, number, above(0), at_most(1)], "a number, above 0, at most 1"),
        (Annotated[Any, number, above(0)], "a number, above 0"),
        (Annotated[str, one_of("eval", "train")], "one of eval, train"),
        (Literal["worst", "last"], "one of worst, last"),
        (bool, "true or false"),
        (int | None, "a whole number or null"),
        (dict[str, Any], "a mapping"),
        (Any, ""),
    ],
)
def test_rules_in_words(annotation, words):
    assert in_words(annotation) == words


@pytest.mark.parametrize(
    ("annotation", "parts"),
    [
        (Annotated[int | None, at_least(1)], ["a whole number", "null", "at least 1"]),
        (list[Annotated[int, at_least(1)]], ["a list", "each a whole number, at least 1"]),
        (Annotated[list[float], not_empty], ["a list", "each a number", "not empty"]),
    ],
)
def test_rules_of_parts_in_words(annotation, parts):
    assert all(part in in_words(annotation) for part in parts)


# intervals


@pytest.mark.parametrize(
    ("errors", "images", "low", "high"),
    [
        (0, 10, 0.0, 27.75),
        (10, 10, 72.25, 100.0),
        (5, 10, 23.66, 76.34),
        (267, 900, 26.77, 32.73),
        (705, 1000, 67.60, 73.24),
    ],
)
def test_wilson(errors, images, low, high):
    """The first three stand in many tables; the last two are BN PARAMS in the paper, about +-3.0 and +-2.8."""
    assert intervals.wilson(errors, images) == pytest.approx((low, high), abs=0.006)


@pytest.mark.parametrize(  # Newcombe (1998), table II, method 10
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 5.24, 33.39),
        ((9, 10), (3, 10), 17.05, 80.90),
        ((10, 10), (0, 20), 67.91, 100.0),
        ((0, 10), (0, 10), -27.75, 27.75),
    ],
)
def test_unpaired(first, second, low, high):
    expected = 100 * (first[0] / first[1] - second[0] / second[1])
    assert intervals.unpaired(first, second) == pytest.approx((expected, low, high), abs=0.006)
    assert intervals.unpaired(second, first) == pytest.approx((-expected, -high, -low), abs=0.006)


def test_wilson_of_nothing_excludes_nothing():
    assert intervals.wilson(0, 0) == (0.0, 100.0)


@pytest.mark.parametrize("images", [1, 3, 1000])
def test_wilson_is_symmetric_and_contains_the_rate(images):
    for errors in {0, 1, images // 2, images}:
        low, high = intervals.wilson(errors, images)
        assert 0 <= low <= 100 * errors / images + 1e-9 and 100 * errors / images - 1e-9 <= high <= 100
        assert intervals.wilson(images - errors, images) == pytest.approx((100 - high, 100 - low))


def agresti_min(first: int, second: int, neither_or_both: int) -> tuple[float, float]:
    """Agresti and Min (2005), in their own terms: half an image is added to each cell of the 2 x 2 table."""
    b, c = first + 0.5, second + 0.5
    n = first + second + neither_or_both + 2
    half = 1.959964 * math.sqrt((b + c) - (b - c) ** 2 / n) / n
    return 100 * ((b - c) / n - half), 100 * ((b - c) / n + half)


@pytest.mark.parametrize(("first", "second", "rest"), [(12, 5, 83), (0, 0, 50), (40, 0, 160), (3, 3, 4), (1, 0, 0)])
def test_paired(first, second, rest):
    differences = [1] * first + [0] * rest + [-1] * second
    middle, low, high = intervals.paired(differences)
    assert middle == pytest.approx(100 * (first - second) / len(differences))
    expected_low, expected_high = agresti_min(first, second, rest)
    assert (low, high) == pytest.approx((max(-100, expected_low), min(100, expected_high)), abs=1e-4)
    assert low < middle < high or (middle, high) == (100, 100)
    assert intervals.paired([-value for value in differences]) == pytest.approx((-middle, -high, -low))


def test_paired_differences_stay_within_all_images():
    middle, low, high = intervals.paired([1.0] * 30)
    assert middle == 100 == high and 80 < low < 100


def test_paired_without_images_excludes_hardly_anything():
    middle, low, high = intervals.paired([])
    assert middle == 0 and low < -95 and high > 95


def test_paired_over_seeds_is_narrower_than_with_one():
    """Means over seeds vary less than single outcomes with the same mean."""
    one, several = intervals.paired([1, 0] * 50), intervals.paired([0.5] * 100)
    assert one[0] == several[0] == 50
    assert several[2] - several[1] < one[2] - one[1]


# schedules


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(0, 1), (59, 1), (60, 0.1), (89, 0.1), (90, 0.01), (119, 0.01), (120, 0.001), (149, 0.001), (150, 0.001)],
)
def test_step_divides_by_ten_at_epochs_60_90_and_120_of_150(epoch, factor):
    assert shapes.step(epoch / 150) == pytest.approx(factor, rel=1e-12)


def test_step_takes_milestones_in_any_order_and_any_factor():
    assert [shapes.step(p, [0.5, 0.25], 0.5) for p in (0.2, 0.25, 0.5, 1.0)] == [1.0, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine(final):
    assert shapes.cosine(0.0, final) == 1
    assert shapes.cosine(0.5, final) == pytest.approx((1 + final) / 2)
    assert shapes.cosine(1.0, final) == pytest.approx(final)
    assert 0.99 < shapes.cosine(0.01, final) < 1, "it starts flat"


@pytest.mark.parametrize(("warmup", "start", "final"), [(0.25, 0.05, 0.0), (0.4, 0.0, 0.1)])
def test_one_cycle(warmup, start, final):
    def rate(progress: float) -> float:
        return shapes.one_cycle(progress, warmup, start, final)

    assert rate(0.0) == start
    assert rate(warmup / 2) == pytest.approx((start + 1) / 2)
    assert rate(warmup) == pytest.approx(1) == rate(warmup - 1e-9)
    assert rate((1 + warmup) / 2) == pytest.approx((1 + final) / 2)
    assert rate(1.0) == pytest.approx(final)
    assert max(rate(step / 100) for step in range(101)) <= 1 + 1e-12


# random numbers

CPU = torch.device("cpu")


def test_every_draw_has_a_stream_of_its_own():
    places = [
        (seed, purpose, epoch, step)
        for seed in (0, 1, 10)
        for purpose in ("order", "attack", "evaluation/1")
        for epoch in (0, 1, 11)
        for step in (0, 1, 11)
    ]
    assert len({seed_for(*place) for place in places}) == len(places)
    draws = {tuple(torch.rand(4, generator=generator(CPU, *place)).tolist()) for place in places}
    assert len(draws) == len(places)


def test_the_same_place_draws_the_same():
    first, again = (torch.rand(9, generator=generator(CPU, 3, "order", 2, 1)) for _ in range(2))
    assert torch.equal(first, again)


def test_the_streams_never_change():
    """Other seeds would give every run other numbers under its old name."""
    assert seed_for(0, "init") == 2559000112367765771
    assert seed_for(3, "order", epoch=2, step=1) == 3569082223683944638
    assert 0 <= seed_for(0, "init") < 2**63


def test_global_seed_depends_on_seed_and_purpose_and_puts_the_state_back():
    def drawn(seed: int, purpose: str) -> torch.Tensor:
        before = torch.get_rng_state()
        with global_seed(seed, purpose):
            values = torch.rand(5)
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(1)
        return values

    first = drawn(0, "init")
    assert torch.equal(drawn(0, "init"), first)
    assert not torch.equal(drawn(1, "init"), first)
    assert not torch.equal(drawn(0, "other"), first)


def test_global_seed_puts_the_state_back_after_an_exception():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), global_seed(0, "init"):
        torch.rand(1 // 0)
    assert torch.equal(torch.get_rng_state(), before)


# BN as one affine map


def used(layer: nn.modules.batchnorm._BatchNorm) -> nn.modules.batchnorm._BatchNorm:
    """A BN layer whose every number differs from where it starts."""
    draws = torch.Generator().manual_seed(0)
    for tensor in (layer.weight, layer.bias, layer.running_mean):
        if tensor is not None:
            nn.init.normal_(tensor, generator=draws)
    if layer.running_var is not None:
        layer.running_var.uniform_(1e-4, 3, generator=draws)
    return layer.eval()


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_equation_1(eps):
    """BN(z) = m z + b in eval mode, with m = gamma / sqrt(variance + eps) and b = beta - gamma mean / sqrt(...)."""
    layer, inputs = used(nn.BatchNorm2d(6, eps=eps)), torch.randn(4, 6, 3, 3)
    weight, bias = normalized(**quantities(layer), eps=eps)
    torch.testing.assert_close(weight[:, None, None] * inputs + bias[:, None, None], layer(inputs))


def test_equation_1_on_a_record_of_several_epochs():
    layers = [used(nn.BatchNorm2d(6)), nn.BatchNorm2d(6)]
    stacked = {name: torch.stack([quantities(layer)[name] for layer in layers]) for name in RECORDED}
    weight, bias = normalized(**stacked, eps=1e-5)
    assert weight.shape == bias.shape == (2, 6)
    for row, layer in enumerate(layers):
        one = normalized(**quantities(layer), eps=1e-5)
        assert torch.equal(weight[row], one[0]) and torch.equal(bias[row], one[1])


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": False}])
def test_quantities_that_a_layer_does_not_have(options):
    layer = used(nn.BatchNorm2d(4, **options))
    found = quantities(layer)
    assert tuple(found) == RECORDED and all(value.shape == (4,) for value in found.values())
    defaults = {"gamma": 1.0, "beta": 0.0} if "affine" in options else {"mean": 0.0, "variance": 1.0}
    assert all((found[name] == value).all() for name, value in defaults.items())


def test_quantities_are_copies():
    layer = used(nn.BatchNorm2d(4))
    before = quantities(layer)
    kept = copy.deepcopy(before)
    with torch.no_grad():
        layer.weight += 1
        layer.running_var += 1
    assert all(torch.equal(before[name], kept[name]) for name in RECORDED)
    assert not any(value.requires_grad for value in before.values())


def logged(epochs: int) -> tuple[BatchNormLog, nn.Module]:
    """A record of two BN layers, of which one moves by one each epoch."""
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5, eps=0.5))
    log = BatchNormLog()
    for epoch in range(epochs + 1):
        log.append(epoch, model)
        model[0].running_mean += 1
    return log, model


def test_log_has_a_row_an_epoch_and_a_column_a_channel():
    log, model = logged(3)
    stacked = log.stacked()
    assert set(stacked) == {"epochs", *(f"{layer}.{quantity}" for layer in "02" for quantity in RECORDED)}
    assert stacked["epochs"].tolist() == [0, 1, 2, 3]
    assert stacked["0.gamma"].shape == (4, 3) and stacked["2.variance"].shape == (4, 5)
    assert stacked["0.mean"][:, 1].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert layer_eps(model) == {"0": 1e-5, "2": 0.5}


def assert_same_log(found: BatchNormLog, expected: BatchNormLog):
    first, second = found.stacked(), expected.stacked()
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) and value.dtype == second[name].dtype for name, value in first.items())


def test_log_round_trip_goes_on_where_it_ended():
    log, model = logged(2)
    again = BatchNormLog.from_stacked(log.stacked())
    assert_same_log(again, log)
    again.append(3, model)
    log.append(3, model)
    assert_same_log(again, log)


def test_up_to_keeps_what_a_resumed_run_keeps():
    log, _ = logged(3)
    kept = log.up_to(1)
    assert_same_log(kept, logged(1)[0])
    kept.append(2, nn.Sequential())
    assert log.epochs == [0, 1, 2, 3], "the record that it came from must stay as it is"
    assert_same_log(log.up_to(9), log)


def test_log_of_a_model_without_bn():
    log = BatchNormLog()
    log.append(0, nn.Linear(2, 2))
    assert_same_log(BatchNormLog.from_stacked(log.stacked()), log)
    assert list(log.stacked()) == ["epochs"]


# devices


def test_an_absent_device_is_refused():
    with pytest.raises(InputError, match=r"^device=cuda:99: must be one of auto, cpu"):
        devices.choose("cuda:99", "fp32", None)


@pytest.mark.parametrize(("fast", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_is_bf16_where_it_is_fast(monkeypatch, fast, precision):
    monkeypatch.setattr(devices, "has_fast_bf16", lambda device: fast)
    assert devices.choose("cpu", "auto", 3) == devices.Hardware(CPU, precision, 3)
    assert devices.choose("cpu", "fp32", 3).precision == "fp32"


def test_all_available_threads_are_used_unless_told():
    assert devices.choose("cpu", "fp32", None).threads == devices.available_threads() >= 1
    assert devices.choose("cpu", "fp32", 1).describe() == "cpu, fp32, 1 thread"


def test_a_slurm_task_uses_the_cpus_that_it_was_given(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert devices.available_threads() == 3
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    assert devices.available_threads() == len(os.sched_getaffinity(0))


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with (
        pytest.raises(InputError, match="must be on a file system with locks"),
        Store(tmp_path).locked("a", stop, stop),
    ):
        pass


def stop() -> None:
    pytest.fail("nobody holds the lock")


def test_what_a_killed_write_left_behind_is_cleared_away(tmp_path):
    folder = Store(tmp_path).run("normal-0123456789")
    below = folder.path / "evaluation" / "0123456789" / f".cascade.safetensors.1{files.TEMPORARY}"
    here = folder.path / f".history.jsonl.1{files.TEMPORARY}"
    for leftover in (below, here):
        leftover.parent.mkdir(parents=True, exist_ok=True)
        leftover.write_bytes(b"half")
    (folder.path / "config.yaml").write_text("run: {}")
    files.remove_temporary(folder.path)
    assert [file.name for file in folder.path.rglob("*") if file.is_file()] == ["config.yaml"]
