"""Data sets: what they hold, what is refused, and what augmentation does to each image."""

import pickle
import time
import tracemalloc
import zipfile
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10
from torchvision.transforms import autoaugment as torchvision_autoaugment

from bnft.common.compat import autoaugment_operation
from bnft.common.errors import InputError
from bnft.data import augmentation, cifar10, digits, npz
from bnft.data.dataset import Arrays, Dataset, prepare


def refusal_of(function, *arguments, **options) -> str:
    with pytest.raises(InputError) as refusal:
        function(*arguments, **options)
    message = str(refusal.value)
    assert "\n" not in message
    return message


# digits


def test_digits():
    data = prepare(digits.load(), 10)
    assert data.x_train.shape == (1297, 1, 8, 8) and data.x_test.shape == (500, 1, 8, 8)
    assert data.y_train.shape == (1297,) and data.y_test.shape == (500,)
    assert data.levels == 16 and int(data.x_train.max()) == 16 and int(data.x_train.min()) == 0
    assert data.channels == 1 and data.image_shape == (1, 8, 8)
    assert sorted(data.y_train.unique().tolist()) == list(range(10)) == sorted(data.y_test.unique().tolist())
    pixels = data.pixels(data.x_test)
    assert pixels.dtype == torch.float32 and pixels.min() == 0 and pixels.max() == 1


def test_the_content_of_digits_has_this_name():
    """Runs on digits are named by it: another hash gives every one of them another name."""
    assert prepare(digits.load(), 10).sha256 == "3fe977e32084c0e58db00729fb10cfab515ec1b42871aed3f73c765aaca9175b"


def test_digits_split_elsewhere_keep_their_order():
    usual, smaller = digits.load(), digits.load(test_images=100)
    assert len(smaller.x_test) == 100 and len(smaller.x_train) == 1697
    assert np.array_equal(smaller.x_test, usual.x_test[-100:])
    assert np.array_equal(smaller.y_train[:1297], usual.y_train)


# a prepared data set


def test_prepare_keeps_every_pixel_and_label(images):
    data = prepare(Arrays(**images), 3)
    assert data.x_train.dtype == torch.uint8 and data.y_train.dtype == torch.int64
    for split in ("train", "test"):
        assert np.array_equal(getattr(data, f"x_{split}").permute(0, 2, 3, 1).numpy(), images[f"x_{split}"])
        assert np.array_equal(getattr(data, f"y_{split}").numpy(), images[f"y_{split}"])
    torch.testing.assert_close(data.pixels(data.x_test), data.x_test.float() / 255)


