"""Compare a step of adversarial training in bnft with the same step with attacks of other libraries.

    pip install torchattacks foolbox adversarial-robustness-toolbox
    python benchmarks/training_step.py                    # widths 16 and 64; almost an hour on two CPU cores
    python benchmarks/training_step.py --widths 16        # minutes
    python benchmarks/training_step.py --quick            # half a minute, for a test of the script; do not quote it

A step is PGD-10 in Linf (eps 8/255, steps of 0.007, random start) on a batch of 32x32 colour images, with the paper's
ResNet-20 in eval mode, and then an update by SGD (Nesterov momentum 0.9, weight decay 5e-4) in train mode. Either all
parameters learn, or only those of the BN layers. Absolute times depend on the machine and on other work on it. Compare
the ratios, which are taken within rounds (see `common.py`).

- "Ours" calls the functions of `bnft.training`, with the hardware that a run would choose. It keeps the worst iterate
  of each image, as the protocol requires. This costs one more forward pass than the last iterate, which all other
  libraries return. The time of ours includes it.
- "As run" is a library's attack in a plain training loop, as its users write it: fp32, and the usual memory format. By
  default, foolbox and ART do more than the attack. At the end, foolbox checks which images fool the model (one forward
  pass). ART counts the images that do so before and after the attack (two forward passes). Both compute the gradients
  of learning parameters in each iteration.
- "Given ours" is the same loop with bnft's precision (bf16 if it is fast, else fp32), memory format and deterministic
  kernels. The remaining differences are the folded view of the model, the CUDA graph of the attack on a GPU, and the
  additional work of foolbox and ART.

Threads and batches are the same for all. Each candidate trains its own network, with the same initial weights. Without
`--data`, images are smooth random colours with noise, and labels are random. The time of convolutions does not depend
on this.
"""

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
from measuring import alternate, hardware, print_table, ratios, spread
from torch import nn
from torch.nn import functional

from bnft import models
from bnft.attacks.base import perturbation_size
from bnft.attacks.pgd import pgd
from bnft.batchnorm.freezing import Freezing
from bnft.common import devices
from bnft.common.devices import Hardware
from bnft.data import npz
from bnft.data.augmentation import none
from bnft.data.dataset import Arrays, Dataset, prepare
from bnft.models.resnet import ResNet
from bnft.training.recipe import Recipe
from bnft.training.step import TrainingStep

EPS, STEP_SIZE, ITERATIONS = 8 / 255, 0.007, 10
RATE, MOMENTUM, WEIGHT_DECAY = 0.05, 0.9, 5e-4
CLASSES = 10
BATCHES = 4  # batches that the steps repeat
POLICIES = ("all", "batchnorm")
OURS, AS_RUN, GIVEN = "ours", "as run", "given ours"

Batch = tuple[torch.Tensor, torch.Tensor]
Attack = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Step = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="16,64", help="widths of the network (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="images per step (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument("--data", metavar="FILE.npz", help="32x32 colour images, as for data=npz")
    parser.add_argument("--quick", action="store_true", help="width 16, 8 images, one round")
    options = parser.parse_args()
    if options.quick:
        options.widths, options.batch, options.repeats = "16", 8, 1
    machine = devices.choose("auto", "auto", options.threads)
    machine.settle()
    data = images(options.data, BATCHES * options.batch).to(machine.device)
    print("\n".join(hardware()))
    print(f"ours: {machine.describe()}; batches of {options.batch}, rounds: {options.repeats}\n", flush=True)
    for width, policy in itertools.product(map(int, options.widths.split(",")), POLICIES):
        print(f"ResNet-20 of width {width}, learning: {policy}\n")
        compare(data, width, policy, options.batch, options.repeats, machine)


def compare(data: Dataset, width: int, policy: str, batch: int, repeats: int, machine: Hardware) -> None:
    """Time all candidates in turns, and print their ratios to ours."""
    candidates: dict[str, Step] = {OURS: ours(network(data, width), policy, data, batch, ITERATIONS, machine)}
    for (name, make), way in itertools.product(PEERS.items(), (AS_RUN, GIVEN)):
        candidates[f"{name}, {way}"] = peer(network(data, width), make, policy, data, batch, machine, way == GIVEN)
    times = alternate(candidates, repeats)
    slower = ratios(times, OURS)
    rate = {name: f"{batch / statistics.median(each):.1f}" for name, each in times.items()}
    rows = [[OURS, rate[OURS], "1", rate[OURS], "1"]]
    for name in PEERS:
        ways = [f"{name}, {way}" for way in (AS_RUN, GIVEN)]
        rows.append([name, *(cell for way in ways for cell in (rate[way], spread(slower[way])))])
    faster = "ours is faster by"
    print_table(["attack", f"images/s {AS_RUN}", faster, f"images/s {GIVEN}", faster], rows)


def images(path: str | None, count: int) -> Dataset:
    """Return the first images of a file, or random images of smooth colours with noise, the same each time."""
    if path is not None:
        arrays = npz.load(path)
        return prepare(Arrays(arrays.x_train[:count], arrays.y_train[:count], arrays.x_test, arrays.y_test), CLASSES)
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 4, 4, generator=random)
    smooth = functional.interpolate(coarse, size=(32, 32), mode="bilinear")
    noisy = (smooth + 0.05 * torch.randn(smooth.shape, generator=random)).clamp(0, 1)
    x = (255 * noisy).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    y = torch.randint(CLASSES, (count,), generator=random).numpy().astype(np.int64)
    return prepare(Arrays(x, y, x[:1], y[:1]), CLASSES)


