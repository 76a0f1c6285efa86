"""Figures 1 and 2 and what the paper says of distributions, on records whose answers are known."""

import json
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import made_up

from bnft.batchnorm.record import QUANTITIES, BatchNormRecord
from bnft.common import files
from bnft.report import channels, recorded
from bnft.report.distributions import bootstrap, common_edges, histograms, layer_means, mean_difference
from bnft.runs.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "multirun")


def record(epochs: list[int], eps: float = 0.0, **layers: dict[str, Any]) -> BatchNormRecord:
    arrays: dict[str, Any] = {"epochs": np.array(epochs)}
    for layer, given in layers.items():
        shape = np.shape(next(iter(given.values())))
        for quantity, usual in made_up.USUAL.items():
            arrays[f"{layer}.{quantity}"] = np.asarray(given.get(quantity, np.full(shape, usual)), np.float32)
    return BatchNormRecord(arrays, dict.fromkeys(layers, eps))


def read(store: Store) -> dict[str, recorded.RowRecords]:
    return {policy: recorded.read(row) for policy, row in made_up.rows(store).items()}


# Figure 1


def test_histograms_count_every_channel_on_common_edges() -> None:
    first = record([0, 1], bn={"gamma": [[0.0, 1.0, 2.0, 3.0], [4.0, 4.0, 4.0, 4.0]]})
    second = record([0], bn={"gamma": [[0.0, 0.0, 4.0, 2.5]]})
    found = histograms([first, second], "bn", "gamma", bins=4)
    assert found is not None
    assert found.edges == pytest.approx((0, 1, 2, 3, 4), abs=0.1) and not found.log10
    assert found.epochs == ((0, 1), (0,))
    assert found.counts == (((1, 1, 1, 1), (0, 0, 0, 4)), ((2, 0, 1, 1),))
    json.dumps(asdict(found))


def test_histograms_can_have_the_edges_of_some_records_and_count_all() -> None:
    first, second = record([0], bn={"gamma": [[0.0, 1.0]]}), record([0], bn={"gamma": [[-9.0, 9.0]]})
    found = histograms([first, second], "bn", "gamma", bins=2, within=[first])
    assert found is not None
    assert found.edges == pytest.approx((0, 0.5, 1), abs=0.01)
    assert found.counts == (((1, 1),), ((1, 1),)) and found.beyond == 4


def test_histograms_of_m_use_equation_1_with_the_layers_eps() -> None:
    one = record([0], eps=1.0, bn={"gamma": [[2.0, 6.0]], "variance": [[3.0, 8.0]], "mean": [[1.0, 2.0]]})
    m, b = (histograms([one], "bn", quantity, bins=2) for quantity in ("m", "b"))
    assert m is not None and m.counts == (((1, 1),),)
    assert (m.edges[0], m.edges[-1]) == pytest.approx((1.0, 2.0), abs=0.01)  # 2 / sqrt(3 + 1), 6 / sqrt(8 + 1)
    assert b is not None and (b.edges[0], b.edges[-1]) == pytest.approx((-4.0, -1.0), abs=0.03)  # - m * mean


def test_outliers_stretch_nothing_and_are_counted() -> None:
    values = np.concatenate([np.linspace(0, 1, 998), [1e6, -1e6]])[None]
    found = histograms([record([0], bn={"beta": values})], "bn", "beta")
    assert found is not None
    assert found.edges[0] >= 0 and found.edges[-1] <= 1 and len(found.edges) == 41
    ((line,),) = found.counts
    assert sum(line) == 1000 and max(line) < 40
    assert found.beyond == 10  # half a percent at either end
    assert found.not_finite == 0


def test_variance_on_a_logarithmic_scale() -> None:
    found = histograms([record([0], bn={"variance": [[1e-4, 0.03, 1.0, 0.0]]})], "bn", "variance", bins=4, log10=True)
    assert found is not None and found.log10
    assert np.diff(np.log10(found.edges)) == pytest.approx(0.99, abs=0.02)
    assert found.counts == (((2, 0, 1, 1),),)  # zero has no logarithm


