"""Files that are either whole or not there: written to a temporary name, flushed, renamed. No pickle.

What a number can come from carries a checksum, SHA-256, in the file itself, which is checked whenever it is read: a
mapping has one of all the rest, a line one of itself and all lines before, a tensor one of its own. Files from before
have none, and are read unchecked.
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:  # commands that only read results start without PyTorch
    from numpy.typing import NDArray
    from torch import Tensor

from bnft.common.errors import DamagedError, InputError, UnwritableError

TEMPORARY = ".tmp"
CHECKSUM = "checksum"  # of a mapping
METADATA, DIGESTS = "bnft", "sha256"  # what is kept beside tensors, as JSON, and the checksums of all tensors in it
WAYS_OUT = {
    PermissionError: "have its owner give you the right to",
    IsADirectoryError: "a folder is in its place, which must go",
    NotADirectoryError: "a file is in the place of its folder, which must go",
}


@contextmanager
def reachable() -> Iterator[None]:
    """Turn the error for a file that may not be used, or that is none, into an InputError; also a decorator."""
    try:
        yield
    except tuple(WAYS_OUT) as error:
        if error.filename is None:  # not about a file
            raise
        way_out = WAYS_OUT[type(error)]
        raise InputError(f"{error.filename}: cannot be used ({error.strerror}); {way_out}") from None


def folders(path: Path) -> list[Path]:
    """The folders in a folder, by name; none if it is not there. Unlike glob, it raises if it may not look."""
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []


def write(path: Path, content: bytes, owner: Path | None = None) -> None:
    """Replace the file at `path` by `content`, atomically and durably. Leaves nothing behind if it fails.

    `owner` is the config.yaml of the run that the file belongs to. Once it is gone, the folder of the run was removed,
    and is not made again. Raises InputError then, UnwritableError where there is no room or no right to write.
    """
    _check_owner(owner)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _check_owner(owner)
        raise UnwritableError(
            f"{path}: cannot be written ({error.strerror}); the same command goes on once it can"
        ) from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    try:
        _check_owner(owner)
    except InputError:  # the folder was removed meanwhile, and may have been made again for this file
        path.unlink(missing_ok=True)
        _remove_empty(path.parent, owner)
        raise


def _check_owner(owner: Path | None) -> None:
    if owner is not None and not owner.exists():
        raise InputError(f"{owner.parent}: was removed while its run went on; the same command makes it again")


def _remove_empty(folder: Path, owner: Path | None) -> None:
    """Remove `folder` and those above it as far as that of `owner`, if there is nothing in them."""
    with suppress(OSError):
        while owner is not None and folder.is_relative_to(owner.parent):
            folder.rmdir()
            folder = folder.parent


def remove_temporary(folder: Path) -> None:
    """Remove what killed processes left behind in a folder, and below it, that only we write to now."""
    for leftover in folder.rglob(f".*{TEMPORARY}"):
        leftover.unlink(missing_ok=True)


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping of plain data with the checksum of all that is in it; see `unsealed`."""
    return {**value, CHECKSUM: hashlib.sha256(_canonical(value)).hexdigest()}