def network(data: Dataset, width: int, blocks: tuple[int, ...] = (3, 3, 3)) -> nn.Module:
    """Build a ResNet with the normalisation of the data, and with the same initial weights each time."""
    build = partial(ResNet, channels=data.channels, num_classes=CLASSES, width=width, blocks=list(blocks))
    return models.build(build, data.mean, data.std, seed=0)


def batches(data: Dataset, size: int) -> Iterator[Batch]:
    """Repeat the whole batches of the data endlessly."""
    x, y = data.pixels(data.x_train), data.y_train
    return itertools.cycle([(x[at : at + size], y[at : at + size]) for at in range(0, len(x) - size + 1, size)])


def ours(model: nn.Module, policy: str, data: Dataset, batch: int, iterations: int, machine: Hardware) -> Step:
    """Return a step of `bnft.training`, with the same arguments as in its loop."""
    model = machine.place(model)
    freezing = Freezing(model, [policy], "update")
    recipe = Recipe(
        epochs=1,
        batch_size=batch,
        lr=RATE,
        shape=lambda progress: 1.0,
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=WEIGHT_DECAY,
        augmentation=none,
        attack=partial(pgd, eps=EPS, step_size=STEP_SIZE, iterations=iterations),
        attack_mode="eval",
        seed=0,
    )
    given = batches(data, batch)
    trained = TrainingStep(model, freezing, recipe, machine, *next(given))  # on a GPU, the attack is one launch
    assert trained.folded is not None and trained.folded.view is not model, "the benchmark's network can be folded"
    numbers = itertools.count()  # each step has a random start of its own

    def step() -> None:
        trained(*next(given), 0, next(numbers), RATE)

    return step


def peer(
    model: nn.Module,
    make: Callable[[nn.Module, Dataset], Attack],
    policy: str,
    data: Dataset,
    batch: int,
    machine: Hardware,
    given_ours: bool,
) -> Step:
    """Return a step of a plain training loop with the attack of another library."""
    model.to(machine.device)
    if given_ours:
        model = InPrecision(machine.place(model), machine)
    if policy == "batchnorm":
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(isinstance(module, nn.BatchNorm2d))
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=RATE, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY)
    attack, given = make(model.eval(), data), batches(data, batch)

    def step() -> None:
        inputs, labels = next(given)
        with nullcontext() if given_ours else _usual_kernels(machine):
            model.eval()
            adversarial = attack(inputs, labels)
            model.train()
            optimizer.zero_grad()
            functional.cross_entropy(model(adversarial), labels).backward()
            optimizer.step()

    inputs, labels = next(given)
    size = perturbation_size(attack(inputs[:2], labels[:2]), inputs[:2], "Linf").amax()
    assert EPS / 2 < size < EPS + 1e-6, "it is the same attack, in the same units"
    return step


class InPrecision(nn.Module):
    """A model that computes in the precision of a run of bnft, and returns fp32 logits."""

    def __init__(self, model: nn.Module, machine: Hardware) -> None:
        super().__init__()
        self.model, self.machine = model, machine

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.machine.autocast():
            return self.model(x).float()


def _usual_kernels(machine: Hardware) -> AbstractContextManager[None]:
    """Use PyTorch's default settings of cuDNN. bnft uses deterministic kernels without TF32, which can be slower."""
    if machine.device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=True)


def plain(model: nn.Module, data: Dataset) -> Attack:
    """Return PGD as in tutorials."""

    def attack(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        adversarial = (inputs + torch.empty_like(inputs).uniform_(-EPS, EPS)).clamp(0, 1)
        for _ in range(ITERATIONS):
            adversarial.requires_grad_()
            loss = functional.cross_entropy(model(adversarial), labels)
            (gradient,) = torch.autograd.grad(loss, adversarial)
            adversarial = adversarial.detach() + STEP_SIZE * gradient.sign()
            adversarial = torch.min(torch.max(adversarial, inputs - EPS), inputs + EPS).clamp(0, 1)
        return adversarial

    return attack


def torchattacks_pgd(model: nn.Module, data: Dataset) -> Attack:
    import torchattacks

    return torchattacks.PGD(model, eps=EPS, alpha=STEP_SIZE, steps=ITERATIONS, random_start=True)


def foolbox_pgd(model: nn.Module, data: Dataset) -> Attack:
    import foolbox

    target = foolbox.PyTorchModel(model, bounds=(0, 1), device=data.x_train.device)
    linf_pgd = foolbox.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=ITERATIONS, random_start=True)

    def attack(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return linf_pgd(target, inputs, labels, epsilons=EPS)[1]

    return attack


def art_pgd(model: nn.Module, data: Dataset) -> Attack:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    device = data.x_train.device
    classifier = PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=data.image_shape,
        nb_classes=CLASSES,
        clip_values=(0.0, 1.0),
        device_type="gpu" if device.type == "cuda" else "cpu",
    )
    linf_pgd = ProjectedGradientDescentPyTorch(
        classifier,
        norm=np.inf,
        eps=EPS,
        eps_step=STEP_SIZE,
        max_iter=ITERATIONS,
        num_random_init=1,
        batch_size=len(data.x_train),  # at least as large as our batches
        verbose=False,
    )

    def attack(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(linf_pgd.generate(inputs.cpu().numpy(), labels.cpu().numpy())).to(device)

    return attack


PEERS: dict[str, Callable[[nn.Module, Dataset], Attack]] = {
    "plain loop": plain,
    "torchattacks.PGD": torchattacks_pgd,
    "foolbox LinfPGD": foolbox_pgd,
    "ART PGD": art_pgd,
}


if __name__ == "__main__":
    main()