def test_channels_that_are_all_alike_or_not_finite() -> None:
    alike = histograms([record([0], bn={"gamma": [[1.0, 1.0]]})], "bn", "gamma", bins=5)
    assert alike is not None and alike.counts == (((0, 0, 2, 0, 0),),)
    diverged = record([0, 1], bn={"gamma": [[0.0, 1.0], [np.nan, np.inf]]})
    found = histograms([diverged], "bn", "gamma", bins=2)
    assert found is not None and found.counts == (((1, 1), (0, 0)),) and found.not_finite == 2
    nothing = histograms([record([0], bn={"gamma": [[np.nan]]})], "bn", "gamma", bins=2)
    assert nothing is not None and nothing.counts == (((0, 0),),)
    assert len(common_edges(np.zeros(0))) == 41


def test_layers_that_a_record_does_not_have() -> None:
    one, other = record([0], bn={"gamma": [[1.0]]}), record([0], norm={"gamma": [[1.0]]})
    found = histograms([one, other], "norm", "gamma")
    assert found is not None and found.counts[0] == () and sum(found.counts[1][0]) == 1
    assert histograms([one, other], "stem", "gamma") is None
    assert histograms([], "bn", "gamma") is None


@pytest.mark.parametrize(
    ("logged", "most", "expected"), [(3, 16, [0, 1, 2]), (1, 16, [0]), (151, 4, [0, 50, 100, 150])]
)
def test_epochs_of_a_long_training_keep_the_first_and_the_last(logged: int, most: int, expected: list[int]) -> None:
    assert recorded.picked(range(logged), most) == expected


def test_epochs_end_with_the_one_that_was_kept() -> None:
    assert recorded.picked(range(151), 4, kept=90) == [0, 30, 60, 90]


@pytest.mark.parametrize("kept", [1, None])
def test_a_row_ends_with_the_epoch_that_was_kept(store: Store, kept: int | None) -> None:
    folder = made_up.run(store, "adv", layers={"bn": {"gamma": [[0.0], [1.0], [2.0]]}}, epochs=[0, 1, 2])
    path = folder.path / "batchnorm.safetensors"
    tensors, record = files.read_tensors(path)
    files.write_tensors(path, tensors, {**record, "kept": kept})
    end = read(store)["adv"].ends[0]
    assert end.values("bn", "gamma").tolist() == [1.0 if kept else 2.0]


def test_records_are_thinned_when_read(store: Store) -> None:
    epochs = list(range(0, 200, 2))
    made_up.run(store, "adv", layers={"bn": {"gamma": [[float(epoch)] for epoch in epochs]}}, epochs=epochs)
    found = read(store)["adv"].first
    assert found is not None and len(found.epochs) == recorded.EPOCHS
    assert (found.epochs[0], found.epochs[-1]) == (0, 198)
    assert found.values("bn", "gamma")[:, 0].tolist() == found.epochs  # values stay with their epochs


# Figure 2


def two_layers(first: float, second: float) -> made_up.Layers:
    """m with these means in two layers after training; before it, 1."""
    return {
        "stem": {"gamma": [[1.0, 1.0], [first - 1, first + 1]]},
        "head": {"gamma": [[1.0, 1.0], [2 * second, 2 * second]], "variance": [[1.0, 1.0], [4.0, 4.0]]},
    }


def test_mean_m_over_seeds(store: Store) -> None:
    for seed, (first, second) in enumerate([(1.0, 2.0), (3.0, 2.0)]):
        made_up.run(store, "adv", seed=seed, layers=two_layers(first, second))
    found = layer_means(read(store)["adv"].ends)
    assert found is not None and found.layers == ("stem", "head") and found.seeds == (0, 1)
    assert found.means == pytest.approx((2.0, 2.0))
    assert found.deviations == pytest.approx((2**0.5, 0.0))
    one = layer_means({0: read(store)["adv"].ends[0]})
    assert one is not None and one.deviations == (None, None)


