"""Networks: the paper's ResNet-20 to the last parameter, torchvision's by name, and what is refused."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from bnft.common.errors import InputError
from bnft.models import Normalize, build, check_output, restore
from bnft.models.resnet import Block, ResNet
from bnft.models.torchvision import Torchvision


def parameters_of(model: nn.Module, kind: type[nn.Module] = nn.Module) -> int:
    layers = [module for module in model.modules() if isinstance(module, kind)]
    return sum(parameter.numel() for layer in layers for parameter in layer.parameters(recurse=False))


# the CIFAR ResNet


@pytest.mark.parametrize(
    ("network", "parameters", "batchnorm"),
    [
        (partial(ResNet, 3, 10), 4_327_754, 6_272),
        (partial(ResNet, 1, 10, width=16, blocks=[1, 1, 1]), 77_754, 672),
        (partial(ResNet, 3, 10, width=16, blocks=[3, 3, 3]), 269_722 + 2_560 + 192, 1_376 + 192),
    ],
    ids=["resnet20", "resnet8", "narrow resnet20"],
)
def test_parameter_counts(network, parameters, batchnorm):
    """The narrow one is He et al.'s with its 269,722 parameters, and two projection shortcuts with BN besides."""
    with torch.device("meta"):
        model = network()
    assert parameters_of(model) == parameters
    assert parameters_of(model, nn.BatchNorm2d) == batchnorm


def test_no_convolution_has_a_bias_and_twenty_layers_have_weights():
    with torch.device("meta"):
        model = ResNet(3, 10)
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert all(module.bias is None for module in convolutions.values())
    assert len([name for name in convolutions if "shortcut" not in name]) + 1 == 20
    projections = [name for name in convolutions if "shortcut" in name]
    assert projections == ["stages.1.0.shortcut.0", "stages.2.0.shortcut.0"]


def test_gamma_starts_at_zero_in_the_last_bn_of_every_block_and_at_one_elsewhere():
    """Unless the configuration says otherwise."""
    model = ResNet(3, 10, width=4, blocks=[2, 2])
    last: list[nn.BatchNorm2d] = [block.bn2 for block in model.modules() if isinstance(block, Block)]
    assert len(last) == 4 and all(not layer.weight.any() for layer in last)
    others = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and not any(m is layer for layer in last)]
    assert len(others) == 6 and all((layer.weight == 1).all() for layer in others)
    assert all(not layer.bias.any() for layer in [*last, *others])


def test_a_block_starts_as_its_shortcut():
    """With gamma 0 in its last BN (Goyal et al., 2017)."""
    block = ResNet(4, 2, width=4, blocks=[1], initialization={"last_gamma": "zeros"}).get_submodule("stages.0.0")
    images = torch.rand(2, 4, 8, 8)
    torch.testing.assert_close(block(images), images)


@pytest.mark.parametrize(("channels", "size", "blocks"), [(1, 8, [1, 1, 1]), (3, 32, [1, 2]), (5, 9, [1])])
def test_shapes(channels, size, blocks):
    model = ResNet(channels, 7, width=4, blocks=blocks)
    assert model(torch.rand(3, channels, size, size)).shape == (3, 7)


def test_each_stage_halves_the_image_and_doubles_the_channels():
    model, features = ResNet(3, 10, width=4, blocks=[1, 1, 1]), torch.rand(1, 4, 16, 16)
    for channels, size in ((4, 16), (8, 8), (16, 4)):
        features = model.stages[(4, 8, 16).index(channels)](features)
        assert features.shape == (1, channels, size, size)


# building


NETWORK = partial(ResNet, 3, 5, width=4, blocks=[1])


def test_weights_depend_on_the_seed_and_on_nothing_else():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build(NETWORK, [0.5] * 3, [0.2] * 3, seed=0).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = build(NETWORK, [0.1] * 3, [0.4] * 3, seed=0).state_dict()
    other = build(NETWORK, [0.5] * 3, [0.2] * 3, seed=1).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items() if name.startswith("network."))
    assert not torch.equal(first["network.conv.weight"], other["network.conv.weight"])
    assert not torch.equal(first["network.logits.weight"], other["network.logits.weight"])


