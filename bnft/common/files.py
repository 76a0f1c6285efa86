"""Files that are either whole or not there: written to a temporary name, flushed, renamed. No pickle."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:  # commands that only read results start without PyTorch
    from numpy.typing import NDArray
    from torch import Tensor

from bnft.common.errors import DamagedError, InputError

TEMPORARY = ".tmp"


def write(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content`, atomically and durably. Leaves nothing behind if it fails.

    Raises InputError where there is no room or no right to write.
    """
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
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); the same command goes on once it can"
        ) from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_temporary(folder: Path) -> None:
    """Remove what killed processes left behind in a folder, and below it, that only we write to now."""
    for leftover in folder.rglob(f".*{TEMPORARY}"):
        leftover.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    write(path, (json.dumps(value, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Raises DamagedError if the file is not JSON, FileNotFoundError if it is not there."""
    try:
        return json.loads(path.read_text())
    except (UnicodeDecodeError, ValueError) as error:
        raise DamagedError(f"{path}: is damaged, it must be JSON ({error}); remove it to have it made again") from None


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    """One JSON object a line."""
    write(path, "".join(json.dumps(record) + "\n" for record in records).encode())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Raises DamagedError if a line is not JSON; no file is no lines."""
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (UnicodeDecodeError, ValueError) as error:
        raise DamagedError(f"{path}: is damaged, each line must be JSON ({error})") from None


def write_yaml(path: Path, value: Any) -> None:
    write(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120).encode())


def read_yaml(path: Path) -> Any:
    """Raises DamagedError if the file is not YAML."""
    try:
        return yaml.safe_load(path.read_text())
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DamagedError(f"{path}: is damaged, it must be YAML ({reason}); move its folder away") from None


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, Any] | None = None) -> None:
    """Tensors as safetensors; `metadata` is kept as JSON beside them."""
    from safetensors.torch import save

    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    write(path, save(plain, {"bnft": json.dumps(dict(metadata or {}))}))


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Tensors, on the CPU, and metadata. Raises DamagedError if the file is not whole."""
    return _read(path, "pt")


def read_arrays(path: Path) -> "dict[str, NDArray[Any]]":
    """The same as NumPy arrays, without PyTorch."""
    return _read(path, "numpy")[0]


def read_metadata(path: Path) -> dict[str, Any]:
    """What was kept beside the tensors. Reads no more than the header; raises DamagedError if the file is not whole."""
    with _opened(path, "numpy") as file:
        return _metadata(file)


def _metadata(file: Any) -> dict[str, Any]:
    return dict(json.loads((file.metadata() or {}).get("bnft", "{}")))


def _read(path: Path, framework: str) -> tuple[dict[str, Any], dict[str, Any]]:
    with _opened(path, framework) as file:
        return {name: file.get_tensor(name) for name in list(file.keys())}, _metadata(file)


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[Any]:
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except FileNotFoundError:
        raise DamagedError(f"{path}: is not there, though it should be") from None
    except (SafetensorError, ValueError) as error:
        raise DamagedError(f"{path}: is damaged, it must be safetensors ({error})") from None


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
