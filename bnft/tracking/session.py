"""One W&B run, open for rows. Whatever goes wrong in it is a TrackingError."""

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
    """Something did not get into W&B. `lost` if its service process is gone, `refused` if the server wants other
    credentials, `unreachable` if it does not answer as it should."""

    def __init__(self, error: BaseException, while_opening: bool = False) -> None:
        super().__init__(" ".join(f"{type(error).__name__}: {error}".split())[:300])
        self.lost = is_lost(error)
        self.refused = any(part in str(error).lower() for part in REFUSED)
        self.unreachable = not self.lost and (while_opening or isinstance(error, TimeoutError))


@dataclass(frozen=True)
class Described:
    """What W&B is told of a run, beside its rows."""

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
    except Exception as error:  # W&B's libraries raise all kinds
        raise TrackingError(error, while_opening) from error


class Session:
    """A W&B run of the name that our run has, begun or continued; with `rows` in it already, as far as can be known."""

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
                disable_git=True,  # this process's folder says nothing about the code that made the run
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
            )  # else the summary is a megabyte, sent again and again

    @property
    def path(self) -> str:
        """Entity, project and id, as the server knows the run."""
        return str(self._run.path)

    def describe(self, config: Mapping[str, Any]) -> None:
        """Bring the configuration up to date, as with the versions that a run records at its end."""
        if dict(config) != self._config:
            with _told():
                self._run.config.update(dict(config), allow_val_change=True)
            self._config = dict(config)

    def log(self, row: LoggedRow) -> None:
        """Log a row; it is sent at some time before `finish` returns."""
        import wandb

        with _told():
            found: dict[str, Any] = dict(row.values)
            for key, kept in row.histograms.items():
                found[key] = wandb.Histogram(np_histogram=(np.array(kept.counts), np.array(kept.edges)))
            self._run.log({**found, **self._files(row)}, step=row.step)

    def assure(self, row: LoggedRow) -> None:
        """Send what goes with a row that the server has, but may have come without: its files and its summary."""
        with _told():
            self._run.summary.update({**row.values, **self._files(row)})

    def finish(self, code: int) -> None:
        """Send what is left and end the W&B run."""
        with _told():
            self._run.finish(exit_code=code)

    def _files(self, row: LoggedRow) -> dict[str, Any]:
        found = {key: self._pictures(key, row.step, pictures) for key, pictures in row.pictures.items()}
        return found | {key: self._table(key, row.step, lines) for key, lines in row.tables.items()}

    def _pictures(self, key: str, step: int, pictures: Sequence[Picture]) -> dict[str, Any]:
        """Images as W&B keeps them: a file each."""
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
        """A table as W&B keeps it: a file. `wandb.Table` would make an artifact of it, and ask the server meanwhile."""
        columns, data = list(lines[0]) if lines else [], [list(line.values()) for line in lines]
        size = {"ncols": len(columns), "nrows": len(data)}
        content = json.dumps({"columns": columns, "data": data, **size}).encode()
        name = self._file(f"media/table/{key}-{step}.table.json", content)
        mark = hashlib.sha256(content).hexdigest()
        return {"_type": TABLE, "path": name, "sha256": mark, "size": len(content), **size}

    def _file(self, name: str, content: bytes) -> str:
        """Have W&B keep a file. Its name depends on key and step only, so that sending it twice makes no other."""
        file = Path(self._run.dir) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self._run.save(str(file), base_path=self._run.dir, policy="now")
        return name


def restart() -> None:
    """Forget a service process that is gone, and every session with it; the next session starts another."""
    import wandb

    with suppress(Exception):
        wandb.teardown()
    os.environ.pop("WANDB_SERVICE", None)