def test_the_average_difference_pairs_equal_seeds(store: Store) -> None:
    for seed, shift in enumerate((0.0, 10.0)):  # what a seed adds to both rows drops out
        made_up.run(store, "bn_params", seed=seed, layers=two_layers(1.0 + shift, 0.5 + shift))
        made_up.run(store, "adv", seed=seed, layers=two_layers(2.0 + shift + seed, 0.0 + shift))
    made_up.run(store, "adv", seed=7, layers=two_layers(1000.0, 1000.0))
    records = read(store)
    found = mean_difference(records["bn_params"].ends, records["adv"].ends)
    assert found is not None and found.seeds == (0, 1)
    assert found.differences == pytest.approx((-1.5, 0.5)) and found.lower == 1
    assert found.average == pytest.approx(-0.5)
    assert found.deviation == pytest.approx(0.5 / 2**0.5)  # of -0.25 and -0.75
    assert found.interval[0] == pytest.approx(-1.5) and found.interval[1] == pytest.approx(0.5)
    turned = mean_difference(records["adv"].ends, records["bn_params"].ends)
    assert turned is not None and turned.average == pytest.approx(0.5)


def test_rows_without_a_common_seed_or_layer(store: Store) -> None:
    made_up.run(store, "bn_params", seed=0, layers=two_layers(1.0, 1.0))
    made_up.run(store, "adv", seed=1, layers=two_layers(2.0, 4.0))
    made_up.run(store, "normal", layers={"other": {"gamma": [[1.0]]}})
    made_up.run(store, "bn_only", layers={})
    records = read(store)
    found = mean_difference(records["bn_params"].ends, records["adv"].ends)
    assert found is not None and found.average == pytest.approx(-2.0)
    assert found.seeds == () and found.deviation is None
    for policy in ("normal", "bn_only"):
        assert mean_difference(records["bn_params"].ends, records[policy].ends) is None
    assert mean_difference({}, records["adv"].ends) is None
    assert layer_means(records["bn_only"].ends) is None and records["bn_only"].layers == []


def test_layers_that_diverged_are_left_out_of_the_difference(store: Store) -> None:
    made_up.run(store, "bn_params", layers=two_layers(np.nan, 1.0))
    made_up.run(store, "adv", layers=two_layers(0.0, 3.0))
    records = read(store)
    means = layer_means(records["bn_params"].ends)
    assert means is not None and list(means.means) == [None, pytest.approx(1.0)]
    found = mean_difference(records["bn_params"].ends, records["adv"].ends)
    assert found is not None and found.layers == ("head",) and found.average == pytest.approx(-2.0)