def unsealed(path: Path, value: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping without its checksum, if it has one. Raises DamagedError if that is not the one of the rest."""
    rest = {key: item for key, item in value.items() if key != CHECKSUM}
    if CHECKSUM in value and sealed(rest)[CHECKSUM] != value[CHECKSUM]:
        raise DamagedError(f"{path}: is damaged, its content does not match its checksum")
    return rest


def _canonical(value: Any) -> bytes:
    """Plain data as JSON in one form, which writing and reading as JSON or YAML does not change."""
    plain = json.loads(json.dumps(value, default=str))  # keys are text now, tuples lists
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def write_json(path: Path, value: Any, owner: Path | None = None) -> None:
    write(path, (json.dumps(value, indent=1) + "\n").encode(), owner)


def read_json(path: Path) -> Any:
    """Raises DamagedError if the file is not JSON, FileNotFoundError if it is not there."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise DamagedError(f"{path}: is damaged, it must be JSON ({error})") from None


def write_lines(path: Path, records: Iterable[Mapping[str, Any]], owner: Path | None = None) -> None:
    """One JSON object per line, with the checksum of the line and all lines before it."""
    write(path, "".join(json.dumps(record) + "\n" for record in _chained(records)).encode(), owner)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Raises DamagedError if a line is not a JSON object or does not match its checksum; no file is no lines."""
    if not path.exists():
        return []
    try:
        found = [dict(json.loads(line)) for line in path.read_text().splitlines()]
    except (ValueError, TypeError) as error:
        raise DamagedError(f"{path}: is damaged, each line must be a JSON object ({error})") from None
    records = [{key: item for key, item in record.items() if key != CHECKSUM} for record in found]
    checksums = [record.get(CHECKSUM) for record in found]
    if any(checksums) and checksums != [record[CHECKSUM] for record in _chained(records)]:
        raise DamagedError(f"{path}: is damaged, its lines do not match their checksums")
    return records


def _chained(records: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    digest = hashlib.sha256()
    for record in records:
        digest.update(_canonical(record))
        yield {**record, CHECKSUM: digest.hexdigest()}


def write_yaml(path: Path, value: Mapping[str, Any]) -> None:
    """A mapping as YAML, with its checksum as the last key."""
    write(path, yaml.safe_dump(sealed(value), sort_keys=False, allow_unicode=True, width=120).encode())


def read_yaml(path: Path) -> Any:
    """Raises DamagedError if the file is not YAML or does not match its checksum."""
    try:
        value = yaml.safe_load(path.read_text())
        return unsealed(path, value) if isinstance(value, dict) else value
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DamagedError(f"{path}: is damaged, it must be YAML ({reason}); move its folder away") from None
    except DamagedError as error:
        raise DamagedError(f"{error}; move its folder away") from None


def write_tensors(
    path: Path,
    tensors: "Mapping[str, Tensor]",
    metadata: Mapping[str, Any] | None = None,
    owner: Path | None = None,
) -> str:
    """Tensors as safetensors, with `metadata` as JSON and checksums beside them. Returns the checksum of the whole."""
    from safetensors.torch import save

    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    kept = sealed({**(metadata or {}), DIGESTS: {name: _digest(tensor) for name, tensor in plain.items()}})
    write(path, save(plain, {METADATA: json.dumps(kept)}), owner)  # one key alone, since safetensors keeps no order
    return str(kept[CHECKSUM])


def read_tensors(path: Path, without: Collection[str] = ()) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Tensors, on the CPU, and metadata. Raises DamagedError if the file, or a tensor that is read, is not whole."""
    return _read(path, "pt", without)


def read_arrays(path: Path, without: Collection[str] = ()) -> "dict[str, NDArray[Any]]":
    """The same as NumPy arrays, without PyTorch."""
    return _read(path, "numpy", without)[0]


def read_metadata(path: Path) -> dict[str, Any]:
    """What was kept beside the tensors. Reads no more than the header; raises DamagedError if that is not whole."""
    with _opened(path, "numpy") as file:
        return _header(path, file)[0]


def checksum(path: Path) -> str | None:
    """The checksum of a file of tensors, as it stands in its header; None for one from before checksums."""
    with _opened(path, "numpy") as file:
        return _header(path, file)[2]


def _header(path: Path, file: Any) -> tuple[dict[str, Any], dict[str, str] | None, str | None]:
    """The metadata of a file of tensors, their digests by name, and the checksum of the whole."""
    found = file.metadata() or {}
    kept = dict(json.loads(found.get(METADATA, "{}")))
    metadata = unsealed(path, kept)
    digests = metadata.pop(DIGESTS, None)
    nameless = METADATA not in found and any(f'"{DIGESTS}": {{' in text for text in found.values())
    if nameless or (digests is not None and CHECKSUM not in kept):
        raise DamagedError(f"{path}: is damaged, its metadata are not whole")
    if digests is not None and digests.keys() != set(file.keys()):
        raise DamagedError(f"{path}: is damaged, its tensors are not those that were written")
    return metadata, digests, kept.get(CHECKSUM)


def _read(path: Path, framework: str, without: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    with _opened(path, framework) as file:
        metadata, digests, _ = _header(path, file)
        tensors = {name: file.get_tensor(name) for name in list(file.keys()) if name not in without}
    for name, tensor in tensors.items():
        if digests is not None and _digest(tensor) != digests[name]:
            raise DamagedError(f"{path}: is damaged, {name} does not match its checksum")
    return tensors, metadata


def _digest(tensor: Any) -> str:
    """The SHA-256 of a tensor's type, shape and bytes, the same for PyTorch and for NumPy."""
    kind, content = str(tensor.dtype).removeprefix("torch."), tensor.reshape(-1)
    if hasattr(content, "numpy"):
        import torch

        content = content.view(torch.uint8).numpy()
    digest = hashlib.sha256(f"{kind} {list(tensor.shape)} ".encode())
    digest.update(content)
    return digest.hexdigest()


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[Any]:
    try:
        path.open("rb").close()  # since safetensors takes a file without the right to read it for one that is not there
        with safe_open(path, framework=framework) as file:
            yield file
    except FileNotFoundError:
        raise DamagedError(f"{path}: is not there, though it should be") from None
    except (SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path}: is damaged, it must be safetensors ({error})") from None


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
