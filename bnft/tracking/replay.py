"""Log one run of the store in W&B, while it is running or afterwards."""

import shutil
import time
from contextlib import ExitStack
from typing import Any

from bnft.common.stopping import steady
from bnft.runs import layout
from bnft.runs.store import Store
from bnft.tracking import server, state
from bnft.tracking.rows import Records, described, order_of
from bnft.tracking.session import FINISH_SECONDS, Described, Session
from bnft.tracking.target import Target

INTERRUPTED = 255  # W&B's exit code of a stopped run
COUNT_SECONDS = (0.3, 1.0, 2.0)  # pauses between requests, because a server may count its new lines only after a moment


class TakenError(Exception):
    """Another process tracks the run."""


class ShortError(Exception):
    """The server has fewer rows than were sent."""


def exit_code(status: dict[str, Any]) -> int | None:
    """Return W&B's exit code for the status of a run; None while it is running."""
    return {"done": 0, "failed": 1, "interrupted": INTERRUPTED}.get(str(status.get("state")))


def complete(store: Store, name: str, target: Target) -> bool:
    """Return whether the target certainly has all rows of a run. Sends no request."""
    folder = store.run(name)
    tracking = state.load(folder)
    sent = tracking.targets.get(target.name)
    if sent is None or sent.code is None or sent.code != exit_code(folder.status()):
        return False
    return len(Records(folder, order_of(tracking.evaluations, folder.evaluations()))) <= sent.rows


class Replay:
    """Logs one run. It holds the run's lock for tracking from the first new row until `close` or `drop`.

    The methods raise TakenError if another process holds the lock, TrackingError for errors of W&B, and InputError for
    errors of the store.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        target: Target,
        group: str | None = None,
        commit: str | None = None,
        finish_seconds: float = FINISH_SECONDS,
    ) -> None:
        self.folder, self.target = store.run(name), target
        self._store, self._group, self._commit, self._finish_seconds = store, group, commit, finish_seconds
        self._tracking, self._evaluations = state.Tracking(), list[str]()
        self._session: Session | None = None
        self._held = ExitStack()
        self.sent = 0  # number of rows that this object has logged
        self.touched = 0.0

    @property
    def is_open(self) -> bool:
        return self._session is not None

    def catch_up(self) -> int:
        """Log every new row. Return the number of all rows."""
        records = self._records()
        if not len(records):
            return 0
        session = self._opened(records)
        for step in range(session.rows, len(records)):
            session.log(records.row(step))
            session.rows = step + 1
            self.sent += 1
        session.describe(self._config(records))
        self.touched = time.monotonic()
        return len(records)

    def close(self, code: int, check: bool = False) -> None:
        """Send the remaining rows, end the W&B run, and save what the target has now.

        Args:
            code: the exit code.
            check: whether to ask the server for the number of its rows.

        Raises:
            ShortError: if the server has fewer rows than were sent.
        """
        session = self._session
        if session is None:
            return
        try:
            session.finish(code)
            rows = session.rows
            if check and self.target.mode == "online":
                rows = self._counted(session)
            sent = self._tracking.sent(self.target.name)
            sent.rows, sent.folder = rows, None
            sent.code = code if rows == session.rows else None
            self._tracking.save(self.folder)
            if rows < session.rows:
                raise ShortError(f"the server has {rows} of {session.rows} rows")
        finally:
            self.drop()

    def drop(self) -> None:
        """Forget the session, without ending the W&B run."""
        self._session = None
        self._held.close()

    def _records(self) -> Records:
        if self._session is None:  # with a session, only this process writes the file
            self._tracking = state.load(self.folder)
        self._tracking.evaluations = order_of(self._tracking.evaluations, self.folder.evaluations())
        return Records(self.folder, tuple(self._tracking.evaluations))

    def _config(self, records: Records) -> dict[str, Any]:
        return described(self.folder, records.config, self._tracking.commit)

    def _opened(self, records: Records) -> Session:
        if self._session is not None:
            if self._evaluations != self._tracking.evaluations:  # before their rows are sent
                self._remember()
            return self._session
        self._held.enter_context(self._store.locked(f"wandb-{self.folder.name}", _taken, steady))
        try:
            return self._open(records)
        except BaseException:
            self.drop()
            raise

    def _open(self, records: Records) -> Session:
        tracking = self._tracking
        tracking.group, tracking.commit = tracking.group or self._group, tracking.commit or self._commit
        sent = tracking.sent(self.target.name)
        wandb = self._store.root / layout.WANDB
        if sent.folder is not None:  # it was never ended, so its rows are logged again
            shutil.rmtree(wandb / sent.folder, ignore_errors=True)
        self._remember()
        session = self._session = Session(self._described(records), self.target, self._store.root, self._finish_seconds)
        if self.target.mode == "offline":
            session.rows, sent.folder = sent.rows, session.folder
            self._remember()
        else:
            for step in range(min(sent.rows, len(records)), min(session.rows, len(records))):
                if step > records.epochs:  # it was sent by a process that was killed
                    session.assure(records.row(step))
        return session

    def _remember(self) -> None:
        self._tracking.save(self.folder)
        self._evaluations = list(self._tracking.evaluations)

    def _described(self, records: Records) -> Described:
        run, settings = self.folder.record(), records.config.get("wandb") or {}
        return Described(
            name=self.folder.name,
            group=self._tracking.group,
            policy=run.policy,
            tags=tuple(settings.get("tags") or ()),
            config=self._config(records),
            commit=self._tracking.commit,
            host=self.folder.status().get("host"),
        )

    def _counted(self, session: Session) -> int:
        """Return how many rows of the session the server has."""
        for seconds in (*COUNT_SECONDS, 0.0):
            count = server.lines(self.target, session.path)
            if count is None or count >= session.rows:
                return session.rows
            time.sleep(seconds)
        return count or 0


def _taken() -> None:
    raise TakenError
