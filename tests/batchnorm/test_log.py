"""The record of BN layers over the epochs of a training."""

import torch
from torch import nn

from bnft.batchnorm.log import BatchNormLog, layer_eps
from bnft.batchnorm.record import RECORDED


def logged(epochs: int) -> tuple[BatchNormLog, nn.Module]:
    """A record of two BN layers, of which one moves by one each epoch."""
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5, eps=0.5))
    log = BatchNormLog()
    for epoch in range(epochs + 1):
        log.append(epoch, model)
        model.get_buffer("0.running_mean").add_(1)
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