def test_a_run_that_diverged_raises_and_warns_of_nothing(store: Store) -> None:
    wild = [1.0, np.nan, np.inf, -np.inf]
    base = made_up.run(store, "normal", layers={"bn": {"gamma": [wild], "variance": [[0.0, -1.0, np.inf, 1.0]]}})
    layers = {"bn": {"gamma": [wild, wild], "mean": [wild, wild], "variance": [[0.0, 1.0, np.inf, np.nan]] * 2}}
    made_up.run(store, "bn_params", base=base, layers=layers)
    made_up.run(store, "adv", layers=layers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for record in read(store).values():
            assert record.first is not None
            for quantity in QUANTITIES:
                for log10 in (False, True):
                    found = histograms([record.first], "bn", quantity, log10=log10)
                    assert found is not None and np.isfinite(found.edges).all()
            assert layer_means(record.ends) is not None
            channels.turned_off(record)
        assert made_up.statements(store) == {}


def test_bootstrap_interval() -> None:
    values = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert bootstrap(values) == (low, high) and bootstrap(np.array([3.0])) == (3.0, 3.0)


# the statements


def spread(centre: float, width: float) -> list[float]:
    return [centre - width, centre - width / 2, centre, centre + width / 2, centre + width]


def before_and_after(store: Store, before: dict[str, list[float]], after: dict[str, list[float]], n: int = 1) -> None:
    """NORMAL with `before` in three layers, and BN PARAMS with `after` in the first n of them, `before` in the rest."""
    start = {f"bn{i}": {name: [values] for name, values in before.items()} for i in range(3)}
    tuned = {f"bn{i}": {name: [before[name], (after if i < n else before)[name]] for name in before} for i in range(3)}
    base = made_up.run(store, "normal", layers=start)
    made_up.run(store, "bn_params", layers=tuned, base=base)


@pytest.mark.parametrize(
    ("after", "layers", "verdict"),
    [
        (spread(0.0, 1.0), 2, "holds"),
        (spread(0.0, 1.0), 1, "does not hold"),
        (spread(0.0, 4.0), 2, "does not hold"),
        (spread(5.0, 1.0), 2, "holds in part"),  # narrower, but not around zero
    ],
)
def test_concentration_around_zero(store: Store, after: list[float], layers: int, verdict: str) -> None:
    before_and_after(store, {"beta": spread(0.0, 2.0)}, {"beta": after}, layers)
    found = made_up.statements(store)["mean_abs_beta: BN PARAMS, NORMAL"]
    assert found.verdict == verdict and found.of == 3
    sizes = [line["mean_size"] for line in found.details]
    assert sizes == pytest.approx([np.abs(after).mean() / 1.2] * layers + [1.0] * (3 - layers))
    assert found.details[0]["deviation"] == pytest.approx(np.std(after) / np.std(spread(0.0, 2.0)))
    assert (
        found.difference == pytest.approx(100 * (np.median(sizes) - 1)) and f"{np.median(sizes):.2f}" in found.measured
    )
    assert found.true == sum(size < 1 for size in sizes)


@pytest.mark.parametrize(
    ("factor", "layers", "verdict", "true"),
    [(0.1, 2, "holds", 2), (0.8, 3, "holds in part", 0), (0.1, 1, "does not hold", 1), (2.0, 3, "does not hold", 0)],
)
def test_collapse_of_the_variance(store: Store, factor: float, layers: int, verdict: str, true: int) -> None:
    start = [1.0, 2.0, 3.0, 4.0, 5.0]
    before_and_after(store, {"variance": start}, {"variance": [factor * value for value in start]}, layers)
    found = made_up.statements(store)["variance_range: BN PARAMS, NORMAL"]
    assert (found.verdict, found.true, found.of) == (verdict, true, 3)
    first = found.details[0]
    assert [first[name] for name in ("range", "median", "deviation")] == pytest.approx([factor] * 3)


def test_collapse_is_of_the_middle_half(store: Store) -> None:
    """Outliers decide nothing; from the 25th to the 75th percentile it is 2 before, and half of one after."""
    before_and_after(store, {"variance": [1.0, 2.0, 3.0, 4.0, 5.0]}, {"variance": [0.0, 3.0, 3.25, 3.5, 90.0]}, 3)
    found = made_up.statements(store)["variance_range: BN PARAMS, NORMAL"]
    assert found.verdict == "holds" and found.difference == pytest.approx(-75)
    assert found.details[0]["deviation"] > 1


def test_nearer_to_zero_but_wider_holds_in_part(store: Store) -> None:
    before_and_after(store, {"gamma": spread(2.0, 0.5)}, {"gamma": spread(0.0, 2.0)}, 3)
    found = made_up.statements(store)["mean_abs_gamma: BN PARAMS, NORMAL"]
    assert found.verdict == "holds in part" and found.difference == pytest.approx(-40) and found.true == 3


def test_m_below_adv_counts_layers_and_below_normal_averages(store: Store) -> None:
    base = made_up.run(store, "normal", layers={f"bn{i}": {"gamma": [[1.0]]} for i in range(3)})
    made_up.run(
        store, "bn_params", base=base, layers={f"bn{i}": {"gamma": [[1.0], [g]]} for i, g in enumerate((0, 1, 9))}
    )
    made_up.run(store, "adv", layers={f"bn{i}": {"gamma": [[1.0], [2.0]]} for i in range(3)})
    found = made_up.statements(store)
    below = found["mean_m: BN PARAMS, ADV"]
    assert (below.verdict, below.true, below.of) == ("not enough data", 2, 3)  # in most layers, not on average
    assert below.difference == pytest.approx(4 / 3) and below.published == -0.177
    assert [line["difference"] for line in below.details] == pytest.approx([-2, -1, 7])
    normal = found["mean_m: BN PARAMS, NORMAL"]
    assert normal.verdict == "not enough data" and normal.difference == pytest.approx(7 / 3) and normal.true == 1


@pytest.mark.parametrize(
    ("tuned", "verdict"),
    [
        ((1.0, 1.5, 1.9), "holds"),
        ((1.0, 1.5, 9.0), "not enough data"),
        ((1.0, 3.0, 9.0), "does not hold"),
        ((3.0, 3.5, 9.0), "does not hold"),
    ],
)
def test_m_below_adv_holds_only_beside_an_interval_without_zero(
    store: Store, tuned: tuple[float, ...], verdict: str
) -> None:
    for policy, gammas in (("bn_params", tuned), ("adv", (2.0, 2.0, 2.0))):
        made_up.run(store, policy, layers={f"bn{i}": {"gamma": [[gamma]]} for i, gamma in enumerate(gammas)})
    assert made_up.statements(store)["mean_m: BN PARAMS, ADV"].verdict == verdict


def test_m_below_normal_is_decided_by_the_interval_alone(store: Store) -> None:
    for seed, (gammas, verdict) in enumerate(
        {(1.0, 1.5, 1.9): "holds", (1.0, 3.0, 2.1): "not enough data", (2.5, 3.0, 9.0): "does not hold"}.items()
    ):
        folder = Store(store.root / str(seed))
        base = made_up.run(folder, "normal", layers={f"bn{i}": {"gamma": [[2.0]]} for i in range(3)})
        layers = {f"bn{i}": {"gamma": [[2.0], [gamma]]} for i, gamma in enumerate(gammas)}
        made_up.run(folder, "bn_params", base=base, layers=layers)
        assert made_up.statements(folder)["mean_m: BN PARAMS, NORMAL"].verdict == verdict


def test_gamma_around_zero_and_around_one_are_two_readings(store: Store) -> None:
    """Towards 1, gamma - 1 comes nearer to zero and gamma itself does not."""
    before_and_after(store, {"gamma": [0.2, 0.6, 1.0, 1.4]}, {"gamma": [0.9, 1.0, 1.0, 1.1]}, 3)
    found = made_up.statements(store)
    assert found["mean_abs_gamma: BN PARAMS, NORMAL"].difference == pytest.approx(25)
    assert found["mean_abs_gamma_minus_1: BN PARAMS, NORMAL"].difference == pytest.approx(-87.5)
    assert found["mean_abs_gamma_minus_1: BN PARAMS, NORMAL"].verdict == "holds"
    assert found["mean_abs_gamma_minus_1: BN PARAMS, NORMAL"].text.startswith(
        "gamma - 1 is more concentrated around zero"
    )


def test_without_normals_record_its_own_start_stands_for_it(store: Store) -> None:
    before_and_after(store, {"beta": spread(0.0, 2.0)}, {"beta": spread(0.0, 1.0)}, 3)
    whole = made_up.statements(store)["mean_abs_beta: BN PARAMS, NORMAL"]
    (normal,) = store.root.glob("normal-*")
    (normal / "batchnorm.safetensors").unlink()
    assert made_up.statements(store)["mean_abs_beta: BN PARAMS, NORMAL"] == whole and whole.difference == pytest.approx(
        -50
    )
    made_up.run(store, "normal", seed=4, layers={f"bn{i}": {"beta": [spread(0.0, 50.0)]} for i in range(3)})
    assert made_up.statements(store)["mean_abs_beta: BN PARAMS, NORMAL"] == whole  # another seed is no match for it


@pytest.mark.parametrize(
    ("after", "verdict"), [(5.4, "holds"), (4.6, "holds"), (5.6, "does not hold"), (3.0, "does not hold")]
)
def test_cross_entropy_on_pgd_examples(store: Store, after: float, verdict: str) -> None:
    base = made_up.run(store, "normal", pgd_loss=5.0)
    made_up.run(store, "bn_stats", base=base, pgd_loss=after)
    found = made_up.statements(store)
    assert found["pgd_loss: BN STATS (reset), NORMAL"].verdict == verdict
    assert found["pgd_loss: BN STATS (reset), NORMAL"].difference == pytest.approx(100 * (after - 5) / 5)
    assert found["pgd_loss: BN STATS (no reset), NORMAL"].verdict == "not measured"


def test_cross_entropy_of_old_results_is_not_measured(store: Store) -> None:
    made_up.run(store, "bn_stats", base=made_up.run(store, "normal"), pgd_loss=5.0)
    assert made_up.statements(store) == {}


def test_cross_entropy_is_compared_within_one_budget(store: Store) -> None:
    base = made_up.run(store, "normal", pgd_loss=5.0)
    made_up.run(store, "bn_stats", base=base, pgd_loss=5.0)
    other = {**made_up.EVALUATION, "eps": 0.3}
    made_up.run(store, "bn_stats_no_reset", base=base, pgd_loss=5.0, evaluation=other)
    found = made_up.statements(store)
    assert found["pgd_loss: BN STATS (reset), NORMAL"].verdict == "holds"
    assert found["pgd_loss: BN STATS (no reset), NORMAL"].verdict == "not measured"


def test_nothing_is_measured_where_rows_are_missing_or_damaged(store: Store) -> None:
    layers = {"bn": {"gamma": [[1.0, 2.0]]}}
    folder = made_up.run(store, "bn_params", layers=layers)
    made_up.run(store, "adv", layers=layers)
    made_up.run(store, "normal")
    made_up.damage(folder, "batchnorm.safetensors")
    records = read(store)
    assert "no record of BN layers" in records["bn_params"].notes[0] and folder.name in records["bn_params"].notes[0]
    assert records["normal"].notes and not records["adv"].notes
    assert made_up.statements(store) == {}
    assert channels.turned_off(records["bn_params"]) is None


def test_a_record_that_lacks_a_quantity_is_damaged(store: Store) -> None:
    from bnft.common import files

    folder = made_up.run(store, "adv", layers={"bn": {"gamma": [[1.0]]}})
    tensors, metadata = files.read_tensors(folder.path / "batchnorm.safetensors")
    for lost in tensors:
        files.write_tensors(
            folder.path / "batchnorm.safetensors", {k: v for k, v in tensors.items() if k != lost}, metadata
        )
        assert read(store)["adv"].notes and read(store)["adv"].layers == []


# channels turned off


def test_channels_turned_off(store: Store) -> None:
    """Eleven channels whose median |m| is 1 in the base: below 0.1, one is near zero."""
    start = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0, 0.05, 1.0]
    after = [1.0, 0.09, -0.09, -0.5, 0.4, 0.6, 0.0, 0.5, -0.4, 0.05, 2.0]
    base = made_up.run(store, "normal", layers={"bn": {"gamma": [start]}})
    made_up.run(store, "bn_params", base=base, layers={"bn": {"gamma": [start, start, after]}})
    found = channels.turned_off(read(store)["bn_params"])
    assert found is not None
    first, _, last = found.layers
    assert [first[name] for name in ("epoch", "turned_off", "near_zero", "already", "share")] == [0, 0, 1, 1, 0.0]
    assert last["epoch"] == 2 and last["channels"] == 11
    assert [last[name] for name in channels.STATES] == [4, 1, 2, 1]
    assert last["turned_off"] == 4 and last["share"] == pytest.approx(100 * 4 / 11)
    assert found.which == {0: {"bn": [1, 2, 3, 6]}} and found.last == [last]
    json.dumps(asdict(found))


