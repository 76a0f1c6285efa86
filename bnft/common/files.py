"""Atomic files: they are written to a temporary name, flushed and renamed. Nothing is pickled.

Files that affect numbers contain SHA-256 checksums, which are checked whenever the files are read. A mapping contains a
checksum of all its other keys. A line contains a checksum of itself and all lines before it. A file of tensors contains
a checksum of each tensor. Files of version 0.1 have no checksums and are read without a check.
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
METADATA, DIGESTS = "bnft", "sha256"  # the key of the JSON in a file of tensors, and that of the checksums in this JSON
WAYS_OUT = {
    PermissionError: "ask its owner for permission",
    IsADirectoryError: "remove the folder that is in its place",
    NotADirectoryError: "remove the file that is in the place of its folder",
}


@contextmanager
def reachable() -> Iterator[None]:
    """Turn errors about files that cannot be used into InputError. Can also be used as a decorator."""
    try:
        yield
    except tuple(WAYS_OUT) as error:
        if error.filename is None:  # not about a file
            raise
        way_out = WAYS_OUT[type(error)]
        raise InputError(f"{error.filename}: cannot be used ({error.strerror}); {way_out}") from None


def folders(path: Path) -> list[Path]:
    """Return the folders in a folder, sorted by name; none if it does not exist.

    Unlike `glob`, it raises PermissionError if the folder cannot be read.
    """
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []


def write(path: Path, content: bytes, owner: Path | None = None) -> None:
    """Replace the file at `path` by `content`, atomically and durably. If it fails, no temporary file is left.

    Args:
        path: the file. Its folder is made if it does not exist.
        content: the new content.
        owner: config.yaml of the run that the file belongs to. If it does not exist, the folder of the run was removed,
            and is not made again.

    Raises:
        InputError: if the folder of the run was removed.
        UnwritableError: if the disk is full or permission is denied.
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
            f"{path}: cannot be written ({error.strerror}); once it can be, the same command continues"
        ) from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    try:
        _check_owner(owner)
    except InputError:  # the folder was removed in the meantime, and may have been made again for this file
        path.unlink(missing_ok=True)
        _remove_empty(path.parent, owner)
        raise


def _check_owner(owner: Path | None) -> None:
    if owner is not None and not owner.exists():
        raise InputError(f"{owner.parent}: was removed during its run; the same command makes it again")


def _remove_empty(folder: Path, owner: Path | None) -> None:
    """Remove `folder` and the folders above it up to the folder of `owner`, if they are empty."""
    with suppress(OSError):
        while owner is not None and folder.is_relative_to(owner.parent):
            folder.rmdir()
            folder = folder.parent


def remove_temporary(folder: Path) -> None:
    """Remove temporary files of killed processes in a folder and below. No other process may be writing to it."""
    for leftover in folder.rglob(f".*{TEMPORARY}"):
        leftover.unlink(missing_ok=True)


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping of plain data with a checksum of its content; see `unsealed`."""
    return {**value, CHECKSUM: hashlib.sha256(_canonical(value)).hexdigest()}


def unsealed(path: Path, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping without its checksum, if it has one. Raises DamagedError if the checksum does not match."""
    rest = {key: item for key, item in value.items() if key != CHECKSUM}
    if CHECKSUM in value and sealed(rest)[CHECKSUM] != value[CHECKSUM]:
        raise DamagedError(f"{path}: is damaged, its content does not match its checksum")
    return rest


def _canonical(value: Any) -> bytes:
    """Return plain data as JSON in a form that stays the same if the data are written and read as JSON or YAML."""
    plain = json.loads(json.dumps(value, default=str))  # turns keys into text and tuples into lists
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def write_json(path: Path, value: Any, owner: Path | None = None) -> None:
    write(path, (json.dumps(value, indent=1) + "\n").encode(), owner)