def test_mean_and_std_are_those_of_the_training_images(images):
    data = prepare(Arrays(**images), 3)
    pixels = images["x_train"] / 255
    np.testing.assert_allclose(data.mean, pixels.mean((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(data.std, pixels.std((0, 1, 2)), rtol=1e-9)


def test_a_constant_channel_can_be_divided_by_its_std(images):
    images["x_train"][..., 1] = 7
    data = prepare(Arrays(**images), 3)
    assert data.mean[1] == pytest.approx(7 / 255)
    assert data.std[1] == pytest.approx(1 / 255)


@pytest.mark.parametrize("name", ["x_train", "y_train", "x_test", "y_test"])
def test_every_value_is_part_of_the_hash(images, name):
    usual = prepare(Arrays(**images), 3).sha256
    assert prepare(Arrays(**{key: value.copy() for key, value in images.items()}), 3).sha256 == usual
    images[name] = images[name].copy()
    images[name].flat[0] ^= 1
    assert prepare(Arrays(**images), 3).sha256 != usual


def test_the_hash_sees_levels_but_not_the_type_of_labels(images):
    images |= {name: images[name] % 17 for name in ("x_train", "x_test")}
    usual = prepare(Arrays(**images), 3).sha256
    assert prepare(Arrays(**images, levels=16), 3).sha256 != usual
    images["y_train"] = images["y_train"].astype(">i2")
    assert prepare(Arrays(**images), 3).sha256 == usual


def test_validation_takes_the_place_of_the_test_images(images):
    usual, held_out = prepare(Arrays(**images), 3), prepare(Arrays(**images), 3, validation=20)
    assert torch.equal(held_out.x_train, usual.x_train[:40]) and torch.equal(held_out.y_train, usual.y_train[:40])
    assert torch.equal(held_out.x_test, usual.x_train[40:]) and torch.equal(held_out.y_test, usual.y_train[40:])
    np.testing.assert_allclose(held_out.mean, (images["x_train"][:40] / 255).mean((0, 1, 2)))
    other = {**images, "x_test": 255 - images["x_test"]}
    assert prepare(Arrays(**other), 3, validation=20).sha256 == held_out.sha256 != usual.sha256


@pytest.mark.parametrize("validation", [60, 61])
def test_validation_must_leave_training_images(images, validation):
    message = refusal_of(prepare, Arrays(**images), 3, validation)
    assert f"data.validation={validation}" in message and "below the 60 training images" in message


def test_fewer_training_images_are_the_first_ones_of_those_that_validation_leaves(images):
    usual = prepare(Arrays(**images), 3)
    few, held_out = prepare(Arrays(**images), 3, None, 30), prepare(Arrays(**images), 3, 20, 30)
    for one in (few, held_out):
        assert torch.equal(one.x_train, usual.x_train[:30]) and torch.equal(one.y_train, usual.y_train[:30])
        np.testing.assert_allclose(one.mean, (images["x_train"][:30] / 255).mean((0, 1, 2)))
    assert torch.equal(few.x_test, usual.x_test) and torch.equal(held_out.x_test, usual.x_train[40:])
    own = {**images, "x_train": images["x_train"][:30], "y_train": images["y_train"][:30]}
    assert few.sha256 == prepare(Arrays(**own), 3).sha256, "the name of a run depends on the content only"
    assert prepare(Arrays(**images), 3, None, 60).sha256 == usual.sha256


def test_there_must_be_as_many_training_images(images):
    message = refusal_of(prepare, Arrays(**images), 3, None, 61)
    assert message == "data.training_images=61: must be at most the 60 training images, or null"
    assert "at most the 40 training images" in refusal_of(prepare, Arrays(**images), 3, 20, 41)


def held_out_of(data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    assert data.held_out is not None
    return data.held_out


def test_held_out_images_are_taken_out_of_the_training_images_alone(images):
    usual = prepare(Arrays(**images), 3)
    found = usual.hold_out(20)
    x, y = held_out_of(found)
    parts = [*x.flatten(1).tolist(), *found.x_train.flatten(1).tolist()]
    assert sorted(parts) == sorted(usual.x_train.flatten(1).tolist()), "each image is in one of both"
    labels = {
        tuple(image): label
        for image, label in zip(usual.x_train.flatten(1).tolist(), usual.y_train.tolist(), strict=True)
    }
    assert [labels[tuple(image)] for image in parts] == [*y.tolist(), *found.y_train.tolist()]
    np.testing.assert_allclose(found.mean, (found.x_train / 255).double().mean((0, 2, 3)))
    assert found.x_test is usual.x_test and found.sha256 == usual.sha256 and usual.held_out is None
    assert len(x) == 20 and torch.equal(x, held_out_of(usual.hold_out(20))[0])
    smaller = {tuple(image) for image in held_out_of(usual.hold_out(5))[0].flatten(1).tolist()}
    assert smaller < {tuple(image) for image in x.flatten(1).tolist()}


def test_images_that_are_sorted_by_class_are_held_out_of_all_classes(images):
    images["y_train"] = np.sort(images["y_train"])
    assert set(held_out_of(prepare(Arrays(**images), 3).hold_out(20))[1].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("count", [60, 61])
def test_holding_out_must_leave_training_images(images, count):
    message = refusal_of(prepare(Arrays(**images), 3).hold_out, count)
    assert message == f"monitor.images={count}: must be below the 60 training images"


REFUSED = {
    "flat images": ("x_train", lambda x: x.reshape(60, -1), ["x_train", "(60, 192)", "4-dimensional"]),
    "grey images without a channel": ("x_test", lambda x: x[..., 0], ["x_test", "(30, 8, 8)", "4-dimensional"]),
    "no training images": ("x_train", lambda x: x[:0], ["x_train", "no images"]),
    "no test images": ("x_test", lambda x: x[:0], ["x_test", "no images"]),
    "channels first": (
        "x_train",
        lambda x: x.transpose(0, 3, 1, 2),
        ["x_train has shape (60, 3, 8, 8)", "(images, channels, height, width)", "x_train.transpose(0, 2, 3, 1)"],
    ),
    "no pixels": ("x_train", lambda x: x[:, :, :0], ["x_train", "(60, 8, 0, 3)", "at least 1"]),
    "float images": ("x_train", lambda x: x / 255, ["x_train", "float64", "uint8"]),
    "wide integers": ("x_test", lambda x: x.astype(np.int64), ["x_test", "int64", "uint8"]),
    "images of text": ("x_test", lambda x: x.astype(str), ["x_test", "<U3", "uint8"]),
    "NaN in images": ("x_train", lambda x: np.where(x > 9, x, np.nan), ["x_train", "NaN", "uint8"]),
    "other test size": ("x_test", lambda x: x[:, :4], ["x_test", "(4, 8, 3)", "x_train", "(8, 8, 3)"]),
    "other test channels": ("x_test", lambda x: x[..., :1], ["x_test", "(8, 8, 1)", "(8, 8, 3)"]),
    "too few labels": ("y_train", lambda y: y[:-1], ["y_train", "(59,)", "(60,)"]),
    "too many labels": ("y_test", lambda y: np.append(y, 0), ["y_test", "(31,)", "(30,)"]),
    "one-hot labels": ("y_train", lambda y: np.eye(3, dtype=int)[y], ["y_train", "(60, 3)", "(60,)"]),
    "one label for all": ("y_test", lambda y: np.array(1), ["y_test", "()", "(30,)"]),
    "float labels": ("y_test", lambda y: y.astype(float), ["y_test", "float64", "integers from 0 to 2"]),
    "NaN in labels": ("y_test", lambda y: np.where(y, y, np.nan), ["y_test", "NaN", "integers from 0 to 2"]),
    "true or false": ("y_train", lambda y: y > 1, ["y_train", "bool", "integers from 0 to 2"]),
    "labels of text": ("y_train", lambda y: y.astype(str), ["y_train", "<U", "integers from 0 to 2"]),
    "label too high": ("y_test", lambda y: y + 1, ["y_test", "label 3", "0 to 2", "data.num_classes"]),
    "labels from 1": ("y_train", lambda y: y + 1, ["y_train", "from 1 to 3", "counted from 0", "subtract 1"]),
    "label below zero": ("y_train", lambda y: y - 1, ["y_train", "label -1", "0 to 2"]),
    "label beyond int64": (
        "y_test",
        lambda y: y.astype(np.uint64) + np.uint64(2**63),
        ["y_test", "label 9223372036854775808"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arrays_are_refused(tmp_path, images, case):
    """The refusal names the array, what it is and what it must be, whether it came from a file or a function."""
    name, spoil, parts = REFUSED[case]
    images[name] = spoil(images[name])
    message = refusal_of(prepare, Arrays(**images), 3)
    assert all(part in message for part in parts), message
    np.savez(tmp_path / "images.npz", **images)
    assert refusal_of(prepare, npz.load(str(tmp_path / "images.npz")), 3) == message


def sized(*shape: int) -> Arrays:
    images, labels = np.zeros(shape, np.uint8), np.arange(shape[0])
    return Arrays(images, labels, images, labels)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 28, 28), (4, 32, 64), (3, 48, 32), (1, 8, 8)])
def test_images_with_the_channels_first_are_refused(shape):
    message = refusal_of(prepare, sized(2, *shape), 2)
    assert f"x_train has shape (2, {shape[0]}, {shape[1]}, {shape[2]}), which looks like" in message
    images = np.zeros((2, *shape), np.uint8).transpose(0, 2, 3, 1)  # the way out
    assert prepare(Arrays(images, np.arange(2), images, np.arange(2)), 2).image_shape == shape


@pytest.mark.parametrize(
    "shape",
    [
        *((8, 8, 1), (32, 32, 3), (28, 28, 4), (3, 32, 3), (1, 8, 1), (4, 4, 4)),  # the usual channels
        *((64, 64, 13), (8, 8, 2), (16, 16, 16), (32, 3, 32)),  # many channels, but of more than four rows
        *((3, 3, 16), (4, 4, 16), (4, 4, 4), (1, 2, 2), (3, 2, 5)),  # maps of a few pixels
        *((1, 1000, 22), (4, 100, 16), (1, 40, 8), (1, 64, 512)),  # rows of many values each, such as signals
    ],
)
def test_unusual_images_are_not_taken_for_channels_first(shape):
    assert prepare(sized(2, *shape), 2).image_shape == (shape[2], *shape[:2])


def test_values_above_the_levels_are_refused(images):
    message = refusal_of(prepare, Arrays(**images, levels=16), 3)
    assert "x_train holds the value 255" in message and "from 0 to 16" in message


# .npz files


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, images, save):
    path = tmp_path / "images.npz"
    save(path, **images, more=np.zeros(3))
    loaded = npz.load(str(path))
    assert all(np.array_equal(getattr(loaded, name), value) for name, value in images.items())
    assert loaded.levels == 255
    assert npz.num_classes(str(path)) == 3 and npz.channels(str(path)) == 3


def test_npz_in_the_home_folder(tmp_path, monkeypatch, images):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "images.npz", **images)
    assert len(npz.load("~/images.npz").x_train) == 60


@pytest.mark.parametrize("missing", [["x_test"], ["y_train", "y_test"], ["x_train", "y_train", "x_test", "y_test"]])
def test_npz_with_missing_arrays(tmp_path, images, missing):
    path = tmp_path / "images.npz"
    kept = {name: value for name, value in images.items() if name not in missing}
    np.savez(path, **kept, test_images=images["x_test"])
    message = refusal_of(npz.load, str(path))
    assert f"data.path={path}" in message and f"not {', '.join(missing)}" in message and "test_images" in message


def test_npz_that_needs_pickle_is_never_unpickled(tmp_path, images):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    path = tmp_path / "images.npz"
    np.savez(path, **{**images, "y_test": np.array([Trap()] * 30, dtype=object)})
    message = refusal_of(npz.load, str(path))
    assert "y_test needs pickle, which is refused" in message
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Trap()))
    assert "this file is not an archive" in refusal_of(npz.load, str(tmp_path / "bare.npz"))
    assert not (tmp_path / "sprung").exists()


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def overwritten(content: bytes) -> bytes:
    """Bytes in the first array's data, which a checksum gives away."""
    return content[:400] + bytes(20) + content[420:]


def overwritten_header(content: bytes) -> bytes:
    """Bytes where the first array's compressed data begin, which cannot be decompressed any more."""
    return content[:60] + bytes(20) + content[80:]


@pytest.mark.parametrize("damage", [truncated, overwritten, overwritten_header])
def test_damaged_npz(tmp_path, images, damage):
    path = tmp_path / "images.npz"
    np.savez_compressed(path, **images)
    path.write_bytes(damage(path.read_bytes()))
    message = refusal_of(npz.load, str(path))
    assert f"data.path={path}" in message and ("is damaged" in message or "is not an archive" in message)


@pytest.mark.parametrize("content", [b"", b"x_train,y_train", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_what_is_not_npz(tmp_path, content):
    path = tmp_path / "images.npz"
    path.write_bytes(content)
    assert f"data.path={path}: must be an .npz file" in refusal_of(npz.load, str(path))


def test_a_single_array_is_not_npz(tmp_path, images):
    with (tmp_path / "images.npz").open("wb") as file:
        np.save(file, images["x_train"])
    assert "single array" in refusal_of(npz.load, str(tmp_path / "images.npz"))


def test_an_archive_of_other_files_is_not_npz(tmp_path):
    path = tmp_path / "images.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in npz.NAMES:
            archive.writestr(f"{name}.npy", b"not an array")
    for read in (npz.load, npz.num_classes, npz.channels):
        assert "is not an array" in refusal_of(read, str(path))


def header(shape: object, descr: object = "|u1", version: int = 1) -> bytes:
    """The beginning of an array's file."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n"
    return raw_header(text, version)


def raw_header(text: str, version: int = 1, length: int | None = None) -> bytes:
    size = (len(text) if length is None else length).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode()


def archive(path, images, content: bytes, claimed: int | None = None, compression: int = zipfile.ZIP_DEFLATED) -> str:
    """An .npz file whose y_test is this content, and is said to unpack to `claimed` bytes."""
    np.savez(path, **{name: value for name, value in images.items() if name != "y_test"})
    with zipfile.ZipFile(path, "a", compression) as file:
        file.writestr("y_test.npy", content)
        if claimed is not None:
            file.getinfo("y_test.npy").file_size = claimed
    return str(path)


TIB = 2**40
ZEROS = bytes(2**25)  # which compress to 32 kB
HOSTILE = {
    "a header without data": (header((100 * TIB,)), "is damaged (its header says [109951162777600] of |u1"),
    "a negative shape": (header((-1, -30)) + bytes(30), "is damaged"),
    "zeros behind a small array": (header((30,)) + ZEROS, "30 bytes, but it unpacks to 33554432)"),
    "zeros": (ZEROS, "y_test is not an array"),
    "a long header": (raw_header("", 2, 2**31) + ZEROS, "is damaged"),
    "another version": (header((30,), version=3) + bytes(30), "is damaged (its header has version 3.0)"),
    "nothing": (b"\x93NUMPY", "is damaged"),
    "nesting": (raw_header("-" * 9000 + "1"), "is damaged"),
    "brackets": (raw_header("(" * 3000), "is damaged"),
    "no keys": (raw_header("{}"), "is damaged"),
    "a type of text": (header((30,), "u1; import os"), "is damaged"),
    "a type without a form": (header((30,), [("a",)]), "is damaged"),
    "objects": (header((30,), "|O"), "needs pickle, which is refused"),
    "objects in fields": (header((30,), [("a", "|O")]), "needs pickle, which is refused"),
    "code": (raw_header("__import__('os').mkdir('sprung')\n"), "is damaged"),
    "code in a shape": (raw_header("{'descr': '|u1', 'shape': (__import__('os').mkdir('sprung'),)}"), "is damaged"),
}


@pytest.fixture
def frugal():
    """What happens in this test takes no second of the CPU, and no more memory than small arrays need."""
    tracemalloc.start()
    began = time.process_time()
    yield
    seconds, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 1 and peak < 8 * 2**20


def assert_refused_by_all(path: str, said: str) -> None:
    for read in (npz.load, npz.num_classes, npz.channels):
        message = refusal_of(read, path)
        assert message.startswith(f"data.path={path}: must be an .npz file") and said in message


@pytest.mark.parametrize("case", HOSTILE)
def test_no_content_of_an_npz_costs_memory_or_runs(tmp_path, monkeypatch, images, case, request):
    monkeypatch.chdir(tmp_path)
    content, said = HOSTILE[case]
    path = archive("images.npz", images, content)
    request.getfixturevalue("frugal")
    assert_refused_by_all(path, said)
    assert [file.name for file in tmp_path.iterdir()] == ["images.npz"]


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_unpack_without_bound_are_refused(tmp_path, images, compression, request):
    path = archive(tmp_path / "images.npz", images, header((30,)) + ZEROS, compression=compression)
    request.getfixturevalue("frugal")
    assert_refused_by_all(path, "y_test is compressed by another method")


def test_arrays_that_memory_cannot_hold_are_refused(tmp_path, images, frugal):
    start = header((100 * TIB,))
    path = archive(tmp_path / "images.npz", images, start, claimed=100 * TIB + len(start))
    for read in (npz.load, npz.num_classes):
        message = refusal_of(read, path)
        assert f"data.path={path}: must be smaller" in message
        assert "439,804.7 GB of memory, and this machine has" in message
    assert npz.channels(path) == 3


def test_an_array_that_unpacks_to_gigabytes_from_next_to_nothing_is_refused(tmp_path, images, frugal):
    start = header((300_000_000,))
    path = archive(tmp_path / "images.npz", images, start, claimed=300_000_000 + len(start))
    assert "y_test takes 0.0 MB and unpacks to 300.0 MB" in refusal_of(npz.load, path)


def test_less_content_than_the_archive_claims_is_damage(tmp_path, images, frugal):
    start = header((2**20,))
    path = archive(tmp_path / "images.npz", images, start + bytes(30), claimed=2**20 + len(start))
    assert "y_test is damaged" in refusal_of(npz.num_classes, path)
    path = archive(tmp_path / "images.npz", images, header((2**62, 2**62, 0)))
    assert "y_test is damaged" in refusal_of(npz.num_classes, path)


def test_a_missing_npz_and_a_folder(tmp_path):
    assert "there is no such file" in refusal_of(npz.load, str(tmp_path / "images.npz"))
    assert "there is no such file" in refusal_of(npz.load, str(tmp_path))


# CIFAR-10


@pytest.fixture
def disc(tmp_path, monkeypatch):
    """A folder with CIFAR-10 as torchvision unpacks it, 5 training and 2 test images long."""
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", None], ["data_batch_2", None]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": None})
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    pixels = np.random.RandomState(0).randint(0, 256, (7, 3072)).astype(np.uint8)
    for name, rows in (("data_batch_1", range(3)), ("data_batch_2", range(3, 5)), ("test_batch", range(5, 7))):
        batch = {"data": pixels[rows], "labels": [row % 10 for row in rows]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(label) for label in range(10)]}))
    return tmp_path, pixels.reshape(7, 3, 32, 32)


@pytest.mark.parametrize("download", [True, False])
def test_cifar10_that_is_there_is_read_and_not_downloaded(disc, monkeypatch, download):
    root, pixels = disc
    monkeypatch.setattr(CIFAR10, "download", lambda self: pytest.fail("downloaded although it is there"))
    data = prepare(cifar10.load(str(root), download=download), 10)
    assert np.array_equal(data.x_train.numpy(), pixels[:5]) and np.array_equal(data.x_test.numpy(), pixels[5:])
    assert data.y_train.tolist() == [0, 1, 2, 3, 4] and data.y_test.tolist() == [5, 6]


def test_cifar10_that_is_missing_without_download(tmp_path):
    message = refusal_of(cifar10.load, str(tmp_path / "data"), download=False)
    assert f"data.root={tmp_path / 'data'}" in message and "data.download=true" in message
    assert not (tmp_path / "data").exists()


def test_cifar10_without_a_network(tmp_path, monkeypatch):
    def unreachable(self):
        raise URLError("no route to host")

    monkeypatch.setattr(CIFAR10, "download", unreachable)
    message = refusal_of(cifar10.load, str(tmp_path / "data"))
    assert f"data.root={tmp_path / 'data'}" in message and "check the network" in message


# augmentation

RANDOM = [name for name in augmentation.NAMES if name != "none"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int, channels: int = 3, height: int = 12, width: int = 16, least: int = 0) -> torch.Tensor:
    shape = (count, channels, height, width)
    return torch.randint(least, 256, shape, generator=seeded(1), dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", augmentation.NAMES)
def test_augmentation_keeps_shape_and_type_and_its_input(name, channels):
    images = random_images(40, channels)
    before = images.clone()
    augmented = augmentation.NAMES[name](images, seeded())
    assert augmented.shape == images.shape and augmented.dtype == torch.uint8
    assert torch.equal(images, before)
    assert torch.equal(augmented, images) == (name == "none")


@pytest.mark.parametrize("name", RANDOM)
def test_augmentation_is_drawn_from_the_generator_alone(name):
    augment, images = augmentation.NAMES[name], random_images(20)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = augment(images, seeded())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(augment(images, seeded()), first)
    assert not torch.equal(augment(images, seeded(1)), first)


@pytest.mark.parametrize("name", [*RANDOM, "flip", "cutout"])
def test_equal_images_are_augmented_differently(name):
    augmented = getattr(augmentation, name)(random_images(1).repeat(64, 1, 1, 1), seeded())
    assert len(augmented.unique(dim=0)) >= (2 if name == "flip" else 10)


@pytest.mark.parametrize(("height", "width", "pad_h", "pad_w"), [(8, 8, 1, 1), (12, 32, 2, 4)])
def test_crop_only_shifts(height, width, pad_h, pad_w):
    """Every result is one of the windows of the zero-padded image, and every window occurs."""
    image = random_images(1, 3, height, width, least=1)[0]
    padded = torch.zeros(3, height + 2 * pad_h, width + 2 * pad_w, dtype=torch.uint8)
    padded[:, pad_h : pad_h + height, pad_w : pad_w + width] = image
    windows = {
        padded[:, top : top + height, left : left + width].numpy().tobytes()
        for top in range(2 * pad_h + 1)
        for left in range(2 * pad_w + 1)
    }
    cropped = augmentation.crop(image.repeat(600, 1, 1, 1), seeded())
    assert {window.numpy().tobytes() for window in cropped} == windows


def test_crop_does_not_mix_images():
    images = torch.arange(1, 101, dtype=torch.uint8)[:, None, None, None].expand(100, 3, 8, 8)
    cropped = augmentation.crop(images, seeded())
    assert torch.equal(cropped.amax((1, 2, 3)), images[:, 0, 0, 0])
    assert all(set(image.unique().tolist()) <= {0, number} for number, image in enumerate(cropped, start=1))


def test_flip_mirrors_about_half():
    images = random_images(400)
    flipped = augmentation.flip(images, seeded())
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 160 < int(mirrored.sum()) < 240


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 8), (12, 16)])
def test_cutout_is_a_square_of_half_the_size_around_a_random_centre(height, width):
    """It reaches over the border by at most half of itself, and is the same in every channel."""
    images = torch.full((500, 3, height, width), 255, dtype=torch.uint8)
    result = augmentation.cutout(images, seeded())
    grey = result[:, 0] == 128
    assert torch.equal(result, torch.where(grey[:, None], 128, 255).to(torch.uint8).expand_as(images))
    rows, columns = grey.any(2).sum(1), grey.any(1).sum(1)
    assert torch.equal(grey.flatten(1).sum(1), rows * columns), "must be a rectangle"
    for sides, size in ((rows, height), (columns, width)):
        assert int(sides.max()) == size // 2 and size // 4 <= int(sides.min()) < size // 2
    assert grey.any(0).all(), "every pixel must be hit sometimes"


@pytest.mark.parametrize("channels", [1, 3])
def test_autoaugment_is_torchvisions_own_image_by_image(monkeypatch, channels):
    """Torchvision's transform, given one image and the draws that were made for it, gives the same bits.

    Its sign 0 stands for a negative magnitude.
    """
    count = 300
    images = random_images(count, channels)
    result = augmentation._cifar10_policy(images, seeded(), None)

    draws = seeded()
    reference = torchvision_autoaugment.AutoAugment(torchvision_autoaugment.AutoAugmentPolicy.CIFAR10)
    policies = torch.randint(len(reference.policies), (count,), generator=draws)
    chances = torch.rand((2, count), generator=draws)
    negative = torch.randint(2, (2, count), generator=draws)
    assert len(policies.unique()) == len(reference.policies)
    changed = 0
    for index, image in enumerate(images):
        drawn = int(policies[index]), chances[:, index], 1 - negative[:, index]
        monkeypatch.setattr(reference, "get_params", lambda _, drawn=drawn: drawn)
        expected = reference(image)
        assert torch.equal(result[index], expected), f"sub-policy {reference.policies[drawn[0]]}"
        changed += not torch.equal(expected, image)
    assert changed > count / 2


def test_autoaugment_is_crop_flip_policy_and_cutout():
    images, draws = random_images(30), seeded()
    policy = augmentation._cifar10_policy(augmentation.crop_flip(images, draws), draws, None)
    expected = augmentation.cutout(policy, draws)
    assert torch.equal(augmentation.autoaugment(images, seeded()), expected)


def test_crops_cutout_and_autoaugment_fill_with_a_colour():
    colour = (200, 100, 50)
    one = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1)
    images = one.repeat(500, 1, 32, 32)
    for name in ("crop", "cutout"):
        assert torch.equal(getattr(augmentation, name)(images, seeded(), colour), images), "the colour is all there is"
        assert not torch.equal(getattr(augmentation, name)(images, seeded()), images)
    sheared = autoaugment_operation(images[:1], "ShearX", 0.3, colour)
    assert torch.equal(sheared, images[:1]) and (autoaugment_operation(images[:1], "ShearX", 0.3) == 0).any()


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("magnitude", [1 / 30, -0.1, 0.3, -1.7])
@pytest.mark.parametrize("channels", [1, 3])
def test_bicubic_shear_is_that_of_pil(axis, magnitude, channels):
    """Bit for bit, in both directions and beyond the borders."""
    images, colour = random_images(20, channels), (200, 100, 50)[:channels]
    along = images if axis == "x" else images.mT
    sheared = augmentation.shear_bicubic(along, magnitude, colour)
    matrix = (1, magnitude, 0, 0, 1, 0) if axis == "x" else (1, 0, 0, magnitude, 1, 0)
    for image, found in zip(images, sheared if axis == "x" else sheared.mT, strict=True):
        pixels = Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy())
        fill = colour if channels == 3 else colour[0]
        expected = pixels.transform(
            pixels.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=fill
        )
        assert torch.equal(found, torch.from_numpy(np.array(expected)).reshape(*found.shape[1:], -1).permute(2, 0, 1))


def test_bicubic_shear_of_known_images():
    images = random_images(20)
    assert torch.equal(augmentation.shear_bicubic(images, 0.0), images)
    constant = torch.full((1, 1, 8, 8), 77, dtype=torch.uint8)
    found = augmentation.shear_bicubic(constant, 1.0, (5,))[0, 0]
    inside = torch.arange(8) + torch.arange(8)[:, None] + 1.0 <= 7  # x + 0.5 + (y + 0.5) < 8
    assert torch.equal(found, torch.where(inside, 77, 5).to(torch.uint8)), "the constant inside, the colour outside"
    found = augmentation.shear_bicubic(images, 2.0)
    for row in range(images.shape[2]):  # 2 (row + 0.5) is an integer, so pixels move as they are
        shift = min(2 * row + 1, images.shape[3])
        expected = torch.nn.functional.pad(images[:, :, row, shift:], (0, shift))
        assert torch.equal(found[:, :, row], expected)


def test_only_shears_are_interpolated():
    """They go in the direction of torchvision's, and nothing else differs."""
    images = random_images(500, 3, 32, 32) // 8 + torch.arange(32, dtype=torch.uint8)  # smooth enough to compare
    for name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Contrast"):
        usual = augmentation._operation(images, name, 0.3, None, None)
        found = augmentation._operation(images, name, 0.3, None, "bicubic")
        opposite = augmentation._operation(images, name, -0.3, None, "bicubic")
        assert torch.equal(usual, found) == (not name.startswith("Shear")), name
        assert name == "Contrast" or difference(usual, found) <= difference(usual, opposite), name
    assert torch.equal(augmentation.named("autoaugment")(images, seeded()), augmentation.autoaugment(images, seeded()))
    bicubic = augmentation.named("autoaugment", "bicubic")(images, seeded())
    assert not torch.equal(bicubic, augmentation.autoaugment(images, seeded()))
    assert augmentation.named("crop", "bicubic") is augmentation.crop


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).abs().mean())


def test_autoaugment_in_chunks_draws_anew_for_each(monkeypatch):
    monkeypatch.setattr(augmentation, "MEMORY_CHUNK", 16)
    augmented = augmentation.autoaugment(random_images(1).repeat(40, 1, 1, 1), seeded())
    assert augmented.shape == (40, 3, 12, 16)
    assert not torch.equal(augmented[:16], augmented[16:32])


def test_an_unknown_augmentation_is_refused(images):
    message = refusal_of(augmentation.fits, "mixup", prepare(Arrays(**images), 3))
    assert message.startswith("data.augmentation=mixup:")
    assert all(name in message for name in augmentation.NAMES)


@pytest.mark.parametrize("name", augmentation.NAMES)
def test_autoaugment_needs_256_grey_values(name):
    data = prepare(digits.load(), 10)
    if name != "autoaugment":
        augmentation.fits(name, data)
        return
    message = refusal_of(augmentation.fits, name, data)
    assert message.startswith("data.augmentation=autoaugment:") and "none, crop, crop_flip" in message


def test_autoaugment_needs_one_or_three_channels(images):
    images |= {name: images[name][..., :2] for name in ("x_train", "x_test")}
    assert "data.augmentation=autoaugment" in refusal_of(augmentation.fits, "autoaugment", prepare(Arrays(**images), 3))