def test_normalisation_is_inside_the_model_and_does_not_learn():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    model: Any = build(NETWORK, mean, std, seed=0).eval()
    images = torch.rand(2, 3, 8, 8)
    by_hand = torch.stack([(images[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    torch.testing.assert_close(model.normalize(images), by_hand)
    torch.testing.assert_close(model(images), model.network(by_hand))
    assert not list(model.normalize.parameters())
    assert {"normalize.mean", "normalize.std"} < set(model.state_dict())
    assert all(name.startswith("network.") for name, _ in model.named_parameters())


# torchvision


@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_model_by_name(channels):
    model = Torchvision("resnet18", channels, 7)
    assert model(torch.rand(2, channels, 32, 32)).shape == (2, 7)


def test_a_grey_image_is_given_to_all_three_channels():
    model = Torchvision("resnet18", 1, 4).eval()
    grey = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(model(grey), model.model(grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("aux_logits", [True, False])
def test_auxiliary_heads_are_not_used(training, aux_logits):
    """GoogLeNet gives a named tuple in train mode, unless it is built without auxiliary heads."""
    model = Torchvision("googlenet", 3, 4, {"init_weights": False, "aux_logits": aux_logits}).train(training)
    logits = model(torch.rand(2, 3, 32, 32))
    assert isinstance(logits, torch.Tensor) and logits.shape == (2, 4)


@pytest.mark.parametrize("name", ["mnasnet0_5", "shufflenet_v2_x0_5"])
def test_a_model_is_restored_from_its_tensors_alone(name):
    first, second = (build(lambda: Torchvision(name, 3, 10), [0.5] * 3, [1.0] * 3, seed) for seed in (0, 1))
    restore(second, {key: value.clone() for key, value in first.state_dict().items()})
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
    with pytest.raises(RuntimeError, match="Missing key"):
        restore(second, {})


def test_arguments_go_to_torchvisions_constructor():
    model = Torchvision("resnet18", 3, 4, {"zero_init_residual": True})
    assert not model.model.layer1[0].bn2.weight.any()
    assert Torchvision("resnet18", 3, 4).model.layer1[0].bn2.weight.all()


@pytest.mark.parametrize(
    ("name", "close"), [("resnet19", "resnet18"), ("ResNet50", "resnet50"), ("vgg16bn", "vgg16_bn")]
)
def test_an_unknown_name_is_answered_with_close_ones(name, close):
    with pytest.raises(InputError, match=f"^model.name={name}: must be .*{close}"):
        Torchvision(name, 3, 10)


@pytest.mark.parametrize("name", ["fcn_resnet50", "raft_small", "quantized_resnet18", "zzz"])
def test_only_classification_models_have_a_name(name):
    with pytest.raises(InputError, match=f"^model.name={name}: must be a classification model"):
        Torchvision(name, 3, 10)


def test_torchvision_models_take_grey_or_colour():
    with pytest.raises(InputError, match=r"model\.channels=2: must be 1 or 3"):
        Torchvision("resnet18", 2, 10)


@pytest.mark.parametrize(
    "arguments", [{"depth": 3}, {"num_classes": 5}, {"norm_layer": "batch", "width_per_group": 32}]
)
def test_arguments_that_torchvision_does_not_take(arguments):
    with pytest.raises(InputError, match=r"^model\.arguments=.*resnet18"):
        Torchvision("resnet18", 3, 10, arguments)


# what a model must give


class Echo(nn.Module):
    """Gives whatever it was made with."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, images: torch.Tensor) -> object:
        return self.output


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (torch.zeros(2, 9), r"outputs of shape \(2, 9\)"),
        (torch.zeros(2, 10, 1, 1), r"outputs of shape \(2, 10, 1, 1\)"),
        (torch.zeros(1, 10), r"outputs of shape \(1, 10\)"),
        ((torch.zeros(2, 10), None), "a tuple"),
        ({"logits": torch.zeros(2, 10)}, "a dict"),
        (None, "a NoneType"),
    ],
)
def test_a_model_must_give_one_logit_a_class(output, found):
    with pytest.raises(InputError, match=rf"^model: gives {found}.* must give logits of shape \(2, 10\)$"):
        check_output(Echo(output), (3, 8, 8), 10)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10)), "expected input"),
        (nn.Sequential(nn.Flatten(), nn.Linear(7, 10)), "shapes cannot be multiplied"),
        (ResNet(1, 10, width=2, blocks=[1]), "1 channels"),
    ],
)
def test_a_model_must_take_the_images(model, reason):
    with pytest.raises(InputError, match=rf"^model: cannot take images of shape \(3, 8, 8\).*{reason}"):
        check_output(model, (3, 8, 8), 10)


@pytest.mark.parametrize("training", [True, False])
def test_checking_a_model_leaves_no_trace(training):
    model = build(NETWORK, [0.5] * 3, [0.2] * 3, seed=0).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_output(model, (3, 8, 8), 5)
    assert all(module.training == training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(InputError):
        check_output(model, (1, 2, 8, 8), 5)  # type: ignore[arg-type]
    assert all(module.training == training for module in model.modules())


def test_normalize_keeps_its_numbers_in_the_state():
    state = Normalize([0.25], [0.5]).state_dict()
    assert {name: value.item() for name, value in state.items()} == {"mean": 0.25, "std": 0.5}