def test_turned_off_by_the_variance_alone(store: Store) -> None:
    """m falls with the variance, gamma untouched: as in Equation 1, not as in gamma."""
    layers = {"bn": {"gamma": [[1.0] * 3] * 2, "variance": [[1.0] * 3, [1.0, 10_000.0, 1.0]]}}
    base = made_up.run(store, "normal", layers=layers)
    made_up.run(store, "bn_stats_no_reset", base=base, layers=layers)
    found = channels.turned_off(read(store)["bn_stats_no_reset"])
    assert found is not None and found.which == {0: {"bn": [1]}}


def test_layers_and_seeds_add_up_apart(store: Store) -> None:
    for seed in (3, 5):
        start, off = [1.0] * 4, [0.0] * (seed - 2) + [1.0] * (6 - seed)
        layers = {"stem": {"gamma": [start, off]}, "head": {"gamma": [[1.0] * 12, [1.0] * 12]}}
        made_up.run(store, "bn_params", seed=seed, base=made_up.run(store, "normal", seed=seed), layers=layers)
    found = channels.turned_off(read(store)["bn_params"])
    assert found is not None
    shares = {(line["seed"], line["epoch"]): line["share"] for line in found.epochs}
    assert shares == {(3, 0): 0, (3, 1): 100 * 1 / 16, (5, 0): 0, (5, 1): 100 * 3 / 16}
    assert found.which[5] == {"stem": [0, 1, 2], "head": []} and len(found.last) == 4


