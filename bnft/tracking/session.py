"""One open W&B run, to which rows are logged. All its errors are raised as TrackingError."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from bnft.tracking import keys
from bnft.tracking.compat import IMAGES, SETTINGS, TABLE, is_lost
from bnft.tracking.rows import LoggedRow, Picture
from bnft.tracking.target import Target

INIT_SECONDS, FINISH_SECONDS = 30.0, 60.0
REFUSED = ("error 401", "error 403", "permission denied", "invalid api key")


class TrackingError(Exception):
    """W&B failed to log something.

    Attributes:
        lost: whether W&B's service process has died.
        refused: whether the server refuses the credentials.
        unreachable: whether the server does not answer correctly.
    """

    def __init__(self, error: BaseException, while_opening: bool = False) -> None:
        super().__init__(" ".join(f"{type(error).__name__}: {error}".split())[:300])
        self.lost = is_lost(error)
        self.refused = any(part in str(error).lower() for part in REFUSED)
        self.unreachable = not self.lost and (while_opening or isinstance(error, TimeoutError))


@dataclass(frozen=True)
class Described:
    """The description of a run for W&B."""

    name: str
    group: str | None
    policy: str
    tags: Sequence[str]
    config: Mapping[str, Any]
    commit: str | None
    host: str | None


@contextmanager
def _told(while_opening: bool = False) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # W&B's libraries have no common type of errors
        raise TrackingError(error, while_opening) from error


class Session:
    """A W&B run that is created or continued. It has the name of the run in the store.

    Attributes:
        rows: the number of rows that it has, as far as is known.
        folder: the name of its folder on this disk.
    """

    def __init__(self, described: Described, target: Target, folder: Path, finish_seconds: float) -> None:
        with _told(while_opening=True):
            import wandb

            folder.mkdir(parents=True, exist_ok=True)
            settings = wandb.Settings(
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT") or INIT_SECONDS),
                finish_timeout=finish_seconds,
                finish_timeout_raises=True,
                silent=True,
                console="off",
                disable_git=True,  # the current folder need not contain the code of the run
                disable_code=True,
                save_code=False,
                program="bnft run",
                git_commit=described.commit,
                host=described.host,
                **SETTINGS,
            )
            self._run = wandb.init(
                id=described.name,
                name=described.name,
                resume="allow",
                reinit="create_new",
                mode="online" if target.mode == "online" else "offline",
                dir=str(folder),
                entity=target.entity,
                project=target.project,
                group=described.group,
                job_type=described.policy,
                tags=list(described.tags),
                config=dict(described.config),
                settings=settings,
            )
            self.rows: int = self._run.starting_step
            self.folder = Path(self._run.dir).parent.name
            self._config = dict(described.config)
            self._run.define_metric(
                f"{keys.BN_PREFIX}*", summary="none"
            )  # without this, a summary of a megabyte is sent again and again

    @property
    def path(self) -> str:
        """The `entity/project/id` of the run on the server."""
        return str(self._run.path)

    def describe(self, config: Mapping[str, Any]) -> None:
        """Update the configuration, for example with the versions of packages that a run records at its end."""
        if dict(config) != self._config:
            with _told():
                self._run.config.update(dict(config), allow_val_change=True)
            self._config = dict(config)

    def log(self, row: LoggedRow) -> None:
        """Log a row. It is sent before `finish` returns."""
        import wandb

        with _told():
            values: dict[str, Any] = dict(row.values)
            for key, kept in row.histograms.items():
                values[key] = wandb.Histogram(np_histogram=(np.array(kept.counts), np.array(kept.edges)))
            self._run.log({**values, **self._files(row)}, step=row.step)

    def assure(self, row: LoggedRow) -> None:
        """Send the files and the summary of a row again. The server has the row, but may not have received these."""
        with _told():
            self._run.summary.update({**row.values, **self._files(row)})

    def finish(self, code: int) -> None:
        """Send everything that is left, and end the W&B run."""
        with _told():
            self._run.finish(exit_code=code)

    def _files(self, row: LoggedRow) -> dict[str, Any]:
        images = {key: self._pictures(key, row.step, pictures) for key, pictures in row.pictures.items()}
        return images | {key: self._table(key, row.step, lines) for key, lines in row.tables.items()}

    def _pictures(self, key: str, step: int, pictures: Sequence[Picture]) -> dict[str, Any]:
        """Save images in the format of W&B, one file each."""
        from PIL import Image

        names = []
        for number, picture in enumerate(pictures):
            content = BytesIO()
            pixels = picture.pixels
            Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(content, "png")
            names.append(self._file(f"media/images/{key}-{step}-{number:02}.png", content.getvalue()))
        height, width = pictures[0].pixels.shape[:2]
        return {
            "_type": IMAGES,
            "format": "png",
            "width": width,
            "height": height,
            "count": len(names),
            "filenames": names,
            "captions": [picture.caption for picture in pictures],
        }

    def _table(self, key: str, step: int, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Save a table in the format of W&B. `wandb.Table` would create an artifact and send requests to the server."""
        columns, data = list(lines[0]) if lines else [], [list(line.values()) for line in lines]
        size = {"ncols": len(columns), "nrows": len(data)}
        content = json.dumps({"columns": columns, "data": data, **size}).encode()
        name = self._file(f"media/table/{key}-{step}.table.json", content)
        mark = hashlib.sha256(content).hexdigest()
        return {"_type": TABLE, "path": name, "sha256": mark, "size": len(content), **size}

    def _file(self, name: str, content: bytes) -> str:
        """Let W&B upload a file. Its name depends only on key and step, so that a second upload replaces the first."""
        file = Path(self._run.dir) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self._run.save(str(file), base_path=self._run.dir, policy="now")
        return name


def restart() -> None:
    """Forget a dead service process and all its sessions. The next session starts another process."""
    import wandb

    with suppress(Exception):
        wandb.teardown()
    os.environ.pop("WANDB_SERVICE", None)