def read_json(path: Path) -> Any:
    """Read JSON. Raises DamagedError if the file is not JSON, FileNotFoundError if it does not exist."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise DamagedError(f"{path}: is damaged, it must be JSON ({error})") from None


def write_lines(path: Path, records: Iterable[Mapping[str, Any]], owner: Path | None = None) -> None:
    """Write one JSON object per line, with a checksum of the line and all lines before it."""
    write(path, "".join(json.dumps(record) + "\n" for record in _chained(records)).encode(), owner)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the JSON objects of a file, one per line; none if it does not exist.

    Raises DamagedError if a line is not a JSON object or does not match its checksum.
    """
    if not path.exists():
        return []
    try:
        lines = [dict(json.loads(line)) for line in path.read_text().splitlines()]
    except (ValueError, TypeError) as error:
        raise DamagedError(f"{path}: is damaged, each line must be a JSON object ({error})") from None
    records = [{key: item for key, item in line.items() if key != CHECKSUM} for line in lines]
    checksums = [line.get(CHECKSUM) for line in lines]
    if any(checksums) and checksums != [record[CHECKSUM] for record in _chained(records)]:
        raise DamagedError(f"{path}: is damaged, its lines do not match their checksums")
    return records


def _chained(records: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    digest = hashlib.sha256()
    for record in records:
        digest.update(_canonical(record))
        yield {**record, CHECKSUM: digest.hexdigest()}


def write_yaml(path: Path, value: Mapping[str, Any]) -> None:
    """Write a mapping as YAML, with its checksum as the last key."""
    write(path, yaml.safe_dump(sealed(value), sort_keys=False, allow_unicode=True, width=120).encode())


def read_yaml(path: Path) -> Any:
    """Read YAML. Raises DamagedError if the file is not YAML or does not match its checksum."""
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
    """Write tensors as safetensors, with checksums and with `metadata` as JSON. Returns the checksum of the file."""
    from safetensors.torch import save

    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    kept = sealed({**(metadata or {}), DIGESTS: {name: _digest(tensor) for name, tensor in plain.items()}})
    write(path, save(plain, {METADATA: json.dumps(kept)}), owner)  # a single key, because safetensors keeps no order
    return str(kept[CHECKSUM])


def read_tensors(path: Path, without: Collection[str] = ()) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Read tensors, on the CPU, and the metadata of their file. Tensors named in `without` are left out.

    Raises DamagedError if the file, or a tensor that is read, is damaged.
    """
    return _read(path, "pt", without)


def read_arrays(path: Path, without: Collection[str] = ()) -> "dict[str, NDArray[Any]]":
    """Read tensors as NumPy arrays, without PyTorch; see `read_tensors`."""
    return _read(path, "numpy", without)[0]


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a file of tensors. Reads only the header. Raises DamagedError if the header is damaged."""
    with _opened(path, "numpy") as file:
        return _header(path, file)[0]


def checksum(path: Path) -> str | None:
    """Read the checksum in the header of a file of tensors; None for a file of version 0.1."""
    with _opened(path, "numpy") as file:
        return _header(path, file)[2]


def _header(path: Path, file: Any) -> tuple[dict[str, Any], dict[str, str] | None, str | None]:
    """Return the metadata of a file of tensors, the digests of the tensors by name, and the checksum of the file."""
    header = file.metadata() or {}
    kept = dict(json.loads(header.get(METADATA, "{}")))
    metadata = unsealed(path, kept)
    digests = metadata.pop(DIGESTS, None)
    nameless = METADATA not in header and any(f'"{DIGESTS}": {{' in text for text in header.values())
    if nameless or (digests is not None and CHECKSUM not in kept):
        raise DamagedError(f"{path}: is damaged, its metadata are incomplete")
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
    """Return the SHA-256 of a tensor's type, shape and bytes. It is the same for PyTorch and NumPy."""
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
        path.open("rb").close()  # safetensors reports a file that cannot be read as one that does not exist
        with safe_open(path, framework=framework) as file:
            yield file
    except FileNotFoundError:
        raise DamagedError(f"{path}: is missing") from None
    except (SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path}: is damaged, it must be safetensors ({error})") from None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