def test_reset_statistics_are_compared_with_the_base_itself(store: Store) -> None:
    """After a reset, epoch 0 has variance 1, which the base never had."""
    trained = {"bn": {"gamma": [[1.0, 1.0]] * 2, "variance": [[1.0, 1.0], [100.0, 100.0]]}}
    base = made_up.run(store, "normal", layers=trained)
    reset = {"bn": {"gamma": [[1.0, 1.0]] * 2, "variance": [[1.0, 1.0], [100.0, 90.0]]}}
    made_up.run(store, "bn_stats", base=base, layers=reset, statistics="reset")
    found = channels.turned_off(read(store)["bn_stats"])
    assert found is not None and [line["turned_off"] for line in found.epochs] == [0, 0]
    assert found.epochs[-1]["weakened"] == 0
    (base.path / "batchnorm.safetensors").unlink()
    assert channels.turned_off(read(store)["bn_stats"]) is None


def test_a_row_from_scratch_turned_nothing_off(store: Store) -> None:
    made_up.run(store, "adv", layers={"bn": {"gamma": [[1.0], [0.0]]}})
    assert channels.turned_off(read(store)["adv"]) is None


def test_large_records_take_no_time() -> None:
    """CIFAR-10: 22 layers of up to 256 channels, three rows, 16 epochs each, six quantities."""
    random = np.random.default_rng(0)
    layers: dict[str, Any] = {f"bn{i}": {"gamma": random.normal(size=(16, 256))} for i in range(22)}
    records = [record(list(range(16)), **layers) for _ in range(3)]
    started = time.process_time()
    for layer in layers:
        for quantity in ("gamma", "beta", "mean", "variance", "m", "b"):
            assert histograms(records, layer, quantity) is not None
    assert time.process_time() - started < 5
